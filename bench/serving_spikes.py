"""What disturbs answers: recording, training, checks, swaps, collections; and what a worker costs to start.

Needs wrk. Only the service itself, in its usual form; what is switched off is switched off in this bench alone.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.launched import Launched, Project, scratch, wait_for  # noqa: E402  the thread caps come before numpy
from bench.openloop import OpenLoop  # noqa: E402
from bench.report import publish  # noqa: E402
from bench.serving_load import load, wrk_is_here  # noqa: E402
from bench.serving_models import project, sampled, train  # noqa: E402
from bench.serving_servers import OURS, Running, objects, retrue  # noqa: E402
from bench.serving_spikes_table import Pause, Spikes, Stretch, section  # noqa: E402
from bench.serving_start import start  # noqa: E402
from bench.swaps_versions import register  # noqa: E402
from service.client import FINISHED, WAITING, Retrue  # noqa: E402
from service.storage import champions  # noqa: E402
from service.storage.database import Database  # noqa: E402

SITE = ROOT / "bench" / "serving_site"
ROUNDS, SECONDS, STARTS = 3, 4, 3
RATE = 200.0
WARM_S, IDLE_S, BUSY_S = 3.0, 15.0, 20.0
SWAPS, SWAP_EVERY_S = 8, 4.0
PATIENCE_S = 60.0
ENDED = FINISHED | WAITING


def main() -> int:
    """Measure and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=("starts", "recording", "disturbed"), help="parts to measure")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of the recording's share (%(default)s)")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each of its passes (%(default)s)")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second of the open loop (%(default)s)")
    parser.add_argument("--draft", action="store_true", help="write the table below .cache, not into docs/bench.md")
    given = parser.parse_args()
    if not wrk_is_here():
        print("wrk is not installed: `apt-get install wrk` brings it", file=sys.stderr)
        return 2
    # The service is in a session of its own: whoever ends the bench must not leave it behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parts = given.only or ("starts", "recording", "disturbed")
    began = time.perf_counter()
    folder = scratch("spikes")
    found = Spikes()
    try:
        homes = {name: project(folder / name, compiles=name == "compiled") for name in ("compiled", "plain")}
        train(list(homes.values()))
        print(f"trained after {time.perf_counter() - began:.0f} s", flush=True)
        if "starts" in parts:
            for turn in range(STARTS):
                for name, made in homes.items():
                    one = start(made, log=f"start-{turn}.log")
                    found.starts.setdefault(name, []).append(one)
                    print(f"  start, {name}: {one.worker_s:.2f} s, {one.resident_mib:.0f} MiB", flush=True)
        if "recording" in parts:
            record(homes, folder, found, rounds=given.rounds, seconds=given.seconds)
        if "disturbed" in parts:
            disturb(homes["compiled"], folder, found, rate=given.rate)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    told = section(found, rate=given.rate, seconds=time.perf_counter() - began)
    return publish(told, root=ROOT / ".cache" / "draft" if given.draft else ROOT)


def record(homes: dict[str, Project], folder: Path, found: Spikes, *, rounds: int, seconds: int) -> None:
    """Measure throughput with recording on and off, in turns."""
    rows = sampled()
    bodies = folder / "bodies"
    bodies.write_bytes(b"\n".join(objects(row[None, :]) for row in rows.alone) + b"\n")
    off = {"PYTHONPATH": str(SITE), "SERVING_SITE": "forget"}
    for turn in range(rounds):
        for name, made in homes.items():
            for word, extra in (("on", {}), ("off", off)):
                server = retrue(OURS[0], made, extra=extra)
                running = Running(server, ["linear"], folder=folder, probe=rows.alone[:1])
                try:
                    path = server.path("linear")
                    load(running.url, path, bodies, connections=16, seconds=1)
                    seen = load(running.url, path, bodies, connections=16, seconds=seconds)
                    server.settle()
                finally:
                    running.stop()
                found.recorded.setdefault(f"{name} {word}", []).append(seen)
                print(f"  {turn + 1} recording {word}, {name}: {seen.rate:,.0f} req/s", flush=True)


def disturb(made: Project, folder: Path, found: Spikes, *, rate: float) -> None:
    """Keep a steady load on one worker while nothing, then training and checks, then swaps go on beside it."""
    pauses = folder / "pauses"
    made.environ |= {
        "PYTHONPATH": str(SITE), "SERVING_SITE": "collections", "SERVING_SITE_FILE": str(pauses),
        "RETRUE_TICK_S": "0.05",
    }  # fmt: skip
    service = Launched(made, "serve", "--workers", "1", log="service.log")
    database = Database(made.database)
    try:
        with Retrue(made.url) as asking:
            wait_for(lambda: asking.is_ready() and asking.model("linear")["champion"], deadline_s=90, what="ready")
            versions = register(made.folder, made.home, database, "linear", count=2)
            bodies = [objects(row[None, :]) for row in sampled().alone]
            path = "/v1/models/linear/predict"
            load_ = OpenLoop(made.port, path, rate=rate, payloads=bodies, out=folder / "sent")
            time.sleep(WARM_S)
            began = time.time()
            _stretch(found, "idle", partial(time.sleep, IDLE_S))
            _stretch(found, "training and checking", partial(_busy, asking, found))
            _stretch(found, "swapping", partial(_swap, asking, database, versions))
            found.sent = load_.stop()
        with database.read() as conn:
            done = [swap for swap in champions.history(conn, "linear") if swap.created_at.timestamp() > began]
        found.commits = [swap.ended_at.timestamp() for swap in done if swap.ended_at is not None]
        found.pauses = [one for one in _pauses(pauses) if one.at > began]
    finally:
        service.stop()
        database.close()


def _stretch(found: Spikes, name: str, act: partial[None]) -> None:
    begin = time.time()
    act()
    found.stretches.append(Stretch(name, begin, time.time()))
    print(f"  {name}: {time.time() - begin:.0f} s", flush=True)


def _busy(asking: Retrue, found: Spikes) -> None:
    """Keep a training and a check under way."""
    ends = time.monotonic() + BUSY_S
    while time.monotonic() < ends:
        run = asking.retrain("forest", reason="bench", force=True)
        while (state := asking.run(run["id"])["state"]) not in ENDED:
            checks = asking.checks("linear", limit=1)
            if not checks or not checks[0]["active"]:
                asking.start_check("linear")
                found.checks += 1
            time.sleep(0.2)
        found.runs.append(state)


def _swap(asking: Retrue, database: Database, versions: Sequence[int]) -> None:
    for turn in range(SWAPS):
        time.sleep(SWAP_EVERY_S)
        champion = asking.model("linear")["champion"]
        other = versions[(turn + 1) % len(versions)]
        asking.promote("linear", other, generation=champion["generation"], reason="bench")
        wait_for(partial(_is_past, database, champion["generation"]), deadline_s=PATIENCE_S, what=f"swap {turn + 1}")
    time.sleep(SWAP_EVERY_S)


def _is_past(database: Database, generation: int) -> bool:
    with database.read() as conn:
        champion = champions.current(conn, "linear")
    return champion is not None and champion.generation > generation


def _pauses(file: Path) -> list[Pause]:
    if not file.exists():
        msg = "no worker was watched for its collections: bench/serving_site was not imported"
        raise RuntimeError(msg)
    return [
        Pause(at=float(at), generation=int(generation), took_s=float(took), worked_s=float(worked))
        for at, generation, took, worked in map(str.split, file.read_text().splitlines())
    ]


if __name__ == "__main__":
    sys.exit(main())
