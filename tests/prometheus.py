"""A real Prometheus with the committed rules, and the real promtool; where Debian's package is missing, a reason."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.launched import NO_TLS, until

__all__ = ["RULES", "Prometheus", "program", "prometheus"]

RULES = Path(__file__).parents[1] / "grafana" / "prometheus"
EVERY = "2s"


def program(name: str) -> str:
    """Return the path of a program of the Prometheus package; CI must have it, elsewhere the test is skipped."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} is not on this machine: scripts/system.sh prometheus installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, verify=NO_TLS)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def is_ready(self) -> bool:
        """Return whether it answers."""
        try:
            return self._client.get("/-/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def get(self, path: str, **arguments: Any) -> Any:
        """Return the data of an answer of its API."""
        answer = self._client.get(f"/api/v1/{path}", params=arguments)
        assert answer.status_code == httpx.codes.OK, (arguments, answer.text)
        return answer.json()["data"]

    def values(self, expr: str, *, start: float, end: float) -> list[float]:
        """Return all values of all series of a query over time."""
        found = self.get("query_range", query=expr, start=start, end=end, step="2s")["result"]
        return [float(value) for series in found for _, value in series["values"]]

    def now(self, expr: str, *, by: str) -> dict[str, float]:
        """Return the newest values by a label."""
        return {one["metric"].get(by, ""): float(one["value"][1]) for one in self.get("query", query=expr)["result"]}


@contextmanager
def prometheus(folder: Path, *targets: Mapping[str, Any]) -> Iterator[Prometheus]:
    """Run one that scrapes `targets`, each in the form of its static_configs, and end it afterwards."""
    binary = program("prometheus")
    folder.mkdir()
    config = folder / "prometheus.yml"
    content = {
        "global": {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY},
        "rule_files": [str(RULES / "rules" / "*.yml")],
        "scrape_configs": [{"job_name": "retrue", "static_configs": list(targets)}],
    }
    config.write_text(yaml.safe_dump(content))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    argv = [binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        until(server.is_ready, within_s=120, what="Prometheus")
        yield server
    finally:
        server.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
