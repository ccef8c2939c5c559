"""Kills everything that can be killed, wherever it is, under load; then compares what was told with what was written.

Starts the service as a user would: API workers under their supervisor, and two controllers. While clients predict and
send labels, an operator retrains, promotes and rolls back, and processes die by SIGKILL: at random, at every named
state of a run, and at the steps of a swap and of a commit. The database, the disk, the lake and artifacts fail for a
while too. Needs Linux.
"""

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402  the thread caps come before numpy

from bench import chaos_evidence  # noqa: E402
from bench.chaos_faults import Faults  # noqa: E402
from bench.chaos_ledger import Evidence, Violation, check  # noqa: E402
from bench.chaos_load import Load, Stream  # noqa: E402
from bench.chaos_operator import Operator  # noqa: E402
from bench.chaos_plan import Director  # noqa: E402
from bench.chaos_refusals import judge  # noqa: E402
from bench.chaos_stage import Stage  # noqa: E402
from bench.chaos_table import Story, section  # noqa: E402
from bench.launched import Project, scratch, wait_for  # noqa: E402
from bench.report import publish  # noqa: E402
from service.client import Retrue  # noqa: E402
from service.domain.errors import DatabaseUnavailable  # noqa: E402
from service.replay import rows_of  # noqa: E402
from service.storage.database import Database  # noqa: E402

MODELS = {"electricity": "electricity", "bikes": "bikes", "patient": "bikes"}
"""Model → the shipped one that it is made from."""
RATES = {"electricity": (50.0, 3), "bikes": (20.0, 2), "patient": (8.0, 1)}
"""Rows a second, and clients."""
SECONDS, QUICK_SECONDS = 435.0, 75.0
SETTLE_S = 75.0
SETTINGS = {"RETRUE_MAINTAIN_S": "12", "RETRUE_REPORT_EVERY_S": "120", "OMP_NUM_THREADS": "1"}
TAIL = """

import dataclasses

from service.spec import Drift, Gate, Probation, Retention, Retrain, Training

spec = dataclasses.replace(
    spec,
    name="{name}",
    training=Training(initial="56d", windows=("56d",), holdout="7d", min_rows=100, deadline="3m"),
    drift=Drift(window="7d"),
    retrain=Retrain(cooldown="1d", retry="1d", max_age="3d", min_labels=50),
    gate=Gate(resamples=100, margin=0.5, min_gain=0.0, {gate}),
    probation=Probation(duration="7d", min_rows=50),
    retention=Retention(artifacts=4),
)
"""
FIRST_GATE = "min_rows=50"
GATES = {"electricity": FIRST_GATE, "bikes": "min_rows=50, approval=True", "patient": "min_rows=9_999"}
"""Once each has a version: one promotes by itself, one asks a person, one never has labels enough."""


