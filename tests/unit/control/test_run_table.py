"""The table of run states, row by row: in this state, on this event, to that state with that code.

Trainers are played by the test; tests/integration/control/test_run_failures.py has them fail in earnest.
"""

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from service.control import requests
from service.control.leader import Term
from service.control.processes import Exit
from service.control.record import Record
from service.control.retrain import TRAINER_SILENT_S
from service.control.setbacks import setback_of
from service.domain.errors import ArtifactInvalid, LakeUnavailable, NotAllowedNow, SpecInvalid, TrainingFailed
from service.domain.retry import RETRIES, Setback
from service.domain.run import NEXT, TERMINAL, WORKING, RunState
from service.domain.version import VersionState
from service.storage import champions, checks, models, runs, tables, versions
from service.storage.champions import Champion
from service.storage.runs import Run
from tests.unit.control.conftest import AT, MODEL, a_version
from tests.unit.control.test_retrain import Bench

S = RunState
PATH = (S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING)
DAY = timedelta(days=1)


class Table(Bench):
    """Brings a run to a state and lets something happen to it."""

    def at(self, state: RunState, **overrides: Any) -> Run:
        """Return a run that came to `state` on the usual way, with a version where it has one by then."""
        if state in {S.QUEUED, S.CANCELLING}:
            run = self.run(**overrides)
            if state is S.QUEUED:
                return run
            self.look()
            return self.move(run, S.CANCELLING)
        run = self.run(**overrides)
        self.look()
        way = PATH[1 : PATH.index(state) + 1] if state in PATH else self.way_to(state)
        for step in way:
            run = self.move(run, step)
            if step is S.EVALUATING:
                run = self.with_version(run)
        return self.get(run)

    def move(self, run: Run, *states: RunState, **columns: Any) -> Run:
        with self.term.write() as conn:
            for state in states:
                at = self.term.database.now(conn)
                run = runs.transition(
                    conn, run.id, state, actor="test", reason="test", at=at, token=self.term.token, **columns
                )
        return run

    def with_version(self, run: Run) -> Run:
        with self.term.write() as conn:
            number = versions.next_number(conn, MODEL)
            versions.insert(conn, a_version(number, parent=1, run_id=run.id, state=VersionState.CANDIDATE))
            conn.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(version=number))
        return self.get(run)

    def way_to(self, state: RunState) -> tuple[RunState, ...]:
        if state is S.AWAITING_LABELS:
            return (S.VALIDATING, S.AWAITING_LABELS)
        return (*PATH[1:], state)

    def check(self, *, until: Any, new_labels: int = 0) -> None:
        """Let a check be done."""
        with self.term.write() as conn:
            check = checks.create(conn, MODEL, actor="schedule", at=AT, window_until=until)
            checks.finish(conn, check.id, at=AT, situation={"new_labels": new_labels})

    def job_ends(self, exit_code: int) -> None:
        self.processes.job("train").exit_code = exit_code
        self.look()

    def met(self, run: Run, error: Exception) -> Run:
        """Let the trainer meet `error` where the run stands now."""
        state = self.get(run).state
        setback = setback_of(error, state)
        record = Record(self.term.database, run.id, token=self.term.token, first_pause=timedelta(seconds=5))
        if setback is None:
            code = str(getattr(error, "facts", {}).get("reason", "spec_invalid"))
            return record.step(S.FAILED, str(error), code=code)
        return record.write(lambda conn: record.set_back(conn, setback, str(error)), is_done=lambda _: False)

    def again(self, run: Run) -> None:
        """Let the run be taken up again: its pause is over, its trainer has left."""
        self.processes._jobs.clear()
        with self.term.write() as conn:
            conn.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(not_before=AT))
        self.look()

    def until_it_ends(self, run: Run, happens: Callable[[], Any], *, way: tuple[RunState, ...]) -> Run:
        """Let the same happen at each try; return the run as it ended."""
        happens()
        for _ in range(9):
            if self.get(run).state in TERMINAL:
                return self.get(run)
            self.again(run)
            self.move(run, *way)
            happens()
        pytest.fail("it is tried for ever")


@pytest.fixture
def table(term: Term, champion: Champion) -> Table:
    assert champion.generation == 1
    return Table(term)


