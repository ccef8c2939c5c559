"""The outbox: which notice is still to be told to which endpoint, when, and how often it was tried.

All times are the database's own. A delivery is marked only after its endpoint has answered: who dies in between leaves
it waiting, and it is sent again, under the same id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, exists, func, select, tuple_, update

from service.domain.errors import UnknownDelivery
from service.domain.notice import DeliveryState, Kind
from service.storage import audit
from service.storage.database import insert_new
from service.storage.ids import new_id
from service.storage.notices import Notice
from service.storage.tables import deliveries, notices

__all__ = ["Delivery", "counts", "due", "forget", "get", "has_work", "list_of", "mark", "resend", "spread"]

ROUND = 100
"""Notices that are spread in one transaction."""
GONE = "no endpoint of that address is configured any more"

d = deliveries.c


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One notice on its way to one endpoint."""

    id: str
    endpoint: str
    state: DeliveryState
    tries: int
    next_at: datetime
    """When it is tried next, while it waits."""
    tried_at: datetime | None
    status: int | None
    """What the endpoint answered last."""
    error: str | None
    ended_at: datetime | None
    notice: Notice


def has_work(conn: Connection, endpoints: Sequence[str]) -> bool:
    """Return whether there is something to `spread`."""
    is_new = exists().where(notices.c.spread.is_(False))
    is_strange = exists().where(d.state == DeliveryState.WAITING.value, d.endpoint.not_in(endpoints))
    return bool(conn.scalar(select(is_new | is_strange)))


def spread(conn: Connection, endpoints: Sequence[str], *, at: datetime) -> int:
    """Make a delivery to each endpoint of each notice that has none; return how many notices were new.

    What still waits for an endpoint that is configured no more is dead.
    """
    found = conn.scalars(
        select(notices.c.id).where(notices.c.spread.is_(False)).order_by(notices.c.at, notices.c.id).limit(ROUND)
    ).all()
    for notice_id in found:
        for endpoint in endpoints:
            insert_new(
                conn,
                deliveries,
                id=new_id(),
                notice_id=notice_id,
                endpoint=endpoint,
                state=DeliveryState.WAITING.value,
                tries=0,
                next_at=at,
            )
    if found:
        conn.execute(update(notices).where(notices.c.id.in_(found)).values(spread=True))
    strange = update(deliveries).where(d.state == DeliveryState.WAITING.value, d.endpoint.not_in(endpoints))
    conn.execute(strange.values(state=DeliveryState.DEAD.value, error=GONE, ended_at=at))
    return len(found)


def due(conn: Connection, endpoint: str, *, at: datetime, limit: int) -> list[Delivery]:
    """Return what is to be sent to the endpoint now, the oldest first."""
    query = _joined().where(d.endpoint == endpoint, d.state == DeliveryState.WAITING.value, d.next_at <= at)
    return [_delivery(row) for row in conn.execute(query.order_by(d.next_at, d.id).limit(limit)).mappings()]


def mark(
    conn: Connection,
    delivery: Delivery,
    state: DeliveryState,
    *,
    at: datetime,
    status: int | None,
    error: str | None,
    pause: timedelta = timedelta(),
) -> None:
    """Write what became of one try. One that was asked to be sent again meanwhile stays as it is."""
    query = update(deliveries).where(d.id == delivery.id, d.state == DeliveryState.WAITING.value)
    conn.execute(
        query.where(d.tries == delivery.tries).values(
            state=state.value,
            tries=delivery.tries + 1,
            tried_at=at,
            next_at=at + pause,
            status=status,
            error=error,
            ended_at=None if state is DeliveryState.WAITING else at,
        )
    )


def resend(conn: Connection, delivery_id: str, *, actor: str, reason: str, at: datetime) -> Delivery:
    """Have a delivery sent once more, whatever became of it: the same event under the same id.

    Raises
    ------
    UnknownDelivery
        If no delivery has that id.
    """
    before = get(conn, delivery_id)
    conn.execute(
        update(deliveries)
        .where(d.id == delivery_id)
        .values(state=DeliveryState.WAITING.value, tries=0, next_at=at, ended_at=None)
    )
    audit.append(
        conn,
        actor=actor,
        action="delivery_resent",
        model=before.notice.model,
        subject=delivery_id,
        reason=reason,
        facts={"event": before.notice.id, "endpoint": before.endpoint, "before": before.state.value},
        at=at,
    )
    return get(conn, delivery_id)


def get(conn: Connection, delivery_id: str) -> Delivery:
    """Return the delivery.

    Raises
    ------
    UnknownDelivery
        If no delivery has that id.
    """
    row = conn.execute(_joined().where(d.id == delivery_id)).mappings().one_or_none()
    if row is None:
        msg = "no delivery has that id"
        raise UnknownDelivery(msg)
    return _delivery(row)


def list_of(
    conn: Connection, *, state: DeliveryState | None = None, limit: int = 100, before: str | None = None
) -> list[Delivery]:
    """Return the newest notices' deliveries first; `before` is the id to go on from."""
    place = (notices.c.at, d.id)
    query = _joined().order_by(*(column.desc() for column in place)).limit(limit)
    if state is not None:
        query = query.where(d.state == state.value)
    if before is not None:
        last = select(*place).join_from(deliveries, notices).where(d.id == before)
        query = query.where(tuple_(*place) < last.scalar_subquery())
    return [_delivery(row) for row in conn.execute(query).mappings()]


def counts(conn: Connection) -> dict[DeliveryState, int]:
    """Return how many wait, and how many were given up."""
    wanted = (DeliveryState.WAITING, DeliveryState.DEAD)
    query = select(d.state, func.count()).where(d.state.in_([state.value for state in wanted])).group_by(d.state)
    found = {state: count for state, count in conn.execute(query)}  # noqa: C416  rows are no pairs to mypy
    return {state: found.get(state.value, 0) for state in wanted}


def forget(conn: Connection, *, before: datetime) -> int:
    """Remove notices of before then that nothing waits for any more; return how many."""
    waits = exists().where(d.notice_id == notices.c.id, d.state == DeliveryState.WAITING.value)
    old = select(notices.c.id).where(notices.c.at < before, notices.c.spread.is_(True), ~waits).limit(ROUND)
    found = conn.scalars(old).all()
    if found:
        conn.execute(deliveries.delete().where(d.notice_id.in_(found)))
        conn.execute(notices.delete().where(notices.c.id.in_(found)))
    return len(found)


def _joined() -> Select[Any]:
    told = (notices.c.kind, notices.c.model, notices.c.subject, notices.c.at, notices.c.data)
    return select(deliveries, *told).join_from(deliveries, notices)


def _delivery(row: Any) -> Delivery:
    values = dict(row)
    told = {name: values.pop(name) for name in ("model", "subject", "at", "data")}
    notice = Notice(id=values.pop("notice_id"), kind=Kind(values.pop("kind")), **told)
    return Delivery(**{**values, "state": DeliveryState(values["state"])}, notice=notice)
