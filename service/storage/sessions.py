"""Sessions: who has signed in with a key in a browser. Only a digest of the cookie's value is stored."""

import secrets
from datetime import timedelta

from sqlalchemy import Connection, delete, select

from service.domain.access import digest_of
from service.storage.database import now
from service.storage.tables import sessions

__all__ = ["LASTS", "begin", "close", "find"]

LASTS = timedelta(hours=12)
_BYTES = 32


def begin(conn: Connection, key_id: str, *, lasts: timedelta = LASTS) -> str:
    """Begin a session of the key; return its token, which is stored nowhere. Sessions that are over are swept."""
    at = now(conn)
    conn.execute(delete(sessions).where(sessions.c.expires_at <= at))
    token = secrets.token_urlsafe(_BYTES)
    conn.execute(sessions.insert().values(digest=_digest(token), key_id=key_id, created_at=at, expires_at=at + lasts))
    return token


def find(conn: Connection, token: str) -> str | None:
    """Return the id of the key whose session it is; None if there is none, or it is over."""
    query = select(sessions.c.key_id).where(sessions.c.digest == _digest(token), sessions.c.expires_at > now(conn))
    found: str | None = conn.scalar(query)
    return found


def close(conn: Connection, token: str) -> None:
    """End a session; twice is once."""
    conn.execute(delete(sessions).where(sessions.c.digest == _digest(token)))


def _digest(token: str) -> str:
    return digest_of(token.encode()).hex()
