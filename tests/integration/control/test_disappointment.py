"""A challenger that deserves to pass the gate, and then meets a world that has turned back; real processes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.domain.probation import ProbationState
from service.domain.run import RunState
from service.domain.version import VersionState
from service.storage import audit, champions, checks, probations, runs, versions
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
HOURS = 24 * 7


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """Yield a model whose world stands on its head in weeks 7 and 8, and on its feet before and after."""
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    (project / "data").mkdir()
    (project / "models" / "shop.py").write_text(SPEC)
    rng = np.random.default_rng(0)
    at = pd.date_range("2026-01-01", periods=HOURS * 11, freq="1h", tz="UTC")
    x, noise = rng.normal(size=len(at)), rng.normal(size=len(at)) * 0.4
    week = np.arange(len(at)) // HOURS
    turned = (week == 6) | (week == 7)
    y = np.where((np.where(turned, -x, x) + noise) > 0, "up", "down")
    pd.DataFrame({"at": at, "x": x, "y": y}).to_parquet(project / "data" / "shop.parquet")
    loop = Loop(tmp_path, "shop")
    yield loop
    loop.close()


def test_a_champion_that_passed_the_gate_and_disappoints_on_real_labels_is_taken_back_by_itself(loop: Loop) -> None:
    loop.champion(1)
    with loop.database.read() as conn:
        start = versions.get(conn, "shop", 1).learned_until
    for number in (1, 2, 3):
        check = loop.stream_week(start + number * WEEK)
        if check.run_id is not None:
            assert loop.ended(check.run_id).state is RunState.REJECTED
    promoting = loop.stream_week(start + 4 * WEEK)
    loop.champion(3)
    with loop.database.read() as conn:
        run = runs.get(conn, promoting.run_id or "")
    assert run.state is RunState.PROBATION

    after = loop.stream_week(start + 5 * WEEK)  # the world is as it was before
    assert after.version == 3
    ended = loop.until(lambda conn: (now := runs.get(conn, run.id)).state is RunState.ROLLED_BACK and now)
    with loop.database.read() as conn:
        champion = champions.current(conn, "shop")
        probation = probations.of_run(conn, run.id)
        state = versions.get(conn, "shop", 3).state
        actions = [row.action for row in audit.list_of(conn, "shop")]
        active = runs.active(conn, "shop")
    assert champion is not None
    assert (champion.version, champion.generation) == (1, 3)
    assert state is VersionState.QUARANTINED
    assert active is None  # the failure called for a run in the same check; the rollback answered it
    assert probation is not None
    assert probation.state is ProbationState.ROLLED_BACK
    assert probation.evidence is not None
    seen = probation.evidence["comparison"]
    assert seen["loss"] > 0.7 > 0.3 > seen["previous_loss"]
    assert seen["labelled"] >= 100
    assert ended.code == "performance"
    assert {"probation_rolled_back", "champion_rollback"} <= set(actions)

    later = loop.stream_week(start + 6 * WEEK)
    assert later.version == 1
    assert later.degraded is False
    last_week = [answer == truth for _, _, answer, truth in loop.traffic.answers[-HOURS:]]
    assert sum(last_week) / len(last_week) > 0.8
    with loop.database.read() as conn:
        situation = (checks.get(conn, later.id).situation or {})["rolled_back_at"]
    assert situation is not None
