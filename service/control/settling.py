"""From the commit of a swap until every live replica serves its generation: the mixed window, measured and written.

A replica follows by itself, and tries again by itself when it could not load: here it is only watched. One that is
late is told of after a few seconds, and again after two minutes; meanwhile its old bundle answers.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Connection

from service.control.leader import Term
from service.journal import facts
from service.storage import champions, replicas
from service.storage.champions import Swap
from service.storage.models import ModelRow

__all__ = ["LATE_S", "Settling"]

log = logging.getLogger(__name__)

LIVE_S = 6.0
LATE_S = (5.0, 120.0)
"""Seconds after the commit at which a live replica that has not switched is told of."""


class Settling:
    """Watches committed swaps until they have reached every live replica.

    Parameters
    ----------
    settled
        Told of each swap that has: model, seconds from its commit to the last replica.
    late
        Told of the model of each swap that some replica has not followed in time.
    """

    def __init__(self, *, settled: Callable[[str, float], None], late: Callable[[str], None]) -> None:
        self._settled = settled
        self._late = late
        self._told: dict[str, int] = {}

    def look(self, term: Term, known: Mapping[str, ModelRow]) -> None:  # noqa: ARG002  the parts of a look are alike
        """Look once at every swap that has not settled."""
        with term.database.read() as conn:
            swaps = champions.unsettled(conn)
            states = [(swap, *_state(conn, swap)) for swap in swaps]
            now = term.database.now(conn)
        self._told = {swap_id: times for swap_id, times in self._told.items() if swap_id in {s.id for s in swaps}}
        for swap, late, bound in states:
            if swap.ended_at is None:
                continue
            if late:
                since = max(swap.ended_at, min(late.values()))  # one that starts takes its time to load
                self._tell(swap, list(late), (now - since).total_seconds())
            elif bound is not None:
                self._write(term, swap, max(bound, swap.ended_at), swap.ended_at)

    def _write(self, term: Term, swap: Swap, at: datetime, committed: datetime) -> None:
        with term.write() as conn:
            champions.settle(conn, swap.id, at=at)
        mixed = (at - committed).total_seconds()
        log.info("swap_settled", extra=facts(model=swap.model, generation=swap.generation, mixed_s=round(mixed, 3)))
        self._settled(swap.model, mixed)

    def _tell(self, swap: Swap, late: list[str], age_s: float) -> None:
        times = sum(age_s >= limit for limit in LATE_S)
        if times <= self._told.get(swap.id, 0):
            return
        self._told[swap.id] = times
        log.log(
            logging.ERROR if times == len(LATE_S) else logging.WARNING,
            "swap_degraded",
            extra=facts(model=swap.model, generation=swap.generation, replicas=late, seconds=round(age_s, 1)),
        )
        self._late(swap.model)


def _state(conn: Connection, swap: Swap) -> tuple[dict[str, datetime], datetime | None]:
    """Return the live replicas that are late with their starts, and when the last of the others switched.

    A replica that was started after the commit came up on the champion: it is no part of the mixed window, unless it
    is late, too. With no live replica at all nobody has switched yet.
    """
    live = {replica.id: replica for replica in replicas.live(conn, LIVE_S)}
    held = {row.replica_id: row for row in replicas.serving(conn, swap.model) if row.replica_id in live}
    generation = swap.generation or 0
    late = {
        name: replica.started_at
        for name, replica in live.items()
        if name not in held or (held[name].generation or 0) < generation
    }
    if late or not live:
        return late, None
    moments = [
        row.bound_at or row.at
        for name, row in held.items()
        if swap.ended_at is None or live[name].started_at <= swap.ended_at
    ]
    return {}, max(moments, default=swap.ended_at)
