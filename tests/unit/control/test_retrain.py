"""Runs: one step at a time, every way out recorded, nothing by a leader that lost its lease."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.control.leader import Leader, Term
from service.control.promotion import advance, propose
from service.control.retrain import Retraining, Work
from service.control.tasks import TrainTask
from service.domain.errors import LeaseLost
from service.domain.run import RunState, Trigger
from service.domain.version import VersionState
from service.storage import champions, checks, models, replicas, runs, tables, versions
from service.storage.artifacts import ArtifactStore
from service.storage.champions import Champion, Swap
from service.storage.database import Database
from service.storage.runs import Run
from tests.unit.control.conftest import AT, MODEL, a_version
from tests.unit.control.fakes import FakeProcesses
from tests.unit.control.test_monitor import FakeLake

S = RunState


class Bench:
    """Retraining with its trainers played by the test."""

    def __init__(self, term: Term) -> None:
        self.term = term
        self.processes = FakeProcesses()
        self.ended: list[Run] = []
        self.lake = FakeLake()
        self.lake.mark = AT + timedelta(days=9)
        work = Work(
            database="sqlite:///x",
            lake="lake",
            artifacts="artifacts",
            project=Path(),
            trainers=1,
            queue=timedelta(hours=1),
        )
        self.retraining = Retraining(work, self.processes, self.lake, ended=self.ended.append)

    def run(self, **overrides: Any) -> Run:
        with self.term.write() as conn:
            at = self.term.database.now(conn)
            values = {"trigger": Trigger.MANUAL, "actor": "me", "reason": "now", "at": at, **overrides}
            return runs.create(conn, MODEL, **values)

    def look(self) -> None:
        with self.term.database.read() as conn:
            known = {row.name: row for row in models.list_all(conn)}
        self.retraining.look(self.term, known)

    def get(self, run: Run) -> Run:
        with self.term.database.read() as conn:
            return runs.get(conn, run.id)

    def move(self, run: Run, *states: RunState, **columns: Any) -> Run:
        with self.term.write() as conn:
            for state in states:
                run = runs.transition(
                    conn, run.id, state, actor="test", reason="test", at=AT, token=self.term.token, **columns
                )
        return run

    def promoting(self, version: int = 2, *, parent: int | None = 1) -> Run:
        run = self.run()
        with self.term.write() as conn:
            versions.insert(conn, a_version(version, parent=parent, run_id=run.id))
        self.move(run, S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING)
        return self.move(run, S.PROMOTING, version=version, code="gate_pass")


@pytest.fixture
def bench(term: Term, champion: Champion) -> Bench:
    assert champion.generation == 1
    return Bench(term)


def test_a_queued_run_begins_at_the_watermark_when_a_trainer_is_free(bench: Bench) -> None:
    run = bench.run()
    bench.look()
    task = bench.processes.tasks[0]
    assert isinstance(task, TrainTask)
    assert (task.run_id, task.token, task.until) == (run.id, bench.term.token, bench.lake.mark)
    assert bench.get(run).state is S.PREPARING


def test_a_run_of_a_check_looks_no_further_than_its_window(bench: Bench) -> None:
    bench.run(until=AT + timedelta(days=7))
    bench.look()
    assert bench.processes.tasks[0].until == AT + timedelta(days=7)


def test_a_frozen_model_trains_nothing_until_it_thaws(bench: Bench) -> None:
    bench.run()
    with bench.term.write() as conn:
        models.set_switch(conn, MODEL, "freeze", value=True, actor="me", reason="audit", at=AT)
    bench.look()
    assert bench.processes.tasks == []
    with bench.term.write() as conn:
        models.clear_switch(conn, MODEL, "freeze")
    bench.look()
    assert len(bench.processes.tasks) == 1


def test_a_run_that_waited_too_long_expires(bench: Bench) -> None:
    run = bench.run(at=AT)
    bench.look()
    assert bench.get(run).state is S.EXPIRED


def test_a_run_of_a_model_whose_file_is_broken_fails_with_its_reason(bench: Bench) -> None:
    run = bench.run()
    with bench.term.write() as conn:
        models.mark_broken(conn, MODEL, "models/shop.py: field drift", "models/shop.py", at=AT)
    bench.look()
    found = bench.get(run)
    assert (found.state, found.code) == (S.FAILED, "spec_invalid")
    assert "field drift" in (found.detail or "")


@pytest.mark.parametrize("state", [S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING])
def test_a_killed_trainer_is_tried_once_more_from_any_state_and_then_fails(bench: Bench, state: RunState) -> None:
    run = bench.run()
    path = [S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING]
    for attempt in (1, 2):
        bench.look()
        bench.move(run, *path[: [S.PREPARING, *path].index(state)])
        bench.processes.job("train").exit_code = -9
        bench.look()
        assert bench.get(run).attempt == min(attempt + 1, 2)
    found = bench.get(run)
    assert (found.state, found.code) == (S.FAILED, "resource")
    bench.look()
    assert [one.id for one in bench.ended] == [run.id]


def test_a_trainer_over_its_deadline_is_killed_and_the_run_timed_out(bench: Bench) -> None:
    run = bench.run()
    bench.look()
    job = bench.processes.job("train")
    job.started -= 16 * 60
    bench.look()
    assert job.was_killed
    assert bench.get(run).state is S.TIMED_OUT


def test_a_cancelled_run_ends_when_its_trainer_has_left(bench: Bench) -> None:
    run = bench.run()
    bench.look()
    bench.move(run, S.CANCELLING)
    bench.look()
    job = bench.processes.job("train")
    assert job.was_asked
    assert bench.get(run).state is S.CANCELLING
    job.exit_code = -15
    bench.look()
    assert bench.get(run).state is S.CANCELLED


def test_runs_left_by_a_dead_leader_are_tried_again_once_and_its_token_writes_nothing(
    bench: Bench, database: Database
) -> None:
    run = bench.run()
    bench.look()
    with database.write() as conn:
        conn.execute(update(tables.leases).values(expires_at=AT))
    term = Leader(database, owner="another").step()
    assert term is not None
    bench.retraining.recover(term)
    found = bench.get(run)
    assert (found.state, found.attempt) == (S.QUEUED, 2)
    with pytest.raises(LeaseLost):
        bench.move(run, S.PREPARING)


def test_a_stopped_controller_gives_its_runs_back_as_if_never_tried(bench: Bench) -> None:
    run = bench.run()
    bench.look()
    bench.retraining.release(bench.term)
    found = bench.get(run)
    assert (found.state, found.attempt) == (S.QUEUED, 1)


def test_a_service_that_never_had_replicas_promotes_without_them(bench: Bench) -> None:
    run = bench.promoting()
    bench.look()
    with bench.term.database.read() as conn:
        (swap,) = champions.waiting(conn)
    assert advance(bench.term, swap) == "committed"
    with bench.term.database.read() as conn:
        champion = champions.current(conn, MODEL)
        old = versions.get(conn, MODEL, 1)
    assert champion is not None
    assert (champion.version, champion.generation) == (2, 2)
    assert old.state is VersionState.RETIRED
    assert bench.get(run).state is S.PROBATION


def test_the_champion_moves_only_when_every_live_replica_is_ready(bench: Bench) -> None:
    bench.promoting()
    with bench.term.write() as conn:
        for name in ("a", "b"):
            replicas.hello(conn, name, host="h", pid=1, worker=0)
    bench.look()
    with bench.term.database.read() as conn:
        (swap,) = champions.waiting(conn)
    assert advance(bench.term, swap) is None
    with bench.term.write() as conn:
        replicas.answer_swap(conn, "a", swap.id, MODEL, ready=True)
    assert advance(bench.term, swap) is None
    with bench.term.write() as conn:
        replicas.answer_swap(conn, "b", swap.id, MODEL, ready=True)
    assert advance(bench.term, swap) == "committed"


def test_a_dead_replica_holds_nobody_up(bench: Bench) -> None:
    bench.promoting()
    with bench.term.write() as conn:
        replicas.hello(conn, "dead", host="h", pid=1, worker=0)
        conn.execute(update(tables.replicas).values(heartbeat_at=AT))
    bench.look()
    with bench.term.database.read() as conn:
        (swap,) = champions.waiting(conn)
    assert advance(bench.term, swap) == "committed"


def the_waiting(bench: Bench) -> Swap:
    with bench.term.database.read() as conn:
        (swap,) = champions.waiting(conn)
    return swap


def test_where_replicas_have_served_a_swap_waits_for_one_that_is_ready(bench: Bench) -> None:
    # All workers were being restarted: nobody lived, so nobody was waited for, and nobody could load what was promoted.
    with bench.term.write() as conn:
        conn.execute(update(tables.swaps).values(settled_at=AT))
    bench.promoting()
    bench.look()
    assert advance(bench.term, the_waiting(bench)) is None
    with bench.term.write() as conn:
        replicas.hello(conn, "a", host="h", pid=1, worker=0)
        conn.execute(update(tables.swaps).values(created_at=AT))  # it has waited for longer than anybody's patience
    assert advance(bench.term, the_waiting(bench)) is None
    with bench.term.write() as conn:
        replicas.answer_swap(conn, "a", the_waiting(bench).id, MODEL, ready=True)
    assert advance(bench.term, the_waiting(bench)) == "committed"


def test_a_refusal_outlives_the_replica_that_gave_it(bench: Bench) -> None:
    run = bench.promoting()
    with bench.term.write() as conn:
        replicas.hello(conn, "a", host="h", pid=1, worker=0)
    bench.look()
    with bench.term.write() as conn:
        replicas.answer_swap(conn, "a", the_waiting(bench).id, MODEL, ready=False, error="golden row 3 differs")
        replicas.goodbye(conn, "a")
    assert advance(bench.term, the_waiting(bench)) == "failed"
    assert (bench.get(run).state, bench.get(run).code) == (S.FAILED, "load")


def test_without_replicas_an_artifact_that_is_not_there_is_not_promoted(bench: Bench, tmp_path: Path) -> None:
    run = bench.promoting()
    bench.look()
    assert advance(bench.term, the_waiting(bench), store=ArtifactStore(tmp_path / "artifacts")) == "failed"
    assert (bench.get(run).state, bench.get(run).code) == (S.FAILED, "load")


def test_a_replica_that_cannot_load_stops_the_promotion_and_the_version_is_quarantined(bench: Bench) -> None:
    run = bench.promoting()
    with bench.term.write() as conn:
        replicas.hello(conn, "a", host="h", pid=1, worker=0)
    bench.look()
    with bench.term.database.read() as conn:
        (swap,) = champions.waiting(conn)
    with bench.term.write() as conn:
        replicas.answer_swap(conn, "a", swap.id, MODEL, ready=False, error="golden row 3 differs")
    assert advance(bench.term, the_waiting(bench)) == "failed"
    with bench.term.database.read() as conn:
        champion = champions.current(conn, MODEL)
        version = versions.get(conn, MODEL, 2)
    found = bench.get(run)
    assert champion is not None
    assert champion.version == 1
    assert version.state is VersionState.QUARANTINED
    assert (found.state, found.code) == (S.FAILED, "load")
    assert "golden row 3" in (found.detail or "")


def test_a_challenger_judged_against_another_champion_is_judged_again(bench: Bench) -> None:
    run = bench.promoting(version=3, parent=None)
    propose(bench.term, run)
    found = bench.get(run)
    assert (found.state, found.attempt) == (S.QUEUED, 2)


def test_a_promotion_that_was_committed_before_its_leader_died_is_only_written_down(bench: Bench) -> None:
    run = bench.promoting()
    with bench.term.write() as conn:
        champions.swap(
            conn,
            MODEL,
            version=2,
            expected_generation=1,
            actor="controller",
            reason="",
            kind="promote",
            run_id=run.id,
            event_time=AT,
            at=AT,
        )
    bench.look()
    assert bench.get(run).state is S.PROBATION
    with bench.term.database.read() as conn:
        champion = champions.current(conn, MODEL)
    assert champion is not None
    assert champion.generation == 2


@pytest.mark.parametrize("name", ["pin", "freeze", "hold"])
def test_a_switch_that_holds_promotion_leaves_it_to_a_person(bench: Bench, name: str) -> None:
    run = bench.promoting()
    with bench.term.write() as conn:
        models.set_switch(conn, MODEL, name, value=True, actor="me", reason="r", at=AT)
    bench.look()
    found = bench.get(run)
    assert found.state is S.AWAITING_APPROVAL
    bench.move(run, S.PROMOTING)
    bench.look()
    with bench.term.database.read() as conn:
        assert len(champions.waiting(conn)) == 1


def test_a_newer_run_supersedes_one_that_waits_for_labels(bench: Bench) -> None:
    waiting = bench.run()
    bench.move(waiting, S.PREPARING, S.VALIDATING, S.AWAITING_LABELS)
    bench.run()
    bench.look()
    assert bench.get(waiting).state is S.SUPERSEDED


def test_a_run_that_waits_for_labels_is_judged_again_when_they_came(bench: Bench) -> None:
    run = bench.run(until=AT + timedelta(days=7))
    bench.look()
    bench.move(run, S.VALIDATING, S.AWAITING_LABELS)
    bench.processes.job("train").exit_code = 0
    with bench.term.write() as conn:
        check = checks.create(conn, MODEL, actor="schedule", at=AT, window_until=AT + timedelta(days=14))
        checks.finish(conn, check.id, at=AT, situation={"new_labels": 500})
    for _ in range(3):
        bench.look()
    found = bench.get(run)
    assert (found.state, found.attempt) == (S.PREPARING, 2)
    assert found.until == AT + timedelta(days=14)
    assert bench.processes.find("train", run.id) is not None
