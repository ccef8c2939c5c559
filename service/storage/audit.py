"""The audit: who changed what and why, each row chained to the one before it by a digest."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select, update

from service.storage.database import insert_new
from service.storage.tables import audit, audit_head

__all__ = ["AuditRow", "append", "list_of", "verify"]

_HEAD = 1
_START = "0" * 64


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """One change."""

    seq: int
    at: datetime
    actor: str
    action: str
    model: str | None
    subject: str | None
    reason: str
    facts: dict[str, Any]
    digest: str


def append(
    conn: Connection,
    *,
    actor: str,
    action: str,
    model: str | None,
    subject: str | None,
    reason: str,
    at: datetime,
    facts: Mapping[str, Any] | None = None,
) -> AuditRow:
    """Write one row in the caller's transaction; the head's row is the lock that keeps the chain in order."""
    insert_new(conn, audit_head, id=_HEAD, seq=0, digest=_START)
    head = conn.execute(select(audit_head).where(audit_head.c.id == _HEAD).with_for_update()).one()
    values: dict[str, Any] = {
        "seq": head.seq + 1,
        "at": at.astimezone(UTC),
        "actor": actor,
        "action": action,
        "model": model,
        "subject": subject,
        "reason": reason,
        "facts": dict(facts or {}),
    }
    row = AuditRow(**values, digest=_digest(values, head.digest))
    conn.execute(audit.insert().values(**values, digest=row.digest))
    conn.execute(update(audit_head).where(audit_head.c.id == _HEAD).values(seq=row.seq, digest=row.digest))
    return row


def list_of(
    conn: Connection, model: str | None = None, *, limit: int = 100, before: int | None = None
) -> list[AuditRow]:
    """Return the newest rows first; `before` is the seq to go on from."""
    query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
    if model is not None:
        query = query.where(audit.c.model == model)
    if before is not None:
        query = query.where(audit.c.seq < before)
    return [AuditRow(**row) for row in conn.execute(query).mappings()]


def verify(conn: Connection) -> int | None:
    """Return the seq of the first row that was altered or is missing; None if the chain is whole."""
    digest, expected = _START, 1
    for row in conn.execute(select(audit).order_by(audit.c.seq)).mappings():
        values = dict(row)
        found = values.pop("digest")
        digest = _digest(values, digest)
        if values["seq"] != expected or found != digest:
            return expected
        expected += 1
    head = conn.execute(select(audit_head).where(audit_head.c.id == _HEAD)).one_or_none()
    if head is None:
        return None if expected == 1 else expected
    return None if (head.seq, head.digest) == (expected - 1, digest) else expected


def _digest(values: Mapping[str, Any], before: str) -> str:
    content = {**values, "at": values["at"].isoformat(timespec="microseconds"), "facts": _plain(values["facts"])}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return `value` with every number as a float: PostgreSQL's JSON gives 1e20 back as an integer."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    number = float(value) + 0.0  # no negative zero
    return number if number - number == 0.0 else None  # not finite: stored as null
