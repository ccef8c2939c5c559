"""HTML reports of checks: noted when they are written, removed when they are old and nobody will ask for them."""

from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select, update

from service.control.leader import Term
from service.domain.check import Verdict
from service.storage import tables

__all__ = ["note_report", "prune"]

NEWEST = 100
"""So many reports a model are kept in any case."""
NOTABLE = timedelta(days=90)
"""Reports of windows that were not clean are kept for so long."""


def note_report(term: Term, check_id: str, path: str) -> str:
    """Write the report's path to its check; return the model."""
    c = tables.checks.c
    with term.write() as conn:
        conn.execute(update(tables.checks).where(c.id == check_id).values(report=path))
        model: str = conn.execute(select(c.model).where(c.id == check_id)).scalar_one()
    return model


def prune(term: Term, reports: Path, model: str, *, now: datetime) -> int:
    """Remove the model's reports that are neither among the newest nor notable; return how many."""
    c = tables.checks.c
    with term.database.read() as conn:
        kept = select(c.id, c.report, c.verdict, c.requested_at).where(c.model == model, c.report.is_not(None))
        rows = conn.execute(kept.order_by(c.requested_at.desc(), c.id.desc())).all()
    old = [row for row in rows[NEWEST:] if row.verdict == Verdict.CLEAN.value or now - row.requested_at > NOTABLE]
    if old:
        with term.write() as conn:
            conn.execute(update(tables.checks).where(c.id.in_([row.id for row in old])).values(report=None))
        for row in old:
            (reports / row.report).unlink(missing_ok=True)
    return len(old)
