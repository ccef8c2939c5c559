"""The loop behind the API with real processes: first version, stream, check by event time, run, gate, promotion."""

import gzip
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.control.controller import Controller, Place
from service.control.files import load_spec, read_source
from service.control.processes import Surroundings
from service.domain.run import RunState, Trigger
from service.domain.version import VersionState
from service.learning.frames import between, canonical
from service.learning.schema import infer
from service.storage import champions, checks, models, runs, versions
from service.storage.database import Database
from service.telemetry import Telemetry
from tests.serving_stand_in import StandIn

SPEC = """
from sklearn.linear_model import LogisticRegression
from service.spec import Drift, Gate, ModelSpec, Retrain, Training
spec = ModelSpec(
    name="shop", task="classification", target="y", timestamp="at", build=LogisticRegression, metric="accuracy",
    source="data/shop.parquet", drift=Drift(window="7d"), gate=Gate(floor=0.5),
    training=Training(initial="28d", windows=("7d", "all"), holdout="7d", min_rows=100),
    retrain=Retrain(min_labels=50, degradation=0.5, cooldown="7d", max_age=None),
)
"""
WEEK = timedelta(days=7)


def a_project(folder: Path) -> Path:
    """Write a model whose world turns round after six weeks."""
    (folder / "models").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "models" / "shop.py").write_text(SPEC)
    (folder / "models" / "torn.py").write_text("spec = ")
    rng = np.random.default_rng(0)
    at = pd.date_range("2026-01-01", periods=24 * 7 * 10, freq="1h", tz="UTC")
    x, noise = rng.normal(size=len(at)), rng.normal(size=len(at)) * 0.4
    turned = np.arange(len(at)) >= 24 * 7 * 6
    y = np.where((np.where(turned, -x, x) + noise) > 0, "up", "down")
    pd.DataFrame({"at": at, "x": x, "y": y}).to_parquet(folder / "data" / "shop.parquet")
    return folder


class Loop:
    """A controller in this process, with its real children, and the traffic of one model."""

    def __init__(self, folder: Path) -> None:
        self.project = a_project(folder / "project")
        self.home = folder / "home"
        self.home.mkdir()
        self.database = Database(f"sqlite:///{self.home / 'retrue.db'}")
        self.database.migrate()
        self.place = Place(
            database=f"sqlite:///{self.home / 'retrue.db'}",
            lake=self.home / "lake",
            artifacts=self.home / "artifacts",
            reports=self.home / "reports",
            models_folder=self.project / "models",
            tick_s=0.1,
            surroundings=Surroundings(nice=0),
        )
        self.controller = self.start()
        self.traffic = StandIn(self.home, self.database, "shop", label_delay=timedelta(hours=1))
        spec = load_spec(self.project / "models" / "shop.py", self.project)
        source = read_source(spec, self.project)
        self.rows = canonical(spec, infer(spec, source), source)

    def start(self) -> Controller:
        controller = Controller(self.place, self.database, Telemetry())
        controller.start()
        return controller

    def until(self, seen: Callable[[Any], Any], *, within_s: float = 40) -> Any:
        ends = time.monotonic() + within_s
        while time.monotonic() < ends:
            with self.database.read() as conn:
                if found := seen(conn):
                    return found
            time.sleep(0.02)
        with self.database.read() as conn:
            facts = [(run.state, run.code, (run.gate or {}).get("reason"), run.detail) for run in runs.list_of(conn)]
            broken = [(row.name, row.error) for row in models.list_all(conn)]
        pytest.fail(f"not within {within_s} s; runs: {facts}; models: {broken}")

    def champion(self, version: int) -> champions.Champion:
        found: champions.Champion = self.until(
            lambda conn: (now := champions.current(conn, "shop")) and now.version == version and now
        )
        self.until(lambda conn: not [run for run in runs.unfinished(conn) if run.active])
        return found

    def ended(self, run_id: str | None) -> runs.Run:
        assert run_id is not None
        found: runs.Run = self.until(lambda conn: not (now := runs.get(conn, run_id)).active and now)
        return found

    def stream_week(self, end: Any) -> checks.Check:
        rows = between(self.rows, after=end - WEEK, until=end)
        for first in range(0, len(rows), 24):
            self.traffic.send(rows.iloc[first : first + 24])
        self.traffic.commit()
        done: checks.Check = self.until(
            lambda conn: (last := checks.latest_done(conn, "shop")) and last.window_until == end and last
        )
        return done


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    loop = Loop(tmp_path_factory.mktemp("loop"))
    yield loop
    loop.controller.stop()
    loop.traffic.close()
    loop.database.close()


