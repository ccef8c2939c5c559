"""Laws of what a quarantine keeps out of training."""

from datetime import timedelta

from service.control.quarantine import spans
from service.storage import audit, checks
from service.storage.database import Database
from tests.unit.control.conftest import AT, MODEL

WEEK = timedelta(days=7)


def a_check(database: Database, *, week: int, verdict: str) -> None:
    with database.write() as conn:
        check = checks.create(
            conn, MODEL, actor="schedule", at=AT, window_from=AT + (week - 1) * WEEK, window_until=AT + week * WEEK
        )
        checks.finish(conn, check.id, at=AT + timedelta(minutes=week), verdict=verdict)


def test_quarantined_windows_are_left_out_even_after_clean_ones(database: Database) -> None:
    for week, verdict in enumerate(["clean", "quarantined", "quarantined", "clean"], start=1):
        a_check(database, week=week, verdict=verdict)
    with database.read() as conn:
        assert spans(conn, MODEL) == ((AT + WEEK, AT + 2 * WEEK), (AT + 2 * WEEK, AT + 3 * WEEK))


def test_a_person_who_accepts_the_data_lets_them_be_learned_from_but_not_what_comes_after(database: Database) -> None:
    a_check(database, week=1, verdict="quarantined")
    with database.write() as conn:
        audit.append(
            conn,
            actor="operator",
            action="switch_cleared",
            model=MODEL,
            subject="quarantine",
            reason="the meter was replaced",
            at=AT + timedelta(minutes=1, seconds=30),
        )
    with database.read() as conn:
        assert spans(conn, MODEL) == ()
    a_check(database, week=2, verdict="quarantined")
    with database.read() as conn:
        assert spans(conn, MODEL) == ((AT + WEEK, AT + 2 * WEEK),)
