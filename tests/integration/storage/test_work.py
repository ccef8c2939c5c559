"""Runs, checks, leases and replicas, on both databases."""

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, update

from service.domain.check import CheckState
from service.domain.errors import (
    Conflict,
    LeaseLost,
    NotAllowedNow,
    RunInProgress,
    UnknownCheck,
    UnknownRun,
)
from service.domain.run import RunState, Trigger
from service.storage import checks, leases, replicas, runs
from service.storage.database import Database
from service.storage.tables import leases as leases_table
from service.storage.tables import replicas as replicas_table

MODEL = "electricity"


def ask(conn: Connection, at: datetime, **overrides: Any) -> runs.Run:
    facts: dict[str, Any] = {"trigger": Trigger.MANUAL, "actor": "ada", "reason": "r", "at": at, **overrides}
    return runs.create(conn, MODEL, **facts)


def go(conn: Connection, run: runs.Run, after: RunState, at: datetime, **columns: Any) -> runs.Run:
    return runs.transition(conn, run.id, after, actor="leader", reason="r", at=at, **columns)


def test_a_model_has_at_most_one_active_run(database: Database, at: datetime) -> None:
    with database.write() as conn:
        run = ask(conn, at)
        with pytest.raises(RunInProgress) as caught:
            ask(conn, at)
        assert caught.value.facts["run"] == run.id
        assert runs.active(conn, MODEL) == run
        go(conn, run, RunState.CANCELLED, at)
        assert runs.active(conn, MODEL) is None
        ask(conn, at)


def test_of_many_requests_at_once_one_makes_a_run(database: Database, at: datetime) -> None:
    outcomes: list[str] = []
    together = threading.Barrier(4)

    def race() -> None:
        together.wait(10)
        try:
            with database.write() as conn:
                ask(conn, at)
            outcomes.append("made")
        except RunInProgress:
            outcomes.append("refused")

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["made", "refused", "refused", "refused"]


def test_the_same_request_makes_the_same_run(database: Database, at: datetime) -> None:
    with database.write() as conn:
        run = ask(conn, at, idempotency_key="k", request_digest="d")
        assert ask(conn, at, idempotency_key="k", request_digest="d") == run
        go(conn, run, RunState.CANCELLED, at)
        assert ask(conn, at, idempotency_key="k", request_digest="d").id == run.id
        with pytest.raises(Conflict) as caught:
            ask(conn, at, idempotency_key="k", request_digest="other")
        assert not isinstance(caught.value, RunInProgress)
        assert ask(conn, at, idempotency_key="k2", request_digest="d").id != run.id


def test_every_transition_is_recorded(database: Database, at: datetime) -> None:
    with database.write() as conn:
        run = ask(conn, at)
        go(conn, run, RunState.PREPARING, at + timedelta(seconds=2), token=7)
        go(conn, run, RunState.FAILED, at + timedelta(seconds=5), token=7, code="train_error", detail="it broke")
    with database.read() as conn:
        ended = runs.get(conn, run.id)
        events = runs.events(conn, run.id)
    assert [(event.seq, event.before, event.after, event.token) for event in events] == [
        (1, None, RunState.QUEUED, None),
        (2, RunState.QUEUED, RunState.PREPARING, 7),
        (3, RunState.PREPARING, RunState.FAILED, 7),
    ]
    assert (ended.state, ended.active, ended.code, ended.detail) == (RunState.FAILED, False, "train_error", "it broke")
    assert ended.started_at == at + timedelta(seconds=2)
    assert ended.finished_at == at + timedelta(seconds=5)
    assert ended.seconds == {"queued": 2.0, "preparing": 3.0}


def test_a_transition_that_the_table_has_not_is_refused(database: Database, at: datetime) -> None:
    with database.write() as conn:
        run = ask(conn, at)
        with pytest.raises(NotAllowedNow):
            go(conn, run, RunState.SUCCEEDED, at)
        go(conn, run, RunState.CANCELLED, at)
        with pytest.raises(NotAllowedNow):
            go(conn, run, RunState.PREPARING, at)
        assert len(runs.events(conn, run.id)) == 2