@dataclass(frozen=True)
class Row:
    """One row of the table, or one half of it."""

    state: RunState
    event: str
    after: RunState
    code: str | None
    happens: Callable[[Table, Run], Any]
    tries: int = 0
    """How often it was tried again before."""

    def __str__(self) -> str:
        code = f"({self.code})" if self.code else ""
        return f"{self.state.upper()}: {self.event} -> {self.after.upper()}{code}"


def look(table: Table, _run: Run) -> None:
    table.look()


def no_trainer(table: Table, _run: Run) -> None:
    table.processes._jobs.clear()
    table.look()


def ends(code: int) -> Callable[[Table, Run], None]:
    return lambda table, _run: table.job_ends(code)


def meets(error: Exception) -> Callable[[Table, Run], Any]:
    return lambda table, run: table.met(run, error)


def steps(*states: RunState, **columns: Any) -> Callable[[Table, Run], Any]:
    return lambda table, run: table.move(run, *states, **columns)


def person(verb: Any, **extra: Any) -> Callable[[Table, Run], Any]:
    def happens(table: Table, run: Run) -> None:
        with table.term.database.write() as conn:
            verb(conn, run.id, actor="ada", reason="because", **extra)

    return happens


def waited_too_long(table: Table, run: Run) -> None:
    with table.term.write() as conn:
        conn.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(requested_at=AT, heartbeat_at=AT))
    table.look()


def joined_by_a_newer_request(table: Table, run: Run) -> None:
    with table.term.database.write() as conn:
        requests.ask(conn, run.model, actor="ada", reason="all of it", force=True, coalesce=True)


def model_file_broken(table: Table, _run: Run) -> None:
    with table.term.write() as conn:
        models.mark_broken(conn, MODEL, "models/shop.py: field drift", "models/shop.py", at=AT)
    table.look()


def lake_away(table: Table, _run: Run) -> None:
    def away(_model: str) -> Any:
        msg = "the lake does not answer"
        raise LakeUnavailable(msg)

    table.lake.watermark = away  # type: ignore[method-assign, assignment]
    table.look()


def deadline(table: Table, _run: Run) -> None:
    table.processes.job("train").started -= 16 * 60
    table.look()
    assert table.processes.job("train").was_killed


def silence(table: Table, run: Run) -> None:
    """Stop the trainer: it lives, and nothing is heard of it."""
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += 1.9
        return now

    table.retraining._silence._monotonic = monotonic
    for _ in range(int(TRAINER_SILENT_S / 1.9) + 2):
        table.look()
    assert table.processes.job("train").was_killed
    assert table.get(run).state in WORKING  # not before it is surely dead
    table.job_ends(-9)


def new_leader(table: Table, _run: Run) -> None:
    table.processes._jobs.clear()
    table.retraining.recover(table.term)


def stopped_controller(table: Table, _run: Run) -> None:
    table.retraining.release(table.term)


def labels_come(table: Table, run: Run) -> None:
    assert run.until is not None
    table.job_ends(0)
    table.check(until=run.until + DAY, new_labels=500)
    table.look()


def labels_do_not_come(table: Table, run: Run) -> None:
    assert run.until is not None
    table.check(until=run.until + 57 * DAY, new_labels=3)
    table.look()


def newer_run_begins(table: Table, _run: Run) -> None:
    table.job_ends(0)
    newer = table.run()
    table.look()
    assert table.get(newer).state is S.PREPARING


def nobody_decides(table: Table, run: Run) -> None:
    with table.term.write() as conn:
        conn.execute(update(tables.run_events).where(tables.run_events.c.run_id == run.id).values(at=AT))
    table.look()


def champion_changes(table: Table, _run: Run) -> None:
    with table.term.write() as conn:
        versions.insert(conn, a_version(9))
        champions.swap(
            conn, MODEL, version=9, expected_generation=1, actor="ada", reason="by hand", kind="promote", run_id=None,
            event_time=AT, at=AT,
        )  # fmt: skip
    table.processes._jobs.clear()
    table.look()


def much_happens(table: Table, run: Run) -> None:
    assert run.until is not None
    table.check(until=run.until + 15 * DAY)
    table.processes._jobs.clear()
    table.look()


