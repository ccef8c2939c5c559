"""The loop behind the API with real processes: first version, stream, check by event time, run, gate, promotion."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.domain.probation import ProbationState
from service.domain.run import RunState, Trigger
from service.domain.version import VersionState
from service.storage import champions, checks, models, probations, runs, versions
from tests.looped import WEEK, Loop

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


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("loop")
    a_project(folder / "project")
    loop = Loop(folder, "shop")
    yield loop
    loop.close()


def test_the_loop_learns_serves_notices_retrains_and_promotes(loop: Loop) -> None:
    first = loop.champion(1)
    assert first.generation == 1
    with loop.database.read() as conn:
        start = versions.get(conn, "shop", 1).learned_until
        assert len((versions.get(conn, "shop", 1).calibration or {})["statistics"]) == 4
        assert "torn.py" in (models.get(conn, "torn").error or "")

    calm = [loop.stream_week(start + (week + 1) * WEEK) for week in range(2)]
    assert [check.verdict for check in calm] == ["clean", "clean"]
    assert [check.degraded for check in calm] == [False, False]
    tested = (calm[0].examination or {})["drift"]
    assert (tested["state"], tested["blocks"], tested["expected_alarms"]) == ("uncalibrated", 4, None)
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
    assert (run.state, run.trigger, run.check_id) == (RunState.PROBATION, Trigger.PERFORMANCE, turned.id)
    assert states == [
        RunState.QUEUED,
        RunState.PREPARING,
        RunState.VALIDATING,
        RunState.TRAINING,
        RunState.PACKAGING,
        RunState.EVALUATING,
        RunState.PROMOTING,
        RunState.PROBATION,
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
    kept = loop.until(lambda conn: (now := runs.get(conn, run.id)).state is RunState.SUCCEEDED and now)
    assert kept.code == "clean"
    with loop.database.read() as conn:
        probation = probations.of_run(conn, run.id)
    assert probation is not None
    assert probation.state is ProbationState.KEPT
    assert probation.evidence is not None
    assert probation.evidence["comparison"]["previous_loss"] > 0.7  # version 1 has the world upside down
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
