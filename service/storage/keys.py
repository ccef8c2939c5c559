"""API keys: made, listed, revoked. A key's text is told once and stored nowhere; its digest is."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, RowMapping, func, or_, select, update

from service.domain.access import ID_BYTES, SECRET_BYTES, Role, digest_of, id_of, key_of
from service.domain.check import SCHEDULE
from service.domain.errors import InvalidRequest, NotAllowedNow, UnknownKey
from service.storage import audit
from service.storage.database import Database, insert_new, now
from service.storage.tables import keys

__all__ = ["LONGEST", "NOBODY", "KeyRow", "create", "exist", "followed", "list_of", "revoke", "touch", "were_made_in"]

LONGEST = 64
"""Characters of a name."""
MOST = 1000
"""Keys that may be valid at a time: every worker holds all of them."""
REMEMBERED = timedelta(days=7)
"""So long whoever uses a revoked key is told that it was; later it is one that nobody knows."""
NOBODY = frozenset({"operator", "console", "controller", "trainer", SCHEDULE})
"""Actors that are no keys: the audit must not confuse them with one."""


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """One key, without what opens anything."""

    id: str
    name: str
    roles: tuple[Role, ...]
    digest: str = field(repr=False)
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def create(
    conn: Connection,
    name: str,
    *,
    roles: Iterable[Role],
    expires_at: datetime | None,
    actor: str,
    reason: str,
) -> tuple[KeyRow, str]:
    """Make a key; return its row and its text, which nobody can find again.

    Raises
    ------
    InvalidRequest
        If the name is no name, there is no role, or the key would be over at once.
    NotAllowedNow
        If a valid key has that name, or there are too many.
    """
    at, given = now(conn), tuple(sorted(set(roles), key=list(Role).index))
    _check(name, given, at, expires_at)
    if (conn.scalar(select(func.count()).select_from(keys).where(keys.c.revoked_at.is_(None))) or 0) >= MOST:
        msg = f"there are {MOST} keys already: revoke some first"
        raise NotAllowedNow(msg)
    text = key_of(secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES))
    row = KeyRow(
        id=id_of(text), name=name, roles=given, digest=digest_of(text.encode()).hex(), created_at=at, created_by=actor,
        expires_at=expires_at, revoked_at=None, last_used_at=None,
    )  # fmt: skip
    values = {column: getattr(row, column) for column in KeyRow.__dataclass_fields__}
    if not insert_new(conn, keys, **values | {"roles": [role.value for role in given]}):
        msg = f"there is a key named {name} already: revoke it first, or choose another name"
        raise NotAllowedNow(msg, name=name)
    facts = {"name": name, "roles": [role.value for role in given], "expires_at": expires_at and expires_at.isoformat()}
    audit.append(conn, actor=actor, action="key_created", model=None, subject=row.id, reason=reason, facts=facts, at=at)
    return row, text


def revoke(conn: Connection, wanted: str, *, actor: str, reason: str) -> KeyRow:
    """Take a key back; twice changes nothing.

    Parameters
    ----------
    wanted
        Its id, or the name of a key that is valid.

    Raises
    ------
    UnknownKey
        If there is none.
    """
    found = conn.execute(select(keys).where(keys.c.id == wanted)).mappings().one_or_none()
    if found is None:
        named = select(keys).where(keys.c.name == wanted, keys.c.revoked_at.is_(None))
        found = conn.execute(named).mappings().one_or_none()
    if found is None:
        msg = "no key has that id, and no valid one that name"
        raise UnknownKey(msg)
    key_id, at = found["id"], now(conn)
    is_changed = update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=at)
    if conn.execute(is_changed).rowcount:
        audit.append(
            conn, actor=actor, action="key_revoked", model=None, subject=key_id, reason=reason,
            facts={"name": found["name"]}, at=at,
        )  # fmt: skip
    return _row(conn.execute(select(keys).where(keys.c.id == key_id)).mappings().one())


def list_of(conn: Connection) -> list[KeyRow]:
    """Return all keys there ever were, the newest first."""
    return [_row(row) for row in conn.execute(select(keys).order_by(keys.c.created_at.desc(), keys.c.id)).mappings()]


def followed(conn: Connection) -> list[KeyRow]:
    """Return the keys that a worker must know: those not revoked, and those that were lately."""
    since = now(conn) - REMEMBERED
    query = select(keys).where(or_(keys.c.revoked_at.is_(None), keys.c.revoked_at > since))
    return [_row(row) for row in conn.execute(query).mappings()]


def exist(conn: Connection) -> bool:
    """Return whether a key was ever made: from then on the service asks for one, whatever became of it."""
    return conn.execute(select(keys.c.id).limit(1)).first() is not None


def were_made_in(database: Database) -> bool:
    """Return the same of a database that may have no tables yet; raises DatabaseUnavailable."""
    if database.engine.dialect.name == "sqlite" and not Path(str(database.engine.url.database)).exists():
        return False
    with database.read() as conn:
        return conn.dialect.has_table(conn, keys.name) and exist(conn)


def touch(conn: Connection, used: Sequence[str]) -> None:
    """Note that the keys were used just now."""
    conn.execute(update(keys).where(keys.c.id.in_(used)).values(last_used_at=now(conn)))


def _check(name: str, roles: Sequence[Role], at: datetime, expires_at: datetime | None) -> None:
    if not 0 < len(name) <= LONGEST or not name.isprintable() or name != name.strip():
        msg = f"a key's name is 1 to {LONGEST} printable characters, with no space at its ends"
        raise InvalidRequest(msg)
    if name in NOBODY:
        msg = f"the audit calls the service itself {name}: choose another name"
        raise InvalidRequest(msg)
    if not roles:
        msg = f"name at least one role: {', '.join(Role)}"
        raise InvalidRequest(msg)
    if expires_at is not None and expires_at <= at:
        msg = "the key would have expired already"
        raise InvalidRequest(msg)


def _row(row: RowMapping) -> KeyRow:
    return KeyRow(**{**row, "roles": tuple(Role(role) for role in row["roles"])})