def newer_run_passes(table: Table, run: Run) -> None:
    record = Record(table.term.database, "the newer one", token=table.term.token, first_pause=timedelta())
    with table.term.write() as conn:
        record.supersede(conn, run)


NO_LAKE, NO_SPACE = LakeUnavailable("no answer"), OSError(28, "No space left on device")
ALTERED = ArtifactInvalid("other bytes")
NO_SOURCE = SpecInvalid("the source is gone", field="source")

ROWS = [
    Row(S.QUEUED, "a trainer is free", S.PREPARING, None, look),
    Row(S.QUEUED, "waits longer than the queue's limit", S.EXPIRED, "expired", waited_too_long),
    Row(S.QUEUED, "a newer request that does more", S.SUPERSEDED, "superseded", joined_by_a_newer_request),
    Row(S.QUEUED, "the model file is broken", S.FAILED, "spec_invalid", model_file_broken),
    Row(S.QUEUED, "cancel", S.CANCELLED, "cancelled_by_person", person(requests.cancel)),
    Row(S.QUEUED, "the lake can't say where the data stand", S.QUEUED, "data_unavailable", lake_away),
    Row(S.PREPARING, "rows are there", S.VALIDATING, None, steps(S.VALIDATING)),
    Row(S.PREPARING, "the digest was seen", S.SKIPPED, "no_new_data", steps(S.SKIPPED, code="no_new_data")),
    Row(S.PREPARING, "the lake is down", S.QUEUED, "data_unavailable", meets(NO_LAKE)),
    Row(S.PREPARING, "the lake is down for the fourth time", S.FAILED, "data_unavailable", meets(NO_LAKE), tries=3),
    Row(S.PREPARING, "the source is gone", S.QUEUED, "data_unavailable", meets(NO_SOURCE)),
    Row(S.PREPARING, "the source is gone for the fourth time", S.FAILED, "data_unavailable", meets(NO_SOURCE), tries=3),
    Row(S.PREPARING, "the database was down", S.QUEUED, "data_unavailable", ends(Exit.UNAVAILABLE)),
    Row(
        S.PREPARING, "the database was down for the fourth time", S.FAILED, "data_unavailable",
        ends(Exit.UNAVAILABLE), tries=3,
    ),
    Row(S.VALIDATING, "sound data", S.TRAINING, None, steps(S.TRAINING)),
    Row(S.VALIDATING, "broken data", S.BLOCKED_DATA, "blocked_data", steps(S.BLOCKED_DATA, code="blocked_data")),
    Row(
        S.VALIDATING, "too few labels", S.AWAITING_LABELS, "too_few_labels",
        steps(S.AWAITING_LABELS, code="too_few_labels"),
    ),
    Row(S.TRAINING, "a candidate is fitted", S.PACKAGING, None, steps(S.PACKAGING)),
    Row(S.TRAINING, "the model's code raises", S.FAILED, "train_error", meets(RuntimeError("x"))),
    Row(
        S.TRAINING, "no candidate could be fitted", S.FAILED, "train_error",
        meets(TrainingFailed("none", reason="train_error")),
    ),
    Row(S.TRAINING, "one class only", S.FAILED, "one_class", meets(TrainingFailed("one", reason="one_class"))),
    Row(S.TRAINING, "the model's code exits", S.FAILED, "train_error", ends(1)),
    Row(S.TRAINING, "the model's code exits as if all were well", S.FAILED, "train_error", ends(0)),
    Row(S.TRAINING, "out of memory", S.QUEUED, "resource", ends(Exit.OUT_OF_MEMORY)),
    Row(S.TRAINING, "out of memory again", S.FAILED, "resource", ends(Exit.OUT_OF_MEMORY), tries=1),
    Row(S.TRAINING, "killed by a signal", S.QUEUED, "resource", ends(-9)),
    Row(S.TRAINING, "killed by a signal again", S.FAILED, "resource", ends(-9), tries=1),
    Row(S.TRAINING, "a process of the estimator's is killed", S.QUEUED, "resource", meets(BrokenProcessPool("killed"))),
    Row(S.TRAINING, "the deadline is over", S.TIMED_OUT, "deadline", deadline),
    Row(S.TRAINING, "no sign of life", S.QUEUED, "worker_lost", silence),
    Row(S.TRAINING, "no sign of life again", S.FAILED, "worker_lost", silence, tries=1),
    Row(S.TRAINING, "the trainer is lost", S.QUEUED, "worker_lost", no_trainer),
    Row(S.TRAINING, "the trainer is lost again", S.FAILED, "worker_lost", no_trainer, tries=1),
    Row(S.TRAINING, "the fork server died", S.QUEUED, "worker_lost", ends(Exit.NO_FORK_SERVER)),
    Row(S.PACKAGING, "written and read back", S.EVALUATING, None, steps(S.EVALUATING)),
    Row(S.PACKAGING, "the disk is full", S.QUEUED, "artifact", meets(NO_SPACE)),
    Row(S.PACKAGING, "the disk is full for the third time", S.FAILED, "artifact", meets(NO_SPACE), tries=2),
    Row(S.PACKAGING, "the lake can't keep the reference", S.QUEUED, "artifact", meets(NO_LAKE)),
    Row(S.PACKAGING, "other bytes are read back", S.FAILED, "corrupt", meets(ALTERED)),
    Row(S.PACKAGING, "the estimator can't be packed", S.FAILED, "train_error", meets(TypeError("no pickle"))),
    Row(S.EVALUATING, "the gate says no", S.REJECTED, "gate_fail", steps(S.REJECTED, code="gate_fail")),
    Row(
        S.EVALUATING, "the gate can't tell", S.AWAITING_LABELS, "gate_inconclusive",
        steps(S.AWAITING_LABELS, code="gate_inconclusive"),
    ),
    Row(S.EVALUATING, "passed, a person decides", S.AWAITING_APPROVAL, "held", steps(S.AWAITING_APPROVAL, code="held")),
    Row(S.EVALUATING, "passed", S.PROMOTING, "gate_pass", steps(S.PROMOTING, code="gate_pass")),
    Row(S.EVALUATING, "the gate breaks", S.QUEUED, "eval_error", meets(RuntimeError("x"))),
    Row(S.EVALUATING, "the gate breaks again", S.FAILED, "eval_error", meets(RuntimeError("x")), tries=1),
    Row(S.VALIDATING, "the champion's artifact is broken", S.QUEUED, "eval_error", meets(ALTERED)),
    Row(S.AWAITING_LABELS, "labels come", S.PREPARING, None, labels_come),
    Row(S.AWAITING_LABELS, "labels do not come", S.REJECTED, "insufficient_evidence", labels_do_not_come),
    Row(S.AWAITING_LABELS, "a newer run begins", S.SUPERSEDED, "superseded", newer_run_begins),
    Row(S.AWAITING_LABELS, "cancel", S.CANCELLED, "cancelled_by_person", person(requests.cancel)),
    Row(S.AWAITING_APPROVAL, "approve", S.PROMOTING, "approved", person(requests.approve, seen=None)),
    Row(S.AWAITING_APPROVAL, "reject", S.REJECTED, "rejected_by_person", person(requests.reject, seen=None)),
    Row(S.AWAITING_APPROVAL, "nobody decides", S.EXPIRED, "approval_expired", nobody_decides),
    Row(S.AWAITING_APPROVAL, "the champion changes", S.QUEUED, "stale", champion_changes),
    Row(S.AWAITING_APPROVAL, "more happens than it was judged on", S.QUEUED, "stale", much_happens),
    Row(S.AWAITING_APPROVAL, "a newer run passes", S.SUPERSEDED, "superseded", newer_run_passes),
    Row(S.AWAITING_APPROVAL, "cancel", S.CANCELLED, "cancelled_by_person", person(requests.cancel)),
    Row(S.PROMOTING, "the champion changed", S.QUEUED, "champion_changed", champion_changes),
    Row(S.PROMOTING, "cancel before the commit", S.CANCELLED, "cancelled_by_person", person(requests.cancel)),
    *(Row(state, "cancel", S.CANCELLING, None, person(requests.cancel)) for state in PATH),
    Row(S.CANCELLING, "the trainer leaves", S.CANCELLED, "cancelled", ends(-15)),
    Row(S.CANCELLING, "the leader is gone", S.CANCELLED, "cancelled", new_leader),
    *(Row(state, "the leader is gone", S.QUEUED, "worker_lost", new_leader) for state in PATH),
    *(Row(state, "the leader is gone again", S.FAILED, "worker_lost", new_leader, tries=1) for state in PATH),
    *(Row(state, "the controller is stopped", S.QUEUED, None, stopped_controller) for state in PATH),
    Row(S.CANCELLING, "the controller is stopped", S.CANCELLED, "cancelled", stopped_controller),
]  # fmt: skip

