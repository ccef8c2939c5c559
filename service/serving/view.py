"""The view: what one look at the database shows a replica."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from service.serving.keyring import Ring
from service.storage import champions, keys, models
from service.storage.champions import Champion, Swap
from service.storage.database import Database
from service.storage.database import now as database_now

__all__ = ["View", "seen"]


@dataclass(frozen=True)
class View:
    """Who is registered, who is champion, and what waits."""

    names: list[str]
    recording: dict[str, str]
    """What each model's spec says of answers that can't be written down."""
    champions: list[Champion]
    swaps: list[Swap]
    ring: Ring
    """The keys that requests come with."""


def seen(database: Database) -> View:
    """Return what the database shows now; raises DatabaseUnavailable."""
    with database.read() as conn:
        known = models.list_all(conn)
        return View(
            names=[row.name for row in known],
            recording={row.name: _when_full(row.spec) for row in known},
            champions=champions.all_current(conn),
            swaps=champions.waiting(conn),
            ring=_ring(conn),
        )


def _ring(conn: Connection) -> Ring:
    rows = keys.followed(conn)
    return Ring(database_now(conn), bool(rows) or keys.exist(conn), rows)


def _when_full(spec: dict[str, Any] | None) -> str:
    policies = (spec or {}).get("policies") or {}
    return str((policies.get("recording") or {}).get("when_full", "refuse"))
