"""Laws of what a quarantine keeps out of training."""

from datetime import datetime, timedelta

import pandas as pd

from service.control.quarantine import spans
from service.control.rows import without
from service.control.tasks import Interval
from service.storage import audit, checks
from service.storage.database import Database
from tests.unit.control.conftest import AT, MODEL

WEEK = timedelta(days=7)


def a_check(database: Database, *, week: int, verdict: str, answered: list[str] | None = None) -> None:
    with database.write() as conn:
        check = checks.create(
            conn, MODEL, actor="schedule", at=AT, window_from=AT + (week - 1) * WEEK, window_until=AT + week * WEEK
        )
        examination = {"findings": [{"check": "late", "answered": answered}]}
        checks.finish(conn, check.id, at=AT + timedelta(minutes=week), verdict=verdict, examination=examination)


def test_quarantined_windows_are_left_out_even_after_clean_ones(database: Database) -> None:
    for week, verdict in enumerate(["clean", "quarantined", "quarantined", "clean"], start=1):
        a_check(database, week=week, verdict=verdict)
    with database.read() as conn:
        assert spans(conn, MODEL) == (Interval(AT + WEEK, AT + 2 * WEEK), Interval(AT + 2 * WEEK, AT + 3 * WEEK))


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
        assert spans(conn, MODEL) == (Interval(AT + WEEK, AT + 2 * WEEK),)


def test_old_rows_that_came_with_a_broken_window_are_left_out_and_the_good_ones_of_their_time_stay(
    database: Database,
) -> None:
    came = [AT + timedelta(hours=hour) for hour in (1, 2)]
    a_check(database, week=3, verdict="quarantined", answered=[moment.isoformat() for moment in came])
    with database.read() as conn:
        (interval,) = spans(conn, MODEL)
    assert interval == Interval(AT + 2 * WEEK, AT + 3 * WEEK, *came)
    rows = pd.DataFrame(
        {
            "id": [None, an_id(AT), an_id(AT + timedelta(minutes=90)), an_id(came[1]), an_id(AT + timedelta(hours=3))],
            "event_time": [AT, AT + WEEK, AT + WEEK, AT + 3 * WEEK, AT + 4 * WEEK],
        }
    )
    assert without(rows, [interval])["id"].tolist() == [rows["id"][place] for place in (0, 1, 4)]


def an_id(moment: datetime) -> str:
    """Return an identifier that was made at that moment."""
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"