def test_a_stale_leader_can_write_nothing_on_a_run(database: Database, at: datetime) -> None:
    with database.write() as conn:
        run = ask(conn, at)
        go(conn, run, RunState.PREPARING, at, token=2)
        with pytest.raises(LeaseLost):
            go(conn, run, RunState.VALIDATING, at, token=1)
        with pytest.raises(LeaseLost):
            runs.heartbeat(conn, run.id, at=at, token=1)
        with pytest.raises(LeaseLost):
            runs.progress(conn, run.id, at=at, token=1, step="fit")
        assert go(conn, run, RunState.VALIDATING, at, token=3).token == 3
        assert go(conn, run, RunState.CANCELLING, at).token == 3


def test_a_waiting_run_gives_way_and_must_wait_for_the_active_one(database: Database, at: datetime) -> None:
    with database.write() as conn:
        first = ask(conn, at)
        for state in (RunState.PREPARING, RunState.VALIDATING, RunState.AWAITING_LABELS):
            first = go(conn, first, state, at)
        second = ask(conn, at)
        with pytest.raises(RunInProgress) as caught:
            go(conn, first, RunState.PREPARING, at)
        assert caught.value.facts["run"] == second.id
        assert {run.id for run in runs.unfinished(conn)} == {first.id, second.id}
        go(conn, second, RunState.CANCELLED, at)
        assert go(conn, first, RunState.PREPARING, at).active


def test_progress_is_a_sign_of_life(database: Database, at: datetime) -> None:
    later = at + timedelta(seconds=9)
    with database.write() as conn:
        run = ask(conn, at)
        runs.progress(conn, run.id, at=later, step="fit", done=1, of=3)
        found = runs.get(conn, run.id)
        assert (found.progress, found.heartbeat_at) == ({"step": "fit", "done": 1, "of": 3}, later)
        with pytest.raises(UnknownRun):
            runs.heartbeat(conn, "no-run", at=at)


def test_runs_are_read_in_pages(database: Database, at: datetime) -> None:
    with database.write() as conn:
        made = [go(conn, ask(conn, at), RunState.CANCELLED, at).id for _ in range(3)]
        assert [run.id for run in runs.list_of(conn, MODEL, limit=2)] == [made[2], made[1]]
        assert [run.id for run in runs.list_of(conn, limit=2, before=made[1])] == [made[0]]


def test_the_newest_is_so_by_the_databases_clock_not_by_that_of_the_host_that_made_its_id(
    database: Database, at: datetime
) -> None:
    with database.write() as conn:
        later = go(conn, ask(conn, at + timedelta(hours=1)), RunState.CANCELLED, at)
        earlier = go(conn, ask(conn, at), RunState.CANCELLED, at)
        assert earlier.id > later.id  # as if made by a host whose clock is ahead
        assert [run.id for run in runs.list_of(conn, MODEL)] == [later.id, earlier.id]
        assert [run.id for run in runs.list_of(conn, MODEL, before=later.id)] == [earlier.id]
        made = []
        for moment in (at + timedelta(hours=1), at):
            check = checks.create(conn, MODEL, actor="ada", at=moment)
            made.append(checks.finish(conn, check.id, at=moment, verdict="clean").id)
        assert made == sorted(made)
        assert [check.id for check in checks.list_of(conn, MODEL)] == made
        assert [check.id for check in checks.list_of(conn, MODEL, before=made[0])] == made[1:]
        latest = checks.latest_done(conn, MODEL)
        assert latest is not None
        assert latest.id == made[0]


def test_a_check_that_is_asked_for_twice_is_one_check(database: Database, at: datetime) -> None:
    with database.write() as conn:
        check = checks.create(conn, MODEL, actor="ada", at=at)
        assert checks.create(conn, MODEL, actor="schedule", at=at) == check
        assert checks.start(conn, check.id, token=4, window_until=at).state is CheckState.RUNNING
        done = checks.finish(conn, check.id, at=at, token=4, verdict="clean", rows=336, examination={"rows": 336})
        assert (done.state, done.active, done.verdict, done.examination) == (
            CheckState.DONE,
            False,
            "clean",
            {"rows": 336},
        )
        other = checks.create(conn, MODEL, actor="ada", at=at)
        assert other.id != check.id
        assert checks.unfinished(conn) == [other]
        assert checks.newest(conn, MODEL) == other
        assert checks.latest_done(conn, MODEL) == done
        assert checks.fail(conn, other.id, error="no rows", at=at).error == "no rows"
        assert checks.latest_done(conn, MODEL) == done
        assert [check.id for check in checks.list_of(conn, MODEL)] == [other.id, check.id]


