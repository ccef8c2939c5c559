"""What a scrape costs: many models, many versions and runs, workers that died, and a service that answers meanwhile."""

import argparse
import os
import shutil
import signal
import statistics
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Section, Target, publish
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from tests.launched import NO_TLS, Launched, launched, until
from tests.served import PRICE, crown, named, pack, price, register

__all__ = ["main"]

LONGEST_MS = 100.0
WORKERS = 2


def fill(home: Path, *, models: int, versions: int) -> None:
    """Write so many models, each with so many versions that were champions one after the other."""
    database = Database(f"sqlite:///{home / 'retrue.db'}")
    database.migrate()
    store = ArtifactStore(home / "artifacts")
    for number in range(models):
        schema = named(PRICE, "price" if number == 0 else f"price{number}")
        register(database, schema)
        row = pack(store, schema, price(number))
        for version in range(1, versions + 1):
            crown(database, replace(row, version=version))
    database.close()


def scrapes(service: Launched, n: int) -> tuple[list[float], int, int]:
    """Return milliseconds of so many scrapes, bytes and series of the last; each reads the database anew."""
    host, port = service.address
    taken, text = [], ""
    with httpx.Client(base_url=f"http://{host}:{port}", verify=NO_TLS, timeout=30) as client:
        for _ in range(n):
            began = time.perf_counter()
            text = client.get("/metrics").text
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(1.05)  # what was read from the database is handed out again for a second
    return taken, len(text), sum(not line.startswith("#") for line in text.splitlines())


def is_whole(service: Launched) -> bool:
    """Return whether both workers serve every champion."""
    return service.metric("retrue_workers") == WORKERS and service.metric("retrue_serving_lagging") == 0


def is_new(service: Launched, before: int) -> bool:
    """Return whether another worker than `before` answers."""
    return service.pid("api-0") != before and service.is_ready()


def kill(service: Launched, times: int) -> None:
    """Kill the worker so often, each time once it is up again."""
    for _ in range(times):
        before = service.pid("api-0")
        os.kill(before, signal.SIGKILL)
        until(partial(is_new, service, before), within_s=120)


def main() -> int:
    """Run the bench; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer models, versions and scrapes")
    given: Any = parser.parse_args()
    started = time.perf_counter()
    cases = [(1, 2), (1, 200), (20, 20)] if given.quick else [(1, 2), (1, 200), (20, 2), (20, 200)]
    turns, deaths = (10, 2) if given.quick else (30, 10)
    rows, targets, figures = [], [], []
    for models, versions in cases:
        home = Path.cwd() / ".cache" / f"scrape-{os.getpid()}-{models}-{versions}"
        home.mkdir(parents=True)
        fill(home, models=models, versions=versions)
        with launched(home, workers=WORKERS) as service:
            until(partial(is_whole, service), within_s=300, what="all champions at both workers")
            for killed in (0, deaths):
                kill(service, killed)
                taken, size, series = scrapes(service, turns)
                p50, worst = statistics.median(taken), max(taken)
                name = f"models {models}, versions of each {versions}, workers killed {killed}"
                rows.append((name, f"{p50:.1f}", f"{worst:.1f}", f"{series:,}", f"{size / 1024:.0f}"))
                targets.append(Target(words=f"{name}: p50 {p50:.1f} ms ≤ {LONGEST_MS:.0f} ms", met=p50 <= LONGEST_MS))
                figures.append({"case": name, "p50_ms": p50, "max_ms": worst, "series": series, "bytes": size})
        shutil.rmtree(home)
    flat = {row[3] for row in rows[::2] if row[0].startswith("models 1,")}
    words = f"series of one model, however many versions it had: {', '.join(sorted(flat))}"
    targets.append(Target(words=words, met=len(flat) == 1))
    section = Section(
        name="scrape",
        title="A scrape" + (" (quick)" if given.quick else ""),
        columns=("what", "p50 ms", "max ms", "series", "KiB"),
        rows=rows,
        targets=targets,
        notes=["two workers, SQLite, loopback; each scrape reads the database anew"],
        libraries=("prometheus-client", "sqlalchemy"),
        figures={"cases": figures},
        seconds=time.perf_counter() - started,
    )
    return publish(section)


if __name__ == "__main__":
    sys.exit(main())
