"""The audit: who changed what, from where and why, each row chained to the one before it by a digest.

The database's own triggers refuse to alter or remove a row. Who can drop triggers can still rewrite rows, and then the
chain shows it; who rewrites the whole chain from there on is found out by a head that was written down elsewhere.
"""

import hashlib
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select, update

from service.storage.database import insert_new, origin_of
from service.storage.tables import audit, audit_head

__all__ = ["AuditRow", "Examined", "Finding", "append", "examine", "list_of", "verify"]

_HEAD = 1
_START = "0" * 64
_FETCHED = 1000
_REMEMBERED = 16
"""Digests of odd rows, with which those that follow are compared."""


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
    origin: dict[str, Any] | None = None
    """From where: ``via``, and the ``address`` and ``key`` id where there are some; None: the service by itself."""


@dataclass(frozen=True)
class Finding:
    """A place where the chain is broken."""

    seq: int
    words: str


@dataclass(frozen=True)
class Examined:
    """What a look at the whole chain showed."""

    rows: int
    head: str
    """``seq:digest`` of the newest row; written down elsewhere it proves later that nothing before it changed."""
    findings: list[Finding]


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
    """Write one row in the caller's transaction; the head's row is the lock that keeps the chain in order.

    From where it comes the transaction knows: see `Database.write`.
    """
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
        "origin": origin_of(conn),
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
    return next((finding.seq for finding in examine(conn).findings), None)


def examine(conn: Connection, *, anchors: Mapping[int, str] | None = None) -> Examined:
    """Look at every row.

    Parameters
    ----------
    anchors
        Digests of rows by their number, as they were once: they show a chain that was rewritten as a whole.
    """
    chain, wanted = _Chain(), dict(anchors or {})
    query = select(audit).order_by(audit.c.seq).execution_options(yield_per=_FETCHED)
    for row in conn.execute(query).mappings():
        chain.add(dict(row))
        if wanted.pop(row["seq"], row["digest"]) != row["digest"]:
            chain.found(row["seq"], "is another one than when its digest was written down: the chain was rewritten")
    head = conn.execute(select(audit_head).where(audit_head.c.id == _HEAD)).one_or_none()
    chain.end(0 if head is None else head.seq, _START if head is None else head.digest)
    for seq in sorted(wanted):
        chain.found(seq, "is gone, and was there when its digest was written down")
    return Examined(chain.rows, f"{chain.seq}:{chain.digest}", chain.findings)


class _Chain:
    """Follows the rows in their order."""

    def __init__(self) -> None:
        self.rows, self.seq, self.digest = 0, 0, _START
        self.findings: list[Finding] = []
        self._odd: deque[str] = deque(maxlen=_REMEMBERED)

    def found(self, seq: int, words: str) -> None:
        """Note a place."""
        self.findings.append(Finding(seq, words))

    def add(self, row: Mapping[str, Any]) -> None:
        """Compare a row with the one before it."""
        seq, before = int(row["seq"]), self.digest
        values = {name: value for name, value in row.items() if name != "digest"}
        if seq != self.seq + 1:
            self.found(self.seq + 1, "is gone" if seq == self.seq + 2 else f"is gone, and so are all up to {seq - 1}")
            # What came before it is not known any more, so the row after a gap can't be judged by itself.
        # One that follows the digest of a row that was moved away is itself as it was written.
        elif not any(_digest(values, known) == row["digest"] for known in (before, *self._odd)):
            self.found(seq, "was altered, or stood in another place")
            self._odd.append(row["digest"])
        # The stored digest leads on: one altered row must not make all that follow it look altered.
        self.rows, self.seq, self.digest = self.rows + 1, seq, row["digest"]

    def end(self, seq: int, digest: str) -> None:
        """Compare the last row with the head."""
        if self.seq < seq:
            self.found(self.seq + 1, f"is gone (the newest was row {seq})")
        elif (self.seq, self.digest) != (seq, digest):
            self.found(self.seq if self.seq == seq else seq + 1, "is not what the chain ended with")


def _digest(values: Mapping[str, Any], before: str) -> str:
    content = {**values, "at": values["at"].isoformat(timespec="microseconds"), "facts": _plain(values["facts"])}
    if content.get("origin") is None:
        content.pop("origin", None)  # rows of the first releases were chained without
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
