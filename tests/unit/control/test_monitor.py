"""Checks: made when the watermark says so, judged in one transaction with what follows from them."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from service.api.metrics import samples
from service.api.reads import described
from service.control.leader import Term
from service.control.monitor import Monitor
from service.control.tasks import CheckTask, Failure, Report, Seen
from service.control.verdict import Judged
from service.domain.check import CheckState, DriftTest, Examination, Performance, Verdict
from service.domain.run import RunState, Trigger
from service.storage import audit, checks, models, runs
from service.storage.champions import Champion
from service.storage.lake import Lake
from tests.unit.control.conftest import AT, MODEL
from tests.unit.control.fakes import FakeProcesses


class FakeLake(Lake):
    """Knows a watermark only."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self.mark: datetime | None = None

    def watermark(self, model: str) -> datetime | None:  # noqa: ARG002  of one model
        return self.mark


class Bench:
    """A monitor with everything around it played by the test."""

    def __init__(self, term: Term) -> None:
        self.term = term
        self.lake = FakeLake()
        self.processes = FakeProcesses()
        self.judged: list[Judged] = []
        self.drawn: list[str] = []
        self.monitor = self.fresh()

    def fresh(self) -> Monitor:
        return Monitor(
            self.processes,
            self.lake,
            reports=Path("reports"),
            settle_s=0.0,
            judged=self.judged.append,
            drawn=lambda _term, _check, path: self.drawn.append(path),
        )

    def look(self, *, day: float | None = None) -> None:
        if day is not None:
            self.lake.mark = AT + timedelta(days=day)
        with self.term.database.read() as conn:
            known = {row.name: row for row in models.list_all(conn)}
        self.monitor.look(self.term, known)

    def says(self, message: object, *, ends: bool = True) -> None:
        job = self.processes.job("check")
        job.messages.append(message)
        if ends:
            job.exit_code = 0
        self.look()

    def check(self) -> checks.Check:
        with self.term.database.read() as conn:
            found = checks.newest(conn, MODEL)
        assert found is not None
        return found

    def runs(self) -> list[runs.Run]:
        with self.term.database.read() as conn:
            return runs.list_of(conn, MODEL)

    def switches(self) -> set[str]:
        with self.term.database.read() as conn:
            return set(models.switches(conn, MODEL))


@pytest.fixture
def bench(term: Term, champion: Champion) -> Bench:
    assert champion.generation == 1
    return Bench(term)


TEST = DriftTest(
    state="calibrated", statistic=4.5, threshold=3.0, blocks=60, level=0.02, expected_alarms=0.75, culprits=("a",),
    reason="as told",
)  # fmt: skip


def seen(verdict: Verdict = Verdict.CLEAN, *, loss: float | None = 0.2, new_labels: int = 1000) -> Seen:
    performance = Performance(
        metric="accuracy", value=None, loss=loss, reference_loss=0.2, rows=100, labelled=90, delay_p50_s=1.0
    )
    examination = Examination(verdict=verdict, reason="as told", rows=100, performance=performance, drift=TEST)
    return Seen(examination=examination, window_from=AT, new_labels=new_labels, lake_version=3, seconds=0.1)


def test_a_check_is_made_when_the_watermark_reaches_the_grid_that_starts_at_the_first_champion(bench: Bench) -> None:
    bench.look(day=6.9)
    assert bench.processes.tasks == []
    bench.look(day=7.1)
    task = bench.processes.tasks[0]
    assert isinstance(task, CheckTask)
    assert (task.window_from, task.window_until) == (AT, AT + timedelta(days=7))
    assert bench.check().state is CheckState.RUNNING


def test_a_check_is_made_once_however_often_one_looks(bench: Bench) -> None:
    for _ in range(5):
        bench.look(day=8)
    bench.says(seen())
    for _ in range(5):
        bench.look()
    assert len(bench.processes.tasks) == 1


def test_of_overdue_checks_the_newest_is_made(bench: Bench) -> None:
    bench.look(day=22)
    assert bench.processes.tasks[0].window_until == AT + timedelta(days=21)


def test_the_grid_survives_a_restart(bench: Bench) -> None:
    bench.look(day=8)
    bench.says(seen())
    bench.monitor = bench.fresh()
    bench.look(day=9)
    assert len(bench.processes.tasks) == 1
    bench.look(day=14)
    assert bench.processes.tasks[1].window_until == AT + timedelta(days=14)


def test_a_check_that_its_leader_left_is_made_by_the_next_on_the_same_window(bench: Bench) -> None:
    bench.look(day=8)
    first = bench.check()
    bench.processes = FakeProcesses()
    bench.monitor = bench.fresh()
    bench.look(day=9)
    assert [task.check_id for task in bench.processes.tasks] == [first.id]
    assert bench.processes.tasks[0].window_until == first.window_until


def test_degraded_quality_starts_a_run_in_the_transaction_that_ends_the_check(bench: Bench) -> None:
    bench.look(day=8)
    bench.says(seen(loss=0.5))
    check, (run,) = bench.check(), bench.runs()
    assert check.state is CheckState.DONE
    assert (check.degraded, check.run_id) == (True, run.id)
    assert (run.state, run.trigger, run.check_id) == (RunState.QUEUED, Trigger.PERFORMANCE, check.id)
    assert run.until == check.window_until
    assert bench.judged[0].decision.code == "performance"
    assert check.situation is not None
    assert check.situation["loss"] == 0.5


