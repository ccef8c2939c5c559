"""The real command with real processes, on a home whose database and artifacts a test has made itself."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from tests.served import PRICE, crown, pack, price, register

__all__ = ["ROWS", "Launched", "is_alive", "launched", "prepared", "until"]

ROOT = Path(__file__).parents[1]
PREDICT = "/v1/models/price/predict"
NO_TLS = ssl.create_default_context()
"""Made once: it is not used, and takes longer to make than an answer takes."""
ROWS = {"instances": [[float(place) for place in range(8)]]}


def until(seen: Callable[[], Any], *, within_s: float = 90, what: str = "it") -> Any:
    """Return the first true value of `seen`."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if found := seen():
            return found
        time.sleep(0.05)
    pytest.fail(f"{what} did not happen within {within_s} s")


def is_alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def prepared(home: Path, url: str, *, champion: bool = True) -> Database:
    """Return a migrated database in which version 1 of `price` is champion."""
    database = Database(url)
    database.migrate()
    register(database, PRICE)
    if champion:
        crown(database, pack(ArtifactStore(home / "artifacts"), PRICE, price(0)))
    return database


class Launched:
    """A service under way."""

    def __init__(self, home: Path, process: "subprocess.Popen[bytes]") -> None:
        self.home, self.process = home, process

    @property
    def log(self) -> list[dict[str, Any]]:
        """What its processes have said so far."""
        lines = []
        for line in (self.home / "log").read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                lines.append(json.loads(line))
        return lines

    def said(self, action: str, **facts: Any) -> list[dict[str, Any]]:
        """Return the lines of one kind."""
        return [
            line
            for line in self.log
            if line.get("action") == action and all(line.get(k) == v for k, v in facts.items())
        ]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        line = until(lambda: self.said("listening"), what="listening")[0]
        parts = urlsplit(line["address"])
        return str(parts.hostname), int(parts.port or 0)

    def pid(self, child: str) -> int:
        """Return the process id of the newest child of that name."""
        return int(until(lambda: self.said("child_started", child=child), what=f"{child} started")[-1]["pid"])

    def request(self, method: str, path: str, *, timeout_s: float = 10, **arguments: Any) -> httpx.Response:
        """Send one request on a connection of its own."""
        host, port = self.address
        with httpx.Client(verify=NO_TLS, timeout=timeout_s) as client:
            return client.request(method, f"http://{host}:{port}{path}", **arguments)

    def predict(self, **arguments: Any) -> httpx.Response:
        """Ask for one row."""
        return self.request("POST", PREDICT, json=ROWS, **arguments)

    def connect(self) -> socket.socket:
        """Return a plain connection."""
        return socket.create_connection(self.address, timeout=20)

    def is_ready(self) -> bool:
        """Return whether it says that it is."""
        try:
            return self.request("GET", "/readyz", timeout_s=2).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples; `name` may have labels."""
        text = self.request("GET", "/metrics").text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    def end(self, within_s: float = 20) -> float:
        """Tell it to end; return how long that took."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(within_s)
        return time.monotonic() - began


@contextmanager
def launched(
    home: Path, *, role: str = "api", url: str = "", workers: int = 1, ready: bool = True, **settings: Any
) -> Iterator[Launched]:
    """Run ``retrue api`` (or `role`) on `home` and end it afterwards, whatever became of it."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "models").mkdir(exist_ok=True)
    mine = {"home": home, "models_folder": home / "models", "port": 0, "workers": workers, "log_format": "json"}
    mine |= {"database_url": url} if url else {}
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RETRUE_", "PROMETHEUS_"))}
    environ |= {f"RETRUE_{name.upper()}": str(value) for name, value in (mine | settings).items()}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", role], cwd=ROOT, env=environ, stdout=log, stderr=log
        )
    one = Launched(home, process)
    try:
        if ready:
            until(one.is_ready, within_s=150, what="ready")
        yield one
    except BaseException:
        print((home / "log").read_text(encoding="utf-8", errors="replace")[-6000:])  # noqa: T201  pytest shows it
        raise
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for line in one.said("child_started"):
            with suppress(ProcessLookupError):
                if is_alive(line["pid"]):
                    os.kill(line["pid"], signal.SIGCONT)
                    os.kill(line["pid"], signal.SIGKILL)
