"""Uses of holdouts: each gate that came to a judgement leaves one, for rows that were judged on wear out."""

from datetime import datetime

from sqlalchemy import Connection, select

from service.domain.gate import Outcome, Use
from service.storage.database import insert_new
from service.storage.tables import holdout_uses

__all__ = ["note", "uses"]

NEWEST = 500
"""More than this no holdout can share rows with: it rolls on with event time."""


def note(
    conn: Connection,
    model: str,
    use: Use,
    *,
    attempt: int,
    rows: int,
    outcome: Outcome,
    at: datetime,
) -> bool:
    """Write that an attempt of a run was judged on a stretch; False if that is written already."""
    return insert_new(
        conn,
        holdout_uses,
        model=model,
        run_id=use.run,
        attempt=attempt,
        after=use.after,
        until=use.until,
        rows=rows,
        outcome=outcome.value,
        at=at,
    )


def uses(conn: Connection, model: str) -> tuple[Use, ...]:
    """Return the model's newest uses, the oldest of them first."""
    c = holdout_uses.c
    query = select(c.run_id, c.after, c.until).where(c.model == model)
    rows = conn.execute(query.order_by(c.until.desc(), c.run_id.desc(), c.attempt.desc()).limit(NEWEST)).all()
    return tuple(Use(run=row.run_id, after=row.after, until=row.until) for row in reversed(rows))
