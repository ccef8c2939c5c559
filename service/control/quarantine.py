"""Which stretches of event time nothing may be learned from."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from service.control.tasks import Interval
from service.domain.check import Verdict
from service.storage import tables

__all__ = ["spans"]


def spans(conn: Connection, model: str) -> tuple[Interval, ...]:
    """Return the quarantined windows of `model`, in order.

    Clean windows that end a quarantine leave the broken ones out for good. A person who clears it says that the data
    are the new normal: what was quarantined until then may be learned from.
    """
    c, a = tables.checks.c, tables.audit.c
    accepted = select(func.max(a.at)).where(a.model == model, a.action == "switch_cleared", a.subject == "quarantine")
    query = select(c.window_from, c.window_until, c.examination)
    query = query.where(c.model == model, c.verdict == Verdict.QUARANTINED.value)
    moment = conn.scalar(accepted)
    if moment is not None:
        query = query.where(c.finished_at > moment)
    found = [
        Interval(row.window_from, row.window_until, *_answered(row.examination))
        for row in conn.execute(query)
        if row.window_from is not None and row.window_until is not None
    ]
    return tuple(sorted(found, key=lambda one: (one.after, one.until)))


def _answered(examination: dict[str, Any] | None) -> tuple[datetime, datetime] | tuple[()]:
    """Return between which moments old rows came that lie outside the window."""
    named = [finding["answered"] for finding in (examination or {}).get("findings", ()) if finding.get("answered")]
    if not named:
        return ()
    first, last = named[0]
    return datetime.fromisoformat(first), datetime.fromisoformat(last)
