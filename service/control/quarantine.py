"""Which stretches of event time nothing may be learned from."""

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
    query = select(c.window_from, c.window_until).where(c.model == model, c.verdict == Verdict.QUARANTINED.value)
    moment = conn.scalar(accepted)
    if moment is not None:
        query = query.where(c.finished_at > moment)
    found = [(row.window_from, row.window_until) for row in conn.execute(query)]
    return tuple(sorted((after, until) for after, until in found if after is not None and until is not None))