SWAPPED = {(S.PROMOTING, after) for after in (S.PROBATION, S.SUCCEEDED, S.FAILED)} | {
    (S.PROBATION, after) for after in NEXT[S.PROBATION]
}
"""Ways whose rows stand with the swap and with probation."""


def drive(table: Table, row: Row) -> Run:
    run = table.at(row.state)
    with table.term.write() as conn:
        if row.state in {S.AWAITING_APPROVAL, S.PROMOTING}:
            versions.set_state(conn, MODEL, run.version or 0, VersionState.APPROVED)
            conn.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(code="approval"))
    for _ in range(row.tries):
        row.happens(table, table.get(run))
        table.again(run)
        if row.state in PATH:
            for step in PATH[1 : PATH.index(row.state) + 1]:
                table.move(run, step)
            if row.state is S.EVALUATING:
                table.with_version(run)
    row.happens(table, table.get(run))
    return table.get(run)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_table(table: Table, row: Row) -> None:
    found = drive(table, row)
    assert (found.state, found.code) == (row.after, row.code)
    with table.term.database.read() as conn:
        told = runs.events(conn, found.id)
        version = None if found.version is None else versions.get(conn, MODEL, found.version)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert [event.before for event in told[1:]] == [event.after for event in told[:-1]]
    assert told[-1].after is found.state
    assert all(event.actor and event.reason for event in told)
    assert (found.finished_at is not None) == (found.state in TERMINAL)
    if version is not None and found.code == "eval_error" and found.state is S.FAILED:
        assert version.state is VersionState.CANDIDATE  # nobody judged it
    elif version is not None and found.state in {S.QUEUED, S.FAILED, S.CANCELLED, S.EXPIRED, S.TIMED_OUT}:
        assert version.state is VersionState.REJECTED


