"""One leader: the database's clock decides, and an old token writes nothing."""

import pytest
from sqlalchemy import update

from service.control.leader import LEASE, Leader, Term
from service.domain.errors import LeaseLost
from service.storage import audit, leases, tables
from service.storage.database import Database
from tests.unit.control.conftest import AT


class Stopwatch:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def expire(database: Database) -> None:
    with database.write() as conn:
        conn.execute(update(tables.leases).values(expires_at=AT))


def test_of_two_controllers_one_leads(database: Database) -> None:
    first, second = Leader(database, owner="first"), Leader(database, owner="second")
    assert first.step() is not None
    assert second.step() is None
    assert second.term is None


def test_another_one_leads_when_the_lease_has_expired_and_the_old_token_writes_nothing(database: Database) -> None:
    first, second = Leader(database, owner="first"), Leader(database, owner="second")
    old = first.step()
    assert old is not None
    expire(database)
    new = second.step()
    assert new is not None
    assert new.token > old.token
    with pytest.raises(LeaseLost), old.write() as conn:
        audit.append(conn, actor="old", action="x", model=None, subject=None, reason="", at=AT)
    with database.read() as conn:
        assert audit.list_of(conn) == []
    assert first.step() is None


def test_a_leader_that_cannot_renew_stops_before_its_lease_can_have_gone(database: Database) -> None:
    stopwatch = Stopwatch()
    leader = Leader(database, owner="first", ttl_s=10, monotonic=stopwatch)
    assert leader.step() is not None
    stopwatch.now = 9.9
    terms = [leader.term]
    stopwatch.now = 10.0
    terms.append(leader.term)
    assert [term is None for term in terms] == [False, True]


def test_a_leader_that_resigns_is_followed_at_once(database: Database) -> None:
    first, second = Leader(database, owner="first"), Leader(database, owner="second")
    first.step()
    first.resign()
    assert second.step() is not None
    assert first.step() is None


def test_a_lease_that_expired_and_was_taken_by_nobody_goes_on(database: Database) -> None:
    leader = Leader(database, owner="first")
    before = leader.step()
    expire(database)
    after = leader.step()
    assert before is not None
    assert after is not None
    assert after.token == before.token


def test_a_transaction_of_a_term_that_fails_leaves_nothing(database: Database, term: Term) -> None:
    def write_and_fail() -> None:
        with term.write() as conn:
            audit.append(conn, actor="a", action="x", model=None, subject=None, reason="", at=AT)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with database.read() as conn:
        assert audit.list_of(conn) == []
        assert leases.holder(conn, LEASE) is not None