def main() -> int:
    """Play the story, check the ledger, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a good minute of it instead of seven and a half")
    parser.add_argument("--postgres", action="store_true", help="state in a PostgreSQL server, which is stopped too")
    parser.add_argument("--seed", type=int, default=0, help="of the order of kills and the operator's whims")
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder with its logs")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.perf_counter()
    folder = scratch("chaos")
    with ExitStack() as stack:
        if given.keep:
            print(f"scratch folder: {folder}")
        else:
            stack.callback(_remove, folder)
        story = play(folder, stack, given=given)
    for violation in (*story.violations, *story.judged.violations):
        print(f"VIOLATION  {violation.law}: {violation.count}", *violation.examples, sep="\n    ")
    seconds = time.perf_counter() - began
    return publish(section(story, quick=given.quick, postgres=given.postgres, seed=given.seed, seconds=seconds))


def play(folder: Path, stack: ExitStack, *, given: argparse.Namespace) -> Story:
    """Set the stage, run the chaos, let everything settle, gather the evidence."""
    set_at = time.time()
    texts = _texts(dict.fromkeys(MODELS, FIRST_GATE))
    settings, cut = dict(SETTINGS), None
    if given.postgres:
        from bench.chaos_postgres import server

        running = stack.enter_context(server())
        settings["RETRUE_DATABASE_URL"], cut = running.url, running.cut
    data = tuple(f"{base}.parquet" for base in set(MODELS.values()))
    project = Project(folder / "project", models=texts, data=data, settings=settings)
    database = Database(project.database)
    stack.callback(database.close)
    stage = Stage(project, folder / "chaos", database)
    faults = Faults(home=project.home, stage=stage, cut=cut)
    stack.callback(faults.unmount)
    faults.mount_small_disk()
    stack.callback(stage.end)
    stage.start()
    with Retrue(project.url) as retrue:
        wait_for(
            lambda: retrue.is_ready() and all(model.get("champion") for model in retrue.models()[:99] or [{}]),
            deadline_s=120, what="a champion of each model",
        )  # fmt: skip
        learned = {name: retrue.learned_until(name) for name in MODELS}
    for name, text in _texts(GATES).items():
        (project.folder / "models" / name).write_text(text)
    load = Load(project.port, [_stream(name, learned[name]) for name in MODELS], seed=given.seed)
    operator = Operator(project.url, list(MODELS), every_s=3.0 if given.quick else 4.0, seed=given.seed)
    story = Story(load=load, stage=stage, faults=faults, operator=operator)
    began = time.time()
    story.spent["starting"] = began - set_at
    load.start()
    operator.start()
    _chaos(story, given)
    story.spent["chaos"] = time.time() - began
    settle(story, project, database)
    story.spent["settling"] = time.time() - began - story.spent["chaos"]
    story.judged = judge(load.refusals, kills=stage.kills, spans=stage.spans, faults=faults, began=began)
    return story


def _chaos(story: Story, given: argparse.Namespace) -> None:
    """Kill and break things for the time given."""
    seconds = QUICK_SECONDS if given.quick else SECONDS
    faults = story.faults
    # Fractions of the time, and for how long.
    plan: list[tuple[float, Any, float]] = (
        [(0.12, faults.cut_database, 6), (0.38, faults.hide_lake, 5), (0.55, faults.fill_disk, 5),
         (0.7, faults.pause_leader, 16)]
        if given.quick
        else [(0.08, faults.cut_database, 12), (0.2, faults.hide_lake, 10), (0.3, faults.fill_disk, 8),
              (0.4, faults.pause_leader, 18), (0.55, faults.cut_database, 6), (0.65, faults.hide_lake, 20),
              (0.75, faults.fill_disk, 12), (0.85, faults.pause_leader, 18)]
    )  # fmt: skip
    began = time.monotonic()

    def break_things() -> None:
        for share, fault, length in plan:
            time.sleep(max(began + share * seconds - time.monotonic(), 0))
            fault(length)

    breaker = threading.Thread(target=break_things, name="faults", daemon=True)
    breaker.start()
    director = Director(
        story.stage, story.operator, given.seed,
        spared=lambda: faults.near("database", time.time(), time.time(), margin_s=0.0),
    )  # fmt: skip
    director.play(seconds)
    breaker.join(60)
    for step in story.stage.armed():
        story.stage.disarm(step)


def settle(story: Story, project: Project, database: Database) -> None:
    """Heal everything, wait until nothing moves any more, end the service, and check the ledger."""
    story.operator.stop()
    story.load.stop_asking()
    time.sleep(2.0)
    story.load.stop()
    ends = time.monotonic() + SETTLE_S
    for what, left in (
        ("runs and swaps", lambda: chaos_evidence.busy(database)),
        ("workers", lambda: chaos_evidence.astray(database)),
        ("the spool", lambda: chaos_evidence.spooled(project.home)),
    ):
        still = _wait_for_rest(left, ends)
        if still:
            story.late.append(f"{what}: {', '.join(still[:4])}")
    astray = chaos_evidence.astray(database)
    story.codes = story.stage.leave()
    evidence = Evidence(
        answered=story.load.answered,
        labelled=story.load.labelled,
        asked_runs=story.operator.promised,
        astray=astray,
        agreed=story.stage.agreed,
    )
    story.evidence = chaos_evidence.gather(evidence, database, project.home, list(MODELS))
    story.violations = check(story.evidence)
    damaged = [path.name for path in (project.home / "spool" / "damaged").glob("*")]
    for law, words in (
        ("the spool was left with rows", chaos_evidence.spooled(project.home)),
        ("a segment was set aside as damaged", damaged),
        ("an operator saw an internal error", story.operator.broken),
    ):
        if words:
            story.violations.append(Violation(law=law, count=len(words), examples=tuple(words[:5])))


def _wait_for_rest(left: Callable[[], list[str]], ends: float) -> list[str]:
    """Return what still moves when the time is over; looked at once in any case."""
    while True:
        try:
            still = left()
        except DatabaseUnavailable:
            still = ["the database does not answer"]
        if not still or time.monotonic() > ends:
            return still
        time.sleep(0.2)


def _texts(gates: dict[str, str]) -> dict[str, str]:
    return {
        f"{name}.py": (ROOT / "models" / f"{base}.py").read_text() + TAIL.format(name=name, gate=gates[name])
        for name, base in MODELS.items()
    }


def _stream(name: str, learned: datetime | None) -> Stream:
    if learned is None:
        msg = f"{name} has no version"
        raise RuntimeError(msg)
    base = MODELS[name]
    frame = pd.read_parquet(ROOT / "data" / f"{base}.parquet")
    frame = frame[frame["timestamp"] > learned]
    target = {"electricity": "class", "bikes": "cnt"}[base]
    features = [column for column in frame.columns if column not in {"timestamp", target}]
    rows = rows_of(frame, timestamp="timestamp", target=target, features=features)
    rate, clients = RATES[name]
    span = rows.times[-1] - rows.times[0] + timedelta(hours=1)
    return Stream(model=name, rows=rows, rate=rate, clients=clients, span=span)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
