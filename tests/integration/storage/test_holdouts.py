"""Uses of holdouts are kept, once each, by model and in order, on both databases."""

from datetime import UTC, datetime, timedelta

import pytest

from service.domain.gate import Outcome, Use
from service.storage import holdouts, models
from service.storage.database import Database

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def known(database: Database) -> Database:
    with database.write() as conn:
        for name in ("one", "two"):
            models.register(conn, name, spec_json={}, file=f"models/{name}.py", at=AT)
    return database


def use(run: int) -> Use:
    return Use(run=str(run), after=AT + timedelta(days=run), until=AT + timedelta(days=run + 14))


def note(database: Database, model: str, run: int, attempt: int = 1) -> bool:
    with database.write() as conn:
        return holdouts.note(conn, model, use(run), attempt=attempt, rows=300, outcome=Outcome.INCONCLUSIVE, at=AT)


def test_each_attempt_leaves_one_use_and_writing_it_again_leaves_no_second(known: Database) -> None:
    assert note(known, "one", 1)
    assert not note(known, "one", 1)
    assert note(known, "one", 1, attempt=2)
    with known.read() as conn:
        assert holdouts.uses(conn, "one") == (use(1), use(1))


def test_uses_are_of_one_model_and_the_oldest_comes_first(known: Database) -> None:
    for run in (2, 1, 3):
        note(known, "one", run)
    note(known, "two", 4)
    with known.read() as conn:
        assert holdouts.uses(conn, "one") == (use(1), use(2), use(3))
        assert holdouts.uses(conn, "two") == (use(4),)


def test_only_the_newest_uses_are_read(known: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdouts, "NEWEST", 2)
    for run in (1, 2, 3):
        note(known, "one", run)
    with known.read() as conn:
        assert holdouts.uses(conn, "one") == (use(2), use(3))
