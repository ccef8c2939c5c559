"""Cold starts: from a worker's first moment to its first answer, what memory it holds then, what it has loaded."""

import os
import time
from pathlib import Path

import httpx
import msgspec

from bench.launched import Launched, Project, wait_for
from bench.serving_models import MODELS, sampled
from bench.serving_servers import objects

__all__ = ["SHUNNED", "Start", "start"]

PROC = Path("/proc")
SHUNNED = ("pandas", "evidently", "deltalake")
WATCHED = (*SHUNNED, "sklearn")
ASKED = 50
"""Answers of each model before the memory is read."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One cold start of ``retrue api``."""

    worker_s: float
    """From the worker's own start to the first moment at which it is ready."""
    whole_s: float
    """From the command to the same moment."""
    again_s: float
    """The same for a worker that is started anew by its supervisor, while the service stays up."""
    resident_mib: float
    """Of the worker, after it has answered with every model."""
    proportional_mib: float
    loaded: tuple[str, ...]
    """Which of the heavy libraries it has mapped."""


def start(made: Project, *, log: str) -> Start:
    """Start the service's API once and return what was seen.

    Raises
    ------
    TimeoutError
        If it does not become ready.
    """
    began = time.time()
    service = Launched(made, "api", "--workers", "1", log=log)
    try:
        ready = _ready(made)
        first = _worker_of(service.process.pid)
        for model in MODELS:
            for row in sampled().alone[:ASKED]:
                body = objects(row[None, :])
                httpx.post(f"{made.url}/v1/models/{model}/predict", content=body, trust_env=False).raise_for_status()
        resident, proportional = _sizes(first)
        loaded = _loaded(first)
        started = _started_at(first)
        os.kill(first, 9)
        wait_for(lambda: _worker_of(service.process.pid, but=first), deadline_s=60, what="another worker", pause_s=0.01)
        again = _ready(made) - _started_at(_worker_of(service.process.pid, but=first))
    finally:
        service.stop()
    return Start(
        worker_s=ready - started, whole_s=ready - began, again_s=again, resident_mib=resident,
        proportional_mib=proportional, loaded=loaded,
    )  # fmt: skip


def _worker_of(supervisor: int, *, but: int = 0) -> int:
    """Return the process of the one worker below a supervisor; 0 if there is none."""
    for entry in PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != but and _is_worker(entry, supervisor):
            return int(entry.name)
    return 0


def _is_worker(entry: Path, supervisor: int) -> bool:
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        parent = int(_fields(entry)[1])
    except OSError:
        return False
    return parent == supervisor and b"service.app" in words and b"worker" in words


def _ready(made: Project) -> float:
    """Return when every model answers, in seconds since the epoch."""
    with httpx.Client(base_url=made.url, timeout=2.0, trust_env=False) as client:

        def is_ready() -> bool:
            try:
                return client.get("/readyz").status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        wait_for(is_ready, deadline_s=90, what="ready", pause_s=0.01)
    return time.time()


def _started_at(pid: int) -> float:
    ticks = int(_fields(PROC / str(pid))[19])
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + ticks / os.sysconf("SC_CLK_TCK")


def _sizes(pid: int) -> tuple[float, float]:
    found = {}
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) / 1024
    return found["Rss"], found["Pss"]


def _loaded(pid: int) -> tuple[str, ...]:
    maps = (PROC / str(pid) / "maps").read_text()
    return tuple(name for name in WATCHED if f"/{name}/" in maps)


def _fields(entry: Path) -> list[str]:
    return (entry / "stat").read_text().rpartition(")")[2].split()
