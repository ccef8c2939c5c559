"""What is told to webhooks: each thing once, in the transaction of the change, and nothing private."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from service.control.breaker import settle
from service.control.leader import Term
from service.control.rollback import roll_back
from service.domain.check import Verdict
from service.domain.notice import RUN_KINDS, DeliveryState, Kind
from service.domain.probation import ProbationState
from service.domain.run import NEXT, RunState, Trigger
from service.storage import champions, models, outbox, probations, runs, tables, versions
from service.storage.champions import Champion
from service.storage.database import Database
from tests.unit.control.conftest import AT, MODEL, a_version
from tests.unit.control.test_monitor import Bench, seen

S = RunState
PRIVATE = ("key-of-ada", "ada@example", "digest-of-it")


def told(database: Database) -> list[tuple[str, dict[str, Any]]]:
    n = tables.notices.c
    with database.read() as conn:
        return [(row.kind, row.data) for row in conn.execute(select(n.kind, n.data).order_by(n.at, n.id))]


def way_to(state: RunState) -> Sequence[RunState]:
    """Return a way from the queue to `state`, without it."""
    ways: list[tuple[RunState, ...]] = [(S.QUEUED,)]
    while ways:
        way = ways.pop(0)
        if state in NEXT[way[-1]]:
            return way[1:]
        ways += [(*way, after) for after in NEXT[way[-1]] if after not in way]
    raise AssertionError(state)


def bring(database: Database, state: RunState) -> runs.Run:
    with database.write() as conn:
        run = runs.create(
            conn, MODEL, trigger=Trigger.MANUAL, actor=PRIVATE[1], reason="try it", at=AT,
            idempotency_key=PRIVATE[0], request_digest=PRIVATE[2],
        )  # fmt: skip
        for after in (*way_to(state), state):
            run = runs.transition(conn, run.id, after, actor=PRIVATE[1], reason="r", at=AT, code="c", detail="why")
    return run


@pytest.mark.parametrize("state", sorted(RUN_KINDS))
def test_a_run_is_told_of_once_when_it_ends_or_waits_for_a_person(database: Database, state: RunState) -> None:
    run = bring(database, state)
    own = [(kind, data) for kind, data in told(database) if kind == RUN_KINDS[state].value]
    assert len(own) == 1
    assert own[0][1] == {
        "model": MODEL, "run": run.id, "state": state.value, "trigger": "manual", "code": "c", "detail": "why",
        "version": None, "attempt": 1, "requested_at": "2026-01-01T00:00:00Z",
        "finished_at": None if state is S.AWAITING_APPROVAL else "2026-01-01T00:00:00Z",
    }  # fmt: skip


def test_nobody_is_told_who_asked_or_with_which_key(database: Database) -> None:
    bring(database, S.FAILED)
    text = json.dumps(told(database))
    assert [word for word in PRIVATE if word in text] == []


def test_a_change_that_is_undone_is_not_told(database: Database, champion: Champion) -> None:
    before = told(database)

    def swap_and_fail() -> None:
        with database.write() as conn:
            versions.insert(conn, a_version(2))
            champions.swap(
                conn, MODEL, version=2, expected_generation=champion.generation, actor="t", reason="r",
                kind="promote", run_id=None, event_time=None, at=AT,
            )  # fmt: skip
            raise RuntimeError

    with pytest.raises(RuntimeError):
        swap_and_fail()
    assert told(database) == before


def test_a_new_champion_is_told_of_and_one_that_is_taken_back(database: Database, champion: Champion) -> None:
    with database.write() as conn:
        versions.insert(conn, a_version(2))
        champions.swap(
            conn, MODEL, version=2, expected_generation=champion.generation, actor="t", reason="better",
            kind="promote", run_id="r", event_time=None, at=AT + timedelta(seconds=1),
        )  # fmt: skip
    with database.write() as conn:
        roll_back(conn, MODEL, to=1, actor="ada", reason="it is worse")
    first, second, third = told(database)
    assert (first[0], first[1]["version"]) == (Kind.CHAMPION_PROMOTED.value, 1)
    assert second == (
        "champion.promoted",
        {"model": MODEL, "version": 2, "previous_version": 1, "generation": 2, "run": "r", "reason": "better"},
    )
    assert third == (
        "champion.rolled_back",
        {"model": MODEL, "version": 1, "previous_version": 2, "generation": 3, "run": None, "reason": "it is worse"},
    )


def on_probation(database: Database, champion: Champion) -> probations.ProbationRow:
    with database.write() as conn:
        return probations.begin(
            conn, MODEL, generation=champion.generation, version=2, previous_version=1, run_id=None, at=AT,
            event_time=None, actor="t",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "code", "outcome"),
    [
        (ProbationState.ROLLED_BACK, "errors", "rolled_back"),
        (ProbationState.ENDED, "no_target", "no_target"),
        (ProbationState.KEPT, "clean", None),
        (ProbationState.ENDED, "superseded", None),
        (ProbationState.ENDED, "rolled_back_by_person", None),
    ],
)
def test_a_probation_is_told_of_if_it_fails(
    database: Database, champion: Champion, state: ProbationState, code: str, outcome: str | None
) -> None:
    row = on_probation(database, champion)
    with database.write() as conn:
        probations.end(
            conn, row, state, run_state=S.SUCCEEDED, code=code, reason="why", actor="t", at=AT, event_time=None
        )
    found = [data for kind, data in told(database) if kind == Kind.PROBATION_FAILED.value]
    assert [data["outcome"] for data in found] == ([outcome] if outcome else [])


def test_drift_is_told_of_when_it_is_confirmed_and_not_again(term: Term, champion: Champion) -> None:
    bench = Bench(term)
    for day in (7, 14, 21):
        bench.look(day=day)
        bench.says(seen(Verdict.DRIFTED))
    assert champion.version == 1
    (found,) = [data for kind, data in told(term.database) if kind == Kind.DRIFT_CONFIRMED.value]
    assert (found["window_until"], found["reason"]) == ("2026-01-15T00:00:00Z", "as told")


def test_broken_data_are_told_of_when_the_quarantine_begins_and_not_again(term: Term, champion: Champion) -> None:
    bench = Bench(term)
    for day in (7, 14):
        bench.look(day=day)
        bench.says(seen(Verdict.QUARANTINED))
    assert champion.version == 1
    (found,) = [data for kind, data in told(term.database) if kind == Kind.DATA_QUARANTINED.value]
    assert (found["window_until"], found["rows"]) == ("2026-01-08T00:00:00Z", 100)


def test_a_breaker_that_opens_is_told_of_once(database: Database) -> None:
    broken = []
    for _ in range(3):
        with database.write() as conn:
            run = runs.create(conn, MODEL, trigger=Trigger.DRIFT, actor="c", reason="r", at=AT)
            broken.append(runs.transition(conn, run.id, S.FAILED, actor="c", reason="r", at=AT, code="train_error").id)
    for _ in range(2):
        with database.write() as conn:
            settle(conn, models.get(conn, MODEL), at=AT + timedelta(seconds=1))
    (found,) = [data for kind, data in told(database) if kind == Kind.BREAKER_OPENED.value]
    assert found["failures"] == 3
    assert found["run"] in broken


# -- the outbox


def test_a_notice_gets_one_delivery_per_endpoint_and_a_new_endpoint_none_of_the_old_ones(database: Database) -> None:
    run = bring(database, S.FAILED)
    for names in (["a", "b"], ["a", "b"], ["a", "b", "late"]):
        with database.write() as conn:
            outbox.spread(conn, names, at=AT)
            assert not outbox.has_work(conn, names)
    with database.read() as conn:
        found = outbox.list_of(conn)
        assert sorted(one.endpoint for one in found) == ["a", "b"]
        assert {one.notice.data["run"] for one in found} == {run.id}
        assert [one.endpoint for one in outbox.due(conn, "b", at=AT, limit=9)] == ["b"]
        assert outbox.due(conn, "b", at=AT - timedelta(seconds=1), limit=9) == []


def test_what_waits_for_an_endpoint_that_is_configured_no_more_is_dead_and_says_so(database: Database) -> None:
    bring(database, S.FAILED)
    with database.write() as conn:
        outbox.spread(conn, ["a", "b"], at=AT)
        assert outbox.has_work(conn, ["b"])
        outbox.spread(conn, ["b"], at=AT)
        (dead,) = outbox.list_of(conn, state=DeliveryState.DEAD)
        assert (dead.endpoint, dead.error, dead.ended_at) == ("a", outbox.GONE, AT)
        assert outbox.counts(conn) == {DeliveryState.WAITING: 1, DeliveryState.DEAD: 1}


def test_a_mark_of_a_try_that_another_leader_made_too_counts_once(database: Database) -> None:
    bring(database, S.FAILED)
    with database.write() as conn:
        outbox.spread(conn, ["a"], at=AT)
        (seen_by_both,) = outbox.due(conn, "a", at=AT, limit=9)
        for _ in range(2):
            outbox.mark(conn, seen_by_both, DeliveryState.WAITING, at=AT, status=500, error="it answered 500")
        assert outbox.get(conn, seen_by_both.id).tries == 1


def test_what_is_over_is_forgotten_after_a_time_and_what_waits_is_not(database: Database) -> None:
    bring(database, S.FAILED)
    with database.write() as conn:
        outbox.spread(conn, ["a", "b"], at=AT)
        both = outbox.list_of(conn)
        late = AT + timedelta(days=31)
        for one in both:
            assert outbox.forget(conn, before=late) == 0
            outbox.mark(conn, one, DeliveryState.DELIVERED, at=AT, status=200, error=None)
        assert outbox.forget(conn, before=AT) == 0
        assert outbox.forget(conn, before=late) == 1
        assert outbox.list_of(conn) == []


def test_pages_of_deliveries_go_on_where_the_last_one_ended(database: Database) -> None:
    for _ in range(3):
        bring_again(database)
    with database.write() as conn:
        outbox.spread(conn, ["a", "b"], at=AT)
        everything = [one.id for one in outbox.list_of(conn)]
        first = outbox.list_of(conn, limit=4)
        rest = outbox.list_of(conn, before=first[-1].id)
    assert len(everything) == 6
    assert [one.id for one in (*first, *rest)] == everything


def bring_again(database: Database) -> None:
    with database.write() as conn:
        run = runs.create(conn, MODEL, trigger=Trigger.MANUAL, actor="t", reason="r", at=AT)
        runs.transition(conn, run.id, S.EXPIRED, actor="t", reason="r", at=AT)