def test_the_loop_learns_serves_notices_retrains_and_promotes(loop: Loop) -> None:
    first = loop.champion(1)
    assert first.generation == 1
    with loop.database.read() as conn:
        start = versions.get(conn, "shop", 1).learned_until
        assert "torn.py" in (models.get(conn, "torn").error or "")

    calm = [loop.stream_week(start + (week + 1) * WEEK) for week in range(2)]
    assert [check.verdict for check in calm] == ["clean", "clean"]
    assert [check.degraded for check in calm] == [False, False]
    assert all((check.examination or {})["performance"]["labelled"] > 160 for check in calm)

    # Nothing that was known before the world turned passes on the week after it: the gate says no.
    first_week = loop.stream_week(start + 3 * WEEK)
    assert first_week.degraded is True
    refused = loop.ended(first_week.run_id)
    assert refused.version is not None
    assert refused.state is RunState.REJECTED
    with loop.database.read() as conn:
        assert champions.current(conn, "shop") == first
        assert versions.get(conn, "shop", refused.version).state is VersionState.REJECTED

    turned = loop.stream_week(start + 4 * WEEK)
    assert turned.version == 1
    second = loop.champion(3)
    assert second.generation == 2
    with loop.database.read() as conn:
        run = runs.get(conn, turned.run_id or "")
        version = versions.get(conn, "shop", 3)
        states = [event.after for event in runs.events(conn, run.id)]
    assert (run.state, run.trigger, run.check_id) == (RunState.SUCCEEDED, Trigger.PERFORMANCE, turned.id)
    assert states == [
        RunState.QUEUED,
        RunState.PREPARING,
        RunState.VALIDATING,
        RunState.TRAINING,
        RunState.PACKAGING,
        RunState.EVALUATING,
        RunState.PROMOTING,
        RunState.SUCCEEDED,
    ]
    assert run.until == turned.window_until
    assert run.until is not None
    assert run.snapshot is not None
    assert version.learned_until <= run.until
    assert version.lineage["data"]["digest"] == run.snapshot["digest"]
    assert version.lineage["parent"] == 1
    assert version.state is VersionState.CHAMPION

    after = loop.stream_week(start + 5 * WEEK)
    assert after.version == 3
    assert after.degraded is False
    assert loop.traffic.accuracy([3]) > 0.8


def test_a_manual_run_on_the_same_rows_is_a_recorded_no_op_and_force_is_not(loop: Loop) -> None:
    with loop.database.read() as conn:
        last = next(run for run in runs.list_of(conn, "shop") if run.state is RunState.SUCCEEDED)
        before = champions.current(conn, "shop")
    ends = []
    for force in (False, True):
        with loop.database.write() as conn:
            run = runs.create(
                conn,
                "shop",
                trigger=Trigger.MANUAL,
                actor="me",
                reason="again",
                force=force,
                until=last.until,
                at=loop.database.now(conn),
            )
        ends.append(loop.ended(run.id))
    assert (ends[0].state, ends[0].code) == (RunState.SKIPPED, "no_new_data")
    assert ends[1].state is not RunState.SKIPPED
    assert before is not None


def test_the_evidence_is_written_after_the_verdict(loop: Loop) -> None:
    check = loop.until(lambda conn: next((one for one in checks.list_of(conn, "shop") if one.report), None))
    assert "<html" in gzip.decompress((loop.home / "reports" / check.report).read_bytes()).decode().lower()


def test_a_controller_that_stops_gives_its_run_back_and_the_next_one_ends_it(loop: Loop) -> None:
    with loop.database.write() as conn:
        # A run that waited for labels may have been taken up again: then it is as good.
        run = runs.active(conn, "shop") or runs.create(
            conn,
            "shop",
            trigger=Trigger.MANUAL,
            actor="me",
            reason="restart",
            force=True,
            at=loop.database.now(conn),
        )
    loop.until(lambda conn: runs.get(conn, run.id).state is not RunState.QUEUED)
    loop.controller.stop()
    loop.controller = loop.start()
    ended = loop.ended(run.id)
    assert ended.state in {RunState.SUCCEEDED, RunState.REJECTED, RunState.AWAITING_LABELS}
    assert ended.attempt == run.attempt
