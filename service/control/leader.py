"""Who leads: a lease in the database with a token that grows. Without the newest token nothing is written.

The database's clock decides, so hosts whose clocks differ agree. A leader that cannot renew stops by itself before its
lease can have gone to another.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from service.domain.errors import DatabaseUnavailable, LeaseLost
from service.journal import facts
from service.storage import leases
from service.storage.database import Database
from service.storage.ids import new_id

__all__ = ["LEASE", "Leader", "Term"]

log = logging.getLogger(__name__)

LEASE = "controller"
TTL_S = 10.0
"""A dead leader is followed after at most this and one `RENEW_S`."""
RENEW_S = 2.0


class Term:
    """One term of leadership: the right to write, for as long as its token is the newest.

    Parameters
    ----------
    database
        Where to write.
    token
        The fencing token of the term.
    """

    def __init__(self, database: Database, token: int) -> None:
        self.database = database
        self.token = token

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection in one transaction that only commits while the token is the newest.

        Raises
        ------
        LeaseLost
            If another term has begun; nothing is written then.
        """
        with self.database.write() as connection:
            leases.verify(connection, LEASE, self.token)
            yield connection


class Leader:
    """Takes, renews and gives back the lease.

    Parameters
    ----------
    database
        Where the lease stands.
    owner
        A name that no other process has; made from host, process and a fresh id when left out.
    monotonic
        Seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str | None = None,
        ttl_s: float = TTL_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}:{new_id()[-12:]}"
        self._database = database
        self._ttl_s = ttl_s
        self._monotonic = monotonic
        self._lease: leases.Lease | None = None
        self._sure_until = 0.0

    @property
    def term(self) -> Term | None:
        """The present term; None while another one leads, or while this one cannot be sure that it still does."""
        lease = self._lease
        if lease is None or self._monotonic() >= self._sure_until:
            return None
        return Term(self._database, lease.token)

    def step(self) -> Term | None:
        """Renew the lease or try to take it; call it every `RENEW_S`."""
        asked = self._monotonic()
        try:
            with self._database.write() as connection:
                found = self._renewed(connection) or leases.acquire(connection, LEASE, self.owner, self._ttl_s)
        except DatabaseUnavailable as error:
            log.warning("lease_not_renewed", extra=facts(why=error.detail))
            return self.term
        if found is not None and (self._lease is None or found.token != self._lease.token):
            log.info("leading", extra=facts(owner=self.owner, token=found.token))
        elif found is None and self._lease is not None:
            log.warning("lease_lost", extra=facts(owner=self.owner, token=self._lease.token))
        self._lease = found
        self._sure_until = asked + self._ttl_s
        return self.term

    def resign(self) -> None:
        """Give the lease back, so that another one need not wait for its end."""
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                with self._database.write() as connection:
                    leases.release(connection, lease)
            except DatabaseUnavailable as error:
                log.warning("lease_not_released", extra=facts(why=error.detail))

    def _renewed(self, connection: Connection) -> leases.Lease | None:
        if self._lease is None:
            return None
        try:
            return leases.renew(connection, self._lease, self._ttl_s)
        except LeaseLost:
            return None
