"""Swaps under constant open-loop load: nothing fails, every answer is that of the version it names, memory stays.

The real command with two workers, SQLite and the real controller; swaps go through the public verbs, back to back, in
blocks with pauses between, so that latency near a swap and away from one are measured side by side in one run.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402  the thread caps come before numpy

from bench.launched import Launched, Project, scratch, wait_for  # noqa: E402
from bench.openloop import OpenLoop  # noqa: E402
from bench.report import publish  # noqa: E402
from bench.swaps_table import FAR_S, Found, section  # noqa: E402
from bench.swaps_versions import expected, payloads, register  # noqa: E402
from bench.swaps_watch import Watch, resident  # noqa: E402
from service.client import Json, Refused, Retrue  # noqa: E402
from service.domain.spec import Schema  # noqa: E402
from service.storage import champions, versions  # noqa: E402
from service.storage.database import Database  # noqa: E402

MODEL = "electricity"
SWAPS, QUICK_SWAPS = 1000, 100
VERSIONS, QUICK_VERSIONS = 24, 8
"""The first time that a host meets a version it tries it in a process of its own, which takes some seconds."""
BLOCK = 50
"""Swaps back to back before a pause."""
PAUSE_S = 5.0
ROLLBACK_EVERY = 10
PATIENCE_S = 30.0
UNAVAILABLE, DONE_ALREADY = 503, {409, 412}
RATE = 250.0
KNOWN_ROWS = 400
CALM_S = 12.0
"""Before the first swap."""
SETTINGS = {
    "RETRUE_TICK_S": "0.05",
    "RETRUE_LOG_LEVEL": "warning",
    "OMP_NUM_THREADS": "1",
}
MODEL_TAIL = """

import dataclasses

from service.spec import Drift, Probation, Retention, Retrain

spec = dataclasses.replace(
    spec,
    training=Training(initial="56d", windows=("all",)),
    gate=Gate(resamples=100),
    drift=Drift(),
    retrain=Retrain(mode="off"),
    probation=Probation(duration=None),
    retention=Retention(artifacts=1000),
)
"""


def main() -> int:
    """Run the swaps, check every answer, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SWAPS} swaps instead of {SWAPS}")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the rows in the requests (%(default)s)")
    given = parser.parse_args()
    # The service is in a session of its own: whoever ends the bench must not leave it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    count = QUICK_SWAPS if given.quick else SWAPS
    began = time.perf_counter()
    text = (ROOT / "models" / f"{MODEL}.py").read_text() + MODEL_TAIL
    folder = scratch("swaps")
    project = Project(folder, models={f"{MODEL}.py": text}, data=(f"{MODEL}.parquet",), settings=SETTINGS)
    service = Launched(project, "serve", "--workers", "2", log="service.log")
    try:
        many = QUICK_VERSIONS if given.quick else VERSIONS
        found = play(project, count=count, many=many, rate=given.rate, seed=given.seed)
        code = service.stop()
        found.lake = recorded(project.home)
    except (TimeoutError, RuntimeError, Refused):
        print("\n".join((folder / "service.log").read_text().splitlines()[-20:]), file=sys.stderr)
        raise
    finally:
        service.stop()
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.perf_counter() - began
    return publish(section(found, count=count, rate=given.rate, quick=given.quick, code=code, seconds=seconds))


def play(project: Project, *, count: int, many: int, rate: float, seed: int) -> Found:
    """Start the load, swap so often, and return what was seen."""
    database = Database(project.database)
    with Retrue(project.url) as retrue:
        wait_for(lambda: retrue.is_ready() and retrue.model(MODEL).get("champion"), deadline_s=90, what="version 1")
        numbers = register(project.folder, project.home, database, MODEL, count=many)
        with database.read() as conn:
            schema = Schema.from_json(versions.get(conn, MODEL, 1).manifest["schema"])
        rows, requests = payloads(project.folder, schema, target_rows=KNOWN_ROWS, seed=seed)
        told = expected(project.home, database, MODEL, rows)
        bodies = [msgspec.json.encode({"instances": [rows[row] for row in places]}) for places in requests]
        print(f"{len(numbers)} versions are there; the load begins", flush=True)
        load = OpenLoop(
            project.port, f"/v1/models/{MODEL}/predict", rate=rate, payloads=bodies, out=project.folder / "sent"
        )  # fmt: skip
        watch = Watch(database, MODEL)
        time.sleep(CALM_S)
        began = time.monotonic()
        memory = drive(retrue, database, numbers, count=count)
        swapping_s = time.monotonic() - began
        time.sleep(FAR_S + 1.0)
        sent = load.stop()
        with database.read() as conn:
            done = [swap for swap in reversed(champions.history(conn, MODEL)) if swap.actor != "controller"]
        settled_s, settled_from = watch.settled(done)
    database.close()
    return Found(
        sent=sent, swaps=done, settled_s=settled_s, memory=memory, told=told, requests=requests,
        swapping_s=swapping_s, settled_from=settled_from,
    )  # fmt: skip


def drive(retrue: Retrue, database: Database, numbers: list[int], *, count: int) -> dict[int, list[tuple[int, int]]]:
    """Swap `count` times through the public verbs; return the workers' memory at each block's end."""
    memory: dict[int, list[tuple[int, int]]] = {}
    turn = 0
    for done in range(1, count + 1):
        champion = _patiently(retrue.model, MODEL)["champion"]
        if done % ROLLBACK_EVERY == 0:
            _patiently(retrue.rollback, MODEL, reason="bench", to=champion["previous_version"])
            _patiently(retrue.clear_switch, MODEL, "hold", reason="bench")
        else:
            turn += 1 + (numbers[(turn + 1) % len(numbers)] == champion["version"])
            version, seen = numbers[turn % len(numbers)], champion["generation"]
            _patiently(retrue.promote, MODEL, version, generation=seen, reason="bench")
            wait_for(partial(_is_past, database, seen), deadline_s=60, what=f"swap {done}", pause_s=0.02)
        if done % BLOCK == 0:
            memory[done] = resident(database)
            print(f"{done:>5} swaps", flush=True)
            time.sleep(PAUSE_S)
    return memory


def _patiently(act: Callable[..., Json], *words: Any, **options: Any) -> Json:
    """Ask again while the service has no time for an operator; what was done although it said so is done."""
    ends = time.monotonic() + PATIENCE_S
    is_again = False
    while True:
        try:
            return act(*words, **options)
        except Refused as refused:
            if is_again and refused.status in DONE_ALREADY:
                return {}
            if refused.status != UNAVAILABLE or time.monotonic() > ends:
                raise
        is_again = True
        time.sleep(0.5)


def _is_past(database: Database, generation: int) -> bool:
    with database.read() as conn:
        champion = champions.current(conn, MODEL)
    return champion is not None and champion.generation > generation


def recorded(home: Path) -> dict[str, list[tuple[int, int, Any]]]:
    """Return what the lake holds: version, generation and output by id."""
    from deltalake import DeltaTable

    table = DeltaTable(str(home / "lake" / "predictions" / MODEL)).to_pyarrow_table(
        columns=["id", "version", "generation", "output"]
    )
    found: dict[str, list[tuple[int, int, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["id"], []).append((row["version"], row["generation"], row["output"]))
    return found


if __name__ == "__main__":
    sys.exit(main())
