"""Leases: who leads. The database's clock decides; a token that only grows keeps a stale leader from writing."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from service.domain.errors import LeaseLost
from service.storage.database import insert_new, now
from service.storage.tables import leases

__all__ = ["Lease", "acquire", "holder", "release", "renew", "verify"]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A lease as it was granted."""

    name: str
    owner: str
    token: int
    expires_at: datetime


def acquire(conn: Connection, name: str, owner: str, ttl_s: float) -> Lease | None:
    """Return the lease if it was free, or is this owner's already; None while another one holds it.

    The token grows with each new term: also when the same owner takes the lease again after letting it expire, for
    what it did meanwhile was not covered.
    """
    moment = now(conn)
    first = Lease(name=name, owner=owner, token=1, expires_at=moment + timedelta(seconds=ttl_s))
    if insert_new(conn, leases, name=name, owner=owner, token=first.token, expires_at=first.expires_at):
        return first
    row = conn.execute(select(leases).where(leases.c.name == name).with_for_update()).one()
    moment = now(conn)  # again: the wait for the row may have been long
    is_held = row.expires_at > moment
    if is_held and row.owner != owner:
        return None
    token = row.token if is_held else row.token + 1
    lease = Lease(name=name, owner=owner, token=token, expires_at=moment + timedelta(seconds=ttl_s))
    conn.execute(
        update(leases).where(leases.c.name == name).values(owner=owner, token=token, expires_at=lease.expires_at)
    )
    return lease


def renew(conn: Connection, lease: Lease, ttl_s: float) -> Lease:
    """Extend the lease.

    Raises
    ------
    LeaseLost
        If another term has begun. One that has expired but was taken by nobody is extended: its token is the newest.
    """
    expires_at = now(conn) + timedelta(seconds=ttl_s)
    query = update(leases).where(
        leases.c.name == lease.name, leases.c.owner == lease.owner, leases.c.token == lease.token
    )
    if not conn.execute(query.values(expires_at=expires_at)).rowcount:
        raise _lost(conn, lease.name, lease.token)
    return Lease(name=lease.name, owner=lease.owner, token=lease.token, expires_at=expires_at)


def release(conn: Connection, lease: Lease) -> None:
    """Give the lease back; nothing happens if it is no longer held. The row stays, so that the token grows on."""
    query = update(leases).where(
        leases.c.name == lease.name, leases.c.owner == lease.owner, leases.c.token == lease.token
    )
    conn.execute(query.values(expires_at=now(conn)))


def verify(conn: Connection, name: str, token: int) -> None:
    """Raise unless `token` is the newest; the row is locked, so that it stays the newest until the commit.

    Raises
    ------
    LeaseLost
        If another term has begun.
    """
    found = conn.scalar(select(leases.c.token).where(leases.c.name == name).with_for_update(read=True))
    if found != token:
        raise _lost(conn, name, token)


def holder(conn: Connection, name: str) -> Lease | None:
    """Return the lease as it stands, expired or not; None if it was never taken."""
    row = conn.execute(select(leases).where(leases.c.name == name)).mappings().one_or_none()
    return None if row is None else Lease(**row)


def _lost(conn: Connection, name: str, token: int) -> LeaseLost:
    found = holder(conn, name)
    newest = found.token if found else None
    msg = f"the lease {name!r} has gone to another: its token is {newest}, this one's {token}"
    return LeaseLost(msg, lease=name, token=token, newest=newest)
