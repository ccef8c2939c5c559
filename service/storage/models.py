"""Models as the database knows them, and the switches an operator sets on them."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import Connection, delete, or_, select

from service.domain.policy import Drift, Gate, Probation, Quality, Recording, Retention, Retrain, Training
from service.domain.spec import unknown_model
from service.storage.database import insert_into, now
from service.storage.tables import models
from service.storage.tables import switches as switches_table

__all__ = [
    "ModelRow",
    "Policy",
    "Switch",
    "clear_switch",
    "find",
    "get",
    "list_all",
    "mark_broken",
    "policy_of",
    "register",
    "set_switch",
    "switches",
]

Policy = TypeVar("Policy", Drift, Gate, Probation, Quality, Recording, Retention, Retrain, Training)
_KINDS: tuple[type[Any], ...] = (Drift, Gate, Probation, Quality, Recording, Retention, Retrain, Training)
_ADAPTERS = {kind: TypeAdapter(kind) for kind in _KINDS}


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One registered model."""

    name: str
    spec: dict[str, Any] | None
    """Resolved: task, metric, schema, policies, source. None while its file has never been usable."""
    spec_digest: str | None
    file: str | None
    error: str | None
    """Why the file can't be used now; the champion serves on."""
    registered_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class Switch:
    """Something an operator, or a quarantine, has set on a model."""

    model: str
    name: str
    value: Any
    actor: str
    reason: str
    at: datetime
    expires_at: datetime | None


def register(conn: Connection, name: str, *, spec_json: dict[str, Any], file: str, at: datetime) -> ModelRow:
    """Write the model's resolved spec, clear its error, and return its row."""
    text = json.dumps(spec_json, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    values = {"spec": spec_json, "spec_digest": digest, "file": file, "error": None}
    old = find(conn, name)
    if old is not None and (old.spec_digest, old.file, old.error) == (digest, file, None):
        return old  # nothing changed: a controller that starts must not look like an edit
    conn.execute(
        insert_into(conn, models)
        .values(name=name, registered_at=at, updated_at=at, **values)
        .on_conflict_do_update(index_elements=["name"], set_={**values, "updated_at": at})
    )
    return get(conn, name)


def mark_broken(conn: Connection, name: str, error: str, file: str, *, at: datetime) -> ModelRow:
    """Note why the model's file can't be used; what was known of it stays."""
    values = {"error": error, "file": file, "updated_at": at}
    conn.execute(
        insert_into(conn, models)
        .values(name=name, registered_at=at, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )
    return get(conn, name)


def find(conn: Connection, name: str) -> ModelRow | None:
    """Return the model, or None."""
    row = conn.execute(select(models).where(models.c.name == name)).mappings().one_or_none()
    return None if row is None else ModelRow(**row)


def get(conn: Connection, name: str) -> ModelRow:
    """Return the model.

    Raises
    ------
    UnknownModel
        If no model of that name is registered.
    """
    row = find(conn, name)
    if row is None:
        raise unknown_model(name)
    return row


def list_all(conn: Connection) -> list[ModelRow]:
    """Return all models by name."""
    return [ModelRow(**row) for row in conn.execute(select(models).order_by(models.c.name)).mappings()]


def policy_of(row: ModelRow | None, kind: type[Policy]) -> Policy:
    """Return the model's policy of that kind as it was registered; the default where none was.

    Raises
    ------
    pydantic.ValidationError
        If what was registered can't be understood: a newer release wrote it.
    """
    registered = ((None if row is None else row.spec) or {}).get("policies") or {}
    found: Policy = _ADAPTERS[kind].validate_python(registered.get(kind.__name__.lower()) or {})
    return found


def set_switch(
    conn: Connection,
    model: str,
    name: str,
    *,
    value: Any,
    actor: str,
    reason: str,
    at: datetime,
    expires_at: datetime | None = None,
) -> Switch:
    """Set a switch, or set it anew."""
    get(conn, model)
    values = {"value": value, "actor": actor, "reason": reason, "at": at, "expires_at": expires_at}
    conn.execute(
        insert_into(conn, switches_table)
        .values(model=model, name=name, **values)
        .on_conflict_do_update(index_elements=["model", "name"], set_=values)
    )
    return Switch(model=model, name=name, value=value, actor=actor, reason=reason, at=at, expires_at=expires_at)


def clear_switch(conn: Connection, model: str, name: str) -> bool:
    """Clear a switch; return whether it was set."""
    c = switches_table.c
    return conn.execute(delete(switches_table).where(c.model == model, c.name == name)).rowcount > 0


def switches(conn: Connection, model: str) -> dict[str, Switch]:
    """Return the model's switches by name; those that have expired, by the database's clock, are absent."""
    c = switches_table.c
    query = select(switches_table).where(c.model == model, or_(c.expires_at.is_(None), c.expires_at > now(conn)))
    return {row["name"]: Switch(**row) for row in conn.execute(query).mappings()}
