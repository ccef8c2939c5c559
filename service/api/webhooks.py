"""Webhook deliveries: what was told to whom, what was given up, and sending it once more."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel

from service.api.access import Asker
from service.api.asking import StateRoute
from service.api.shapes import Reason
from service.domain.notice import DeliveryState
from service.storage import outbox
from service.storage.database import Database

__all__ = ["router"]


class Told(BaseModel):
    """One event on its way to one endpoint."""

    id: str
    endpoint: str
    """Its host and a digest of its address, which may hold a token."""
    state: DeliveryState
    tries: int
    next_at: datetime | None
    """When it is tried next."""
    tried_at: datetime | None
    status: int | None
    """What the endpoint answered last."""
    error: str | None
    ended_at: datetime | None
    event: str
    """The event's id, the same each time that it is sent."""
    type: str
    model: str
    subject: str
    time: datetime
    data: dict[str, Any]


class Deliveries(BaseModel):
    """Deliveries, those of the newest events first."""

    deliveries: list[Told]


def router(database: Database) -> APIRouter:
    """Return the routes."""
    api = APIRouter(prefix="/v1/webhooks", route_class=StateRoute, tags=["webhooks"])

    @api.get(
        "/deliveries",
        summary="What was told to webhooks, and what is still to be told",
        description="state=dead lists what was given up: after too many tries, at an endpoint's own word (410), or "
        "because it is configured no more.",
    )
    def list_deliveries(
        state: DeliveryState | None = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
        before: Annotated[str | None, Query(max_length=64, description="Only those before this id.")] = None,
    ) -> Deliveries:
        with database.read() as conn:
            found = outbox.list_of(conn, state=state, limit=limit, before=before)
        return Deliveries(deliveries=[_told(one) for one in found])

    @api.post(
        "/deliveries/{delivery_id}/resend",
        status_code=202,
        summary="Send an event to its endpoint once more",
        description="The same event under the same id, with all its tries before it; whoever has it already can tell.",
    )
    def resend(delivery_id: str, asker: Asker, why: Annotated[Reason, Body(default_factory=Reason)]) -> Told:
        with database.write(origin=asker.origin) as conn:
            return _told(outbox.resend(conn, delivery_id, actor=asker.actor, reason=why.reason, at=database.now(conn)))

    return api


def _told(one: outbox.Delivery) -> Told:
    notice = one.notice
    return Told(
        id=one.id, endpoint=one.endpoint, state=one.state, tries=one.tries,
        next_at=one.next_at if one.state is DeliveryState.WAITING else None,
        tried_at=one.tried_at, status=one.status, error=one.error, ended_at=one.ended_at,
        event=notice.id, type=notice.kind.type, model=notice.model, subject=notice.subject, time=notice.at,
        data=notice.data,
    )  # fmt: skip