def test_every_way_that_the_states_allow_is_a_row_of_the_table() -> None:
    assert len({str(row) for row in ROWS}) == len(ROWS)
    taken = {(row.state, row.after) for row in ROWS}
    taken |= {(S.AWAITING_APPROVAL, S.EVALUATING), (S.PROMOTING, S.EVALUATING)}  # on their way back to the queue
    everywhere = {(state, S.FAILED) for state in PATH} | {(state, S.TIMED_OUT) for state in PATH}
    assert {(before, after) for before in NEXT for after in NEXT[before]} - taken - everywhere - SWAPPED == set()


@pytest.mark.parametrize("state", PATH)
def test_the_deadline_holds_in_every_state_of_work(table: Table, state: RunState) -> None:
    run = table.at(state)
    deadline(table, run)
    assert table.get(run).state is S.TIMED_OUT


@pytest.mark.parametrize("setback", [one for one in Setback if RETRIES[one].pauses])
def test_what_may_come_back_is_tried_again_after_pauses_that_grow_by_the_databases_clock(
    table: Table, setback: Setback
) -> None:
    state, error = {
        Setback.DATA_UNAVAILABLE: (S.PREPARING, NO_LAKE),
        Setback.ARTIFACT: (S.PACKAGING, NO_SPACE),
    }[setback]
    run, pauses = table.at(state), []
    way = PATH[1 : PATH.index(state) + 1]

    def happens() -> None:
        found = table.met(run, error)
        if found.not_before is not None and found.state is S.QUEUED:
            assert found.heartbeat_at is not None
            pauses.append((found.not_before - found.heartbeat_at).total_seconds())
            table.processes._jobs.clear()  # a trainer is free
            table.look()
            assert table.get(run).state is S.QUEUED  # not before its time

    found = table.until_it_ends(run, happens, way=way)
    assert (found.state, found.code) == (S.FAILED, setback.value)
    assert pauses == [5.0, 30.0, 180.0][: RETRIES[setback].times]
    assert found.attempt == RETRIES[setback].times + 1