def test_an_ended_check_is_not_written_again(database: Database, at: datetime) -> None:
    with database.write() as conn:
        check = checks.create(conn, MODEL, actor="ada", at=at)
        checks.start(conn, check.id, token=4)
        with pytest.raises(LeaseLost):
            checks.finish(conn, check.id, at=at, token=3)
        checks.fail(conn, check.id, error="e", at=at, token=4)
        with pytest.raises(NotAllowedNow):
            checks.finish(conn, check.id, at=at, token=5)
        with pytest.raises(UnknownCheck):
            checks.get(conn, "no-check")


def expire(conn: Connection, database: Database) -> None:
    conn.execute(update(leases_table).values(expires_at=database.now(conn) - timedelta(seconds=1)))


def test_one_owner_at_a_time_holds_a_lease(database: Database) -> None:
    with database.write() as conn:
        mine = leases.acquire(conn, "leader", "a", 60)
        assert mine is not None
        assert leases.acquire(conn, "leader", "b", 60) is None
        again = leases.acquire(conn, "leader", "a", 60)
        assert again is not None
        assert again.token == mine.token == 1


def test_each_term_has_a_greater_token_and_the_old_one_is_refused(database: Database) -> None:
    with database.write() as conn:
        first = leases.acquire(conn, "leader", "a", 60)
        assert first is not None
        expire(conn, database)
        second = leases.acquire(conn, "leader", "b", 60)
        assert second is not None
        assert second.token == first.token + 1
        leases.verify(conn, "leader", second.token)
        with pytest.raises(LeaseLost):
            leases.verify(conn, "leader", first.token)
        with pytest.raises(LeaseLost):
            leases.renew(conn, first, 60)
        leases.release(conn, first)
        assert leases.holder(conn, "leader") == second
        leases.release(conn, second)
        third = leases.acquire(conn, "leader", "b", 60)
        assert third is not None
        assert third.token == second.token + 1


def test_an_expired_lease_that_nobody_took_can_be_renewed(database: Database) -> None:
    with database.write() as conn:
        lease = leases.acquire(conn, "leader", "a", 60)
        assert lease is not None
        expire(conn, database)
        renewed = leases.renew(conn, lease, 60)
        assert renewed.token == lease.token
        assert leases.acquire(conn, "leader", "b", 60) is None


def test_of_many_candidates_at_once_one_leads(database: Database) -> None:
    granted: list[leases.Lease] = []
    together = threading.Barrier(4)

    def race(owner: str) -> None:
        together.wait(10)
        with database.write() as conn:
            lease = leases.acquire(conn, "leader", owner, 60)
        if lease is not None:
            granted.append(lease)

    threads = [threading.Thread(target=race, args=(owner,)) for owner in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(granted) == 1


def test_a_replica_is_live_by_the_databases_clock(database: Database) -> None:
    with database.write() as conn:
        for worker, name in enumerate("ab"):
            replicas.hello(conn, name, host="h", pid=1, worker=worker)
        silent = database.now(conn) - timedelta(seconds=30)
        conn.execute(update(replicas_table).where(replicas_table.c.id == "b").values(heartbeat_at=silent))
        assert [replica.id for replica in replicas.live(conn, 6)] == ["a"]
        assert replicas.heartbeat(conn, "b")
        assert [replica.id for replica in replicas.live(conn, 6)] == ["a", "b"]
        replicas.goodbye(conn, "b")
        assert not replicas.heartbeat(conn, "b")
        assert replicas.forget(conn, 60) == []
        assert [replica.id for replica in replicas.live(conn, 6)] == ["a"]


def test_what_a_replica_serves_and_answers_stand_side_by_side(database: Database) -> None:
    with database.write() as conn:
        replicas.hello(conn, "a", host="h", pid=1, worker=0)
        replicas.report(conn, "a", MODEL, 1, 1)
        replicas.answer_swap(conn, "a", "swap", MODEL, ready=False, error="altered")
        (found,) = replicas.serving(conn)
        assert (found.version, found.generation, found.swap_id, found.swap_ready, found.error) == (
            1,
            1,
            "swap",
            False,
            "altered",
        )
        replicas.answer_swap(conn, "a", "swap2", MODEL, ready=True)
        replicas.report(conn, "a", MODEL, 2, 2)
        (found,) = replicas.serving(conn, MODEL)
        assert (found.version, found.swap_id, found.swap_ready, found.error) == (2, "swap2", True, None)
        replicas.goodbye(conn, "a")
        assert replicas.serving(conn) == []
