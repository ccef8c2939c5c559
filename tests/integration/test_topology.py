"""The containers' topology without containers: two apis, two controllers, PostgreSQL and Prometheus, real processes.

Each api has a home of its own, and lake, artifacts and evidence are everybody's, as the mounts of docker-compose.yml.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.storage import tables
from service.storage.database import Database
from service.storage.lake import Lake
from tests.launched import ROWS, Launched, launched, prepared, until
from tests.prometheus import prometheus

pytestmark = pytest.mark.timeout(1800)  # seven processes start slowly on a busy machine

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PATIENT_S = 500


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def home_of(folder: Path, name: str) -> Path:
    """Return a home whose shared parts are everybody's."""
    home = folder / name
    home.mkdir()
    for part in ("lake", "artifacts", "reports"):
        (folder / "shared" / part).mkdir(parents=True, exist_ok=True)
        (home / part).symlink_to(folder / "shared" / part)
    return home


def is_well(service: str, port: int) -> bool:
    """Ask as the container's own health check does, on another port."""
    words = COMPOSE["services"][service]["healthcheck"]["test"]
    assert words[:3] == ["CMD", "python", "deploy/healthy.py"]
    url = words[3].replace(":8080/", f":{port}/").replace(":9100/", f":{port}/")
    return subprocess.run([sys.executable, words[2], url], cwd=ROOT, check=False).returncode == 0


@dataclass
class Controller:
    """A controller that runs alone."""

    process: "subprocess.Popen[bytes]"
    port: int

    def figure(self, name: str) -> float | None:
        """Return one of its metrics; None while it does not answer."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text
        except httpx.TransportError:
            return None
        found = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(found[0].rpartition(" ")[2]) if found else None

    @property
    def leads(self) -> bool:
        return self.figure("retrue_leader") == 1.0


@contextmanager
def controller(home: Path, url: str) -> Iterator[Controller]:
    port = free_port()
    (home / "models").mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RETRUE_", "PROMETHEUS_"))}
    settings = {
        "home": home, "database_url": url, "models_folder": home / "models", "log_format": "json",
        "controller_port": port,
    }  # fmt: skip
    environ |= {f"RETRUE_{name.upper()}": str(value) for name, value in settings.items()}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "controller"], cwd=ROOT, env=environ, stdout=log, stderr=log
        )
    try:
        yield Controller(process, port)
    except BaseException:
        print((home / "log").read_text(errors="replace")[-3000:])  # noqa: T201  pytest shows it
        raise
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def rows_in_the_lake(folder: Path) -> int:
    version = Lake(folder / "shared" / "lake").version_of("price", "predictions")
    if version is None:
        return 0
    from deltalake import DeltaTable

    (table,) = {path.parent for path in (folder / "shared" / "lake").rglob("_delta_log") if "predictions" in str(path)}
    return int(DeltaTable(str(table)).to_pyarrow_table(columns=["id"]).num_rows)


def lease_of(database: Database) -> int:
    with database.read() as conn:
        row = conn.execute(tables.leases.select()).one_or_none()
    return 0 if row is None else int(row.token)


def test_the_containers_topology_goes_on_without_its_leading_controller_and_without_one_api(
    tmp_path: Path, postgres_url: str
) -> None:
    homes = {name: home_of(tmp_path, name) for name in ("api-1", "api-2", "controller-1", "controller-2")}
    database = prepared(homes["api-1"], postgres_url)
    with ExitStack() as stack:
        stack.callback(database.close)
        apis = [stack.enter_context(launched(homes[f"api-{n}"], url=postgres_url, ready=False)) for n in (1, 2)]
        for api in apis:
            until(api.is_ready, within_s=PATIENT_S, what="an api's readiness")
        controllers = [stack.enter_context(controller(homes[f"controller-{n}"], postgres_url)) for n in (1, 2)]
        until(lambda: sum(one.leads for one in controllers) == 1, within_s=PATIENT_S, what="one leader")
        ports = {f"api-{n}": api.address[1] for n, api in enumerate(apis, start=1)}
        ports |= {f"controller-{n}": one.port for n, one in enumerate(controllers, start=1)}
        targets = [{"targets": [f"127.0.0.1:{port}"], "labels": {"process": name}} for name, port in ports.items()]
        watching = stack.enter_context(prometheus(tmp_path / "prometheus", *targets))
        assert all(is_well(f"api-{n}", ports[f"api-{n}"]) for n in (1, 2))
        assert all(is_well("controller", one.port) for one in controllers)

        answered = _predictions_reach_one_lake(apis, tmp_path)
        until(
            lambda: watching.now("up", by="process") == dict.fromkeys(ports, 1.0),
            within_s=PATIENT_S,
            what="every scrape",
        )
        until(
            lambda: sum(watching.now("sum by (process) (retrue_leader)", by="process").values()) == 1.0,
            within_s=PATIENT_S, what="one leader to be seen",
        )  # fmt: skip

        _the_other_controller_leads(controllers, database)
        dead = f"controller-{[one.process.poll() is None for one in controllers].index(False) + 1}"
        until(
            lambda: watching.now("up", by="process").get(dead) == 0.0, within_s=PATIENT_S, what="the dead one's absence"
        )
        living = next(one for one in controllers if one.process.poll() is None)
        until(lambda: living.leads, within_s=PATIENT_S, what="the other one's lead")

        _kill(apis[0])
        assert apis[1].predict().status_code == 200
        assert is_well("api-2", ports["api-2"])
        assert not is_well("api-1", ports["api-1"])
        until(lambda: rows_in_the_lake(tmp_path) == answered + 1, within_s=PATIENT_S, what="the last row")
        until(
            lambda: watching.now("up", by="process").get("api-1") == 0.0, within_s=PATIENT_S, what="the api's absence"
        )


def _predictions_reach_one_lake(apis: list[Launched], folder: Path) -> int:
    answered = 0
    for _ in range(5):
        for api in apis:
            assert api.predict().status_code == 200
            answered += len(ROWS["instances"])
    until(lambda: rows_in_the_lake(folder) == answered, within_s=PATIENT_S, what="every row in the one lake")
    return answered


def _the_other_controller_leads(controllers: list[Controller], database: Database) -> None:
    leading = next(one for one in controllers if one.leads)
    token = lease_of(database)
    leading.process.send_signal(signal.SIGKILL)
    leading.process.wait(30)
    until(lambda: lease_of(database) > token, within_s=PATIENT_S, what="a new term")


def _kill(api: Launched) -> None:
    """End an api as a host that loses its power does: at once, and all of it."""
    for line in api.said("child_started"):
        with suppress(ProcessLookupError):
            os.kill(int(line["pid"]), signal.SIGKILL)
    api.process.kill()
    api.process.wait(30)