def test_each_kind_of_setback_is_counted_by_itself(table: Table) -> None:
    run = table.at(S.PREPARING)
    for _ in range(2):
        table.met(run, NO_LAKE)
        table.again(run)
    table.job_ends(-9)
    assert table.get(run).state is S.QUEUED
    table.again(run)
    found = table.get(run)
    assert (found.state, found.attempt, found.code, found.not_before) == (S.PREPARING, 4, None, None)


def test_a_run_that_was_tried_again_has_not_waited_while_it_worked(table: Table) -> None:
    run = table.at(S.PREPARING)
    with table.term.write() as conn:
        conn.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(requested_at=AT))
    table.job_ends(-9)
    table.look()
    assert table.get(run).state is S.PREPARING


@pytest.mark.parametrize("state", [S.CANCELLING, S.CANCELLED])
def test_a_cancel_that_comes_twice_changes_nothing(table: Table, state: RunState) -> None:
    run = table.at(S.PREPARING if state is S.CANCELLING else S.QUEUED)
    for _ in range(2):
        person(requests.cancel)(table, run)
    assert table.get(run).state is state
    with table.term.database.read() as conn:
        assert sum(event.after is state for event in runs.events(conn, run.id)) == 1


@pytest.mark.parametrize("state", sorted(TERMINAL - {S.CANCELLED}))
def test_a_run_that_has_ended_is_not_cancelled(table: Table, state: RunState) -> None:
    run = table.run()
    with table.term.write() as conn:
        conn.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(state=state.value, active=False))
    with pytest.raises(NotAllowedNow, match="rollback" if state in {S.SUCCEEDED, S.ROLLED_BACK} else "any more"):
        person(requests.cancel)(table, run)


def test_a_run_that_was_cancelled_while_it_promoted_asks_for_no_swap(table: Table) -> None:
    run = table.promoting()
    person(requests.cancel)(table, run)
    from service.control.promotion import propose

    propose(table.term, run)
    with table.term.database.read() as conn:
        assert champions.waiting(conn) == []


def test_a_trainer_that_lingers_after_its_run_has_moved_on_is_sent_away_and_then_forgotten(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.control.retrain.LINGER_S", 0.0)
    run = table.at(S.VALIDATING)
    table.move(run, S.AWAITING_LABELS)
    table.look()
    table.look()
    assert table.processes.job("train").was_asked
    table.job_ends(-15)
    assert table.processes.find("train", run.id) is None


def test_a_silence_is_no_silence_while_nobody_looked(table: Table) -> None:
    run, now = table.at(S.TRAINING), 0.0
    table.retraining._silence._monotonic = lambda: now
    for _ in range(10):
        now += 3600.0  # the database was away for an hour at a time: nobody could write, nobody looked
        table.look()
    assert table.get(run).state is S.TRAINING
    assert not table.processes.job("train").was_killed


def test_a_run_whose_evaluation_is_old_is_judged_again_on_the_newest_rows_but_not_while_frozen(table: Table) -> None:
    run = table.at(S.AWAITING_APPROVAL, until=AT + 7 * DAY)
    with table.term.write() as conn:
        models.set_switch(conn, MODEL, "freeze", value=True, actor="ada", reason="r", at=AT)
    table.check(until=AT + 30 * DAY)
    table.look()
    assert table.get(run).state is S.AWAITING_APPROVAL
    with table.term.write() as conn:
        models.clear_switch(conn, MODEL, "freeze")
    table.look()
    found = table.get(run)
    assert (found.state, found.until, found.attempt) == (S.QUEUED, AT + 30 * DAY, 2)


def test_the_events_keep_the_code_of_each_setback(table: Table) -> None:
    run = table.at(S.PREPARING)
    table.met(run, NO_LAKE)
    table.again(run)
    table.job_ends(-9)
    c = tables.run_events.c
    with table.term.database.read() as conn:
        codes = list(conn.scalars(select(c.code).where(c.run_id == run.id, c.after == "queued").order_by(c.seq)))
    assert codes == [None, "data_unavailable", "resource"]