def test_a_clean_window_starts_none(bench: Bench) -> None:
    bench.look(day=8)
    bench.says(seen())
    assert bench.runs() == []
    assert bench.check().degraded is False


def test_a_second_drifted_window_in_a_row_confirms_an_alarm_and_it_stands_beside_what_was_expected(
    bench: Bench,
) -> None:
    for day, verdict in ((7, Verdict.DRIFTED), (14, Verdict.DRIFTED), (21, Verdict.DRIFTED), (28, Verdict.CLEAN)):
        bench.look(day=day)
        bench.says(seen(verdict))
    assert [judged.alarmed for judged in bench.judged] == [False, True, False, False]
    with bench.term.database.read() as conn:
        told = {name: value for name, labels, value in samples(conn) if labels == (MODEL,)}
        shown = described(conn, models.get(conn, MODEL)).drift_test
    assert (told["drift_realised_alarms_90d"], told["drift_expected_alarms_90d"]) == (1.0, 0.75)
    assert (told["drift_family_statistic"], told["drift_family_threshold"], told["drift_calibrated"]) == (4.5, 3.0, 1.0)
    assert shown is not None
    assert (shown.realised_alarms, shown.expected_alarms, shown.culprits) == (1, 0.75, ["a"])


def test_an_operators_run_stands_in_the_way_and_is_named(bench: Bench) -> None:
    bench.look(day=8)
    with bench.term.write() as conn:
        mine = runs.create(conn, MODEL, trigger=Trigger.MANUAL, actor="me", reason="now", at=AT)
    bench.says(seen(loss=0.5))
    decision = bench.check().decision
    assert decision is not None
    assert decision["code"] == "run_in_progress"
    assert mine.id in decision["reason"]
    assert len(bench.runs()) == 1


def test_broken_data_call_for_no_run_and_quarantine_the_model_until_a_clean_window(bench: Bench) -> None:
    bench.look(day=7)
    bench.says(seen(Verdict.QUARANTINED, loss=0.9))
    assert bench.runs() == []
    assert bench.switches() == {"quarantine"}
    bench.look(day=14)
    bench.says(seen())
    assert bench.switches() == set()
    with bench.term.database.read() as conn:
        actions = [row.action for row in audit.list_of(conn)]
    assert actions[:2] == ["quarantine_cleared", "quarantine_set"]


def test_a_window_that_is_too_thin_to_tell_does_not_end_a_quarantine(bench: Bench) -> None:
    bench.look(day=7)
    bench.says(seen(Verdict.QUARANTINED))
    bench.look(day=14)
    bench.says(seen(Verdict.INSUFFICIENT, loss=0.9))
    assert bench.switches() == {"quarantine"}
    assert bench.runs() == []


def test_a_check_without_a_verdict_is_a_recorded_failure_and_the_grid_goes_on(bench: Bench) -> None:
    bench.look(day=7)
    bench.says(Failure(code="check-failed", detail="column x is missing"))
    check = bench.check()
    assert (check.state, check.error) == (CheckState.FAILED, "check-failed: column x is missing")
    bench.look(day=8)
    assert len(bench.processes.tasks) == 1
    bench.look(day=14)
    assert len(bench.processes.tasks) == 2


def test_a_check_whose_process_died_is_made_once_more_and_then_failed(bench: Bench) -> None:
    bench.look(day=7)
    for _ in range(2):
        bench.processes.job("check").exit_code = -9
        bench.look()
    assert len(bench.processes.tasks) == 2
    assert bench.check().state is CheckState.FAILED


def test_a_check_that_an_operator_asks_for_looks_at_the_newest_window(bench: Bench) -> None:
    bench.look(day=3)
    with bench.term.write() as conn:
        checks.create(conn, MODEL, actor="me", at=AT)
    bench.look()
    assert bench.processes.tasks[0].window_until == AT + timedelta(days=3)
    bench.says(seen())
    bench.look(day=7)
    assert bench.processes.tasks[1].window_until == AT + timedelta(days=7)  # the grid did not move


def test_the_report_comes_after_the_verdict_and_does_not_hold_up_the_next_check(bench: Bench) -> None:
    bench.look(day=7)
    bench.says(seen(), ends=False)
    assert bench.check().state is CheckState.DONE
    bench.look(day=14)
    assert len(bench.processes.tasks) == 2
    drawing = bench.processes.of_kind("check")[0]
    drawing.messages.append(Report(path="shop/1.html"))
    bench.look()
    assert bench.drawn == ["shop/1.html"]


def test_a_verdict_that_cannot_be_recorded_fails_its_check_and_the_loop_goes_on(bench: Bench) -> None:
    bench.look(day=7)
    bench.says(seen(new_labels=object()))  # type: ignore[arg-type]  # no JSON value: what is tested
    assert bench.check().state is CheckState.FAILED
    bench.look(day=14)
    assert len(bench.processes.tasks) == 2
