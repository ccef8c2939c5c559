"""A data summary is drawn after the verdict, not for every run of a replay, and its failure is a line in the log."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.control import summary
from service.control.leader import Term
from service.control.material import Material
from service.control.retrain import Retraining, Work
from service.control.tasks import TrainTask
from service.domain.run import RunState, Trigger
from service.domain.spec import Feature, Schema
from service.storage import models, runs
from service.storage.champions import Champion
from tests.unit.control.conftest import AT, MODEL
from tests.unit.control.fakes import FakeProcesses
from tests.unit.control.test_monitor import FakeLake

SCHEMA = Schema(
    model=MODEL, task="classification", timestamp="at", label="string",
    features=(Feature("<b>x</b>"), Feature("zone", kind="categorical", nullable=True), Feature("on", kind="boolean")),
)  # fmt: skip


def a_task(folder: Path, run: str = "run-1") -> TrainTask:
    return TrainTask(
        run_id=run, token=1, model=MODEL, database="", lake="", artifacts="", project="", file="", schema={}, spec={},
        spec_digest=None, until=None, quarantined=(), reports=str(folder),
    )  # fmt: skip


def some_material(n: int = 300) -> Material:
    random = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "event_time": pd.date_range("2026-01-01", periods=n, freq="1h", tz="UTC"),
            "<b>x</b>": random.normal(size=n),
            "zone": [None if place % 10 == 0 else ("a", "<script>")[place % 2] for place in range(n)],
            "on": random.random(n) < 0.5,
            "label": random.choice(["up", "down"], n),
        }
    )
    return Material(rows=rows, schema=SCHEMA, until=AT, snapshot={}, digest="")


def test_a_summary_that_cannot_be_drawn_is_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = some_material()
    assert summary.draw_summary(a_task(tmp_path), replace(broken, rows=broken.rows.drop(columns="on"))) is None
    assert "summary_broke" in caplog.text


def test_only_the_newest_summaries_of_a_model_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "NEWEST", 2)
    monkeypatch.setattr("service.learning.summary.summary", lambda *_, **__: "<p>rows</p>")
    for number in range(4):
        assert summary.draw_summary(a_task(tmp_path, f"run-{number}"), some_material(10))
    (tmp_path / MODEL / "check.html.gz").write_bytes(b"")
    names = sorted(path.name for path in (tmp_path / MODEL).iterdir())
    assert names == ["check.html.gz", "data-run-2.html.gz", "data-run-3.html.gz"]


def test_automatic_runs_draw_once_in_a_while_and_runs_by_hand_always(term: Term, champion: Champion) -> None:
    assert champion.generation == 1
    lake, processes = FakeLake(), FakeProcesses()
    lake.mark = AT + timedelta(days=9)
    work = Work(
        database="sqlite:///x", lake="lake", artifacts="artifacts", project=Path(), trainers=9,
        queue=timedelta(hours=1), reports="reports", report_every_s=3600.0,
    )  # fmt: skip
    retraining = Retraining(work, processes, lake, ended=lambda _: None)
    for trigger in (Trigger.AGE, Trigger.AGE, Trigger.MANUAL):
        _one_run(term, retraining, trigger)
    assert [task.reports for task in processes.tasks] == ["reports", "", "reports"]


def _one_run(term: Term, retraining: Any, trigger: Trigger) -> None:
    with term.write() as conn:
        at = term.database.now(conn)
        run = runs.create(conn, MODEL, trigger=trigger, actor="me", reason="now", at=at)
    with term.database.read() as conn:
        known = {row.name: row for row in models.list_all(conn)}
    retraining.look(term, known)
    with term.write() as conn:
        runs.transition(conn, run.id, RunState.SKIPPED, actor="t", reason="t", at=at, token=term.token)
