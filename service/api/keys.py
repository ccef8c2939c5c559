"""What an admin may ask for: keys. A key's text stands in one answer only, that to its making."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, field_validator

from service.api.access import Asker
from service.api.asking import StateRoute
from service.api.shapes import Reason
from service.domain.access import Role
from service.domain.duration import parse_duration
from service.storage import keys
from service.storage.database import Database
from service.storage.keys import KeyRow

__all__ = ["router"]


LONGEST = timedelta(days=36_500)


class NewKey(Reason):
    """A key that is to be made."""

    name: Annotated[str, Field(min_length=1, max_length=keys.LONGEST)]
    roles: Annotated[list[Annotated[Role, Field(strict=False)]], Field(min_length=1)]
    expires_in: Annotated[str | None, Field(max_length=16, examples=["90d"])] = None
    """How long it is good for; without it, until it is revoked."""

    @field_validator("expires_in")
    @classmethod
    def _duration(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                is_known = parse_duration(text) <= LONGEST
            except (ValueError, OverflowError):
                is_known = False
            if not is_known:
                msg = f"write a duration up to {LONGEST.days}d, such as 90d or 12h"
                raise ValueError(msg)
        return text

    @property
    def lasts(self) -> timedelta | None:
        """The same as a duration."""
        return None if self.expires_in is None else parse_duration(self.expires_in)


class Key(BaseModel):
    """A key, without what opens anything."""

    id: str
    name: str
    roles: list[Role]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class MadeKey(Key):
    """A key that was just made."""

    key: Annotated[str, Field(repr=False)]
    """Its text, which nobody can show again."""


class Keys(BaseModel):
    """All keys there ever were."""

    keys: list[Key]


def router(database: Database) -> APIRouter:
    """Return the admin's routes."""
    api = APIRouter(prefix="/v1", route_class=StateRoute, tags=["keys"])

    @api.get("/keys", summary="All keys, the newest first; what opens anything is not among it")
    def list_keys() -> Keys:
        with database.read() as conn:
            return Keys(keys=[Key(**_plain(row)) for row in keys.list_of(conn)])

    @api.post("/keys", status_code=201, summary="Make a key; its text is told here and never again")
    def create_key(wanted: NewKey, asker: Asker) -> MadeKey:
        with database.write(origin=asker.origin) as conn:
            expires_at = None if wanted.lasts is None else database.now(conn) + wanted.lasts
            row, text = keys.create(
                conn, wanted.name, roles=wanted.roles, expires_at=expires_at, actor=asker.actor, reason=wanted.reason
            )
        return MadeKey(**_plain(row), key=text)

    @api.delete("/keys/{key_id}", status_code=204, summary="Revoke a key; every worker refuses it within seconds")
    def revoke_key(
        key_id: str,
        asker: Asker,
        reason: Annotated[str, Query(min_length=1, max_length=2000)] = "asked over HTTP",
    ) -> None:
        with database.write(origin=asker.origin) as conn:
            keys.revoke(conn, key_id, actor=asker.actor, reason=reason)

    return api


def _plain(row: KeyRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Key.model_fields}
