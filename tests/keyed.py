"""The application with keys, on either database."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import httpx
from prometheus_client import CollectorRegistry
from sqlalchemy import update

from service.api.application import Parts, create
from service.api.rates import Rates
from service.domain.access import Role
from service.serving.view import seen
from service.serving.worker import Worker
from service.storage import audit, keys, tables
from service.storage.artifacts import ArtifactStore
from service.storage.audit import AuditRow
from service.storage.database import Database
from service.telemetry import Telemetry
from tests.asgi import Client, serving
from tests.served import FLIP, PRICE, crown, flip, pack, register, spool

__all__ = ["Keyed", "keyed"]


class Keyed:
    """One worker's application: `flip` has a champion, `price` has none."""

    client: Client

    def __init__(self, home: Path, database: Database, **parts: Any) -> None:
        self.database, self.store = database, ArtifactStore(home / "artifacts")
        for schema in (FLIP, PRICE):
            register(database, schema)
        crown(database, pack(self.store, FLIP, flip(0)))
        self.telemetry = Telemetry(CollectorRegistry())
        self.worker = Worker(database, self.store, spool=spool(home / "spool"), telemetry=self.telemetry)
        self.app = create(Parts(worker=self.worker, database=database, telemetry=self.telemetry, home=home, **parts))
        # In a service one thread alone looks. Two at once may end in either order, and an older view would come last: a
        # key that was revoked came in again.
        self._looks, look = Lock(), self.worker.replica.look

        def one_at_a_time(**more: Any) -> None:
            with self._looks:
                look(**more)

        vars(self.worker.replica)["look"] = one_at_a_time

    def key(self, *roles: Role, name: str = "", lasts: timedelta | None = None) -> str:
        """Make a key that the worker knows at once; return its text."""
        with self.database.write() as conn:
            expires_at = None if lasts is None else self.database.now(conn) + lasts
            named = name or f"{'-'.join(roles)}'s"
            _, text = keys.create(conn, named, roles=roles, expires_at=expires_at, actor="test", reason="test")
        self.look()
        return text

    def revoke(self, name: str) -> None:
        """Take a key back."""
        with self.database.write() as conn:
            keys.revoke(conn, name, actor="test", reason="test")
        self.look()

    def expire(self, name: str) -> None:
        """Let a key's time be over."""
        with self.database.write() as conn:
            past = self.database.now(conn) - timedelta(seconds=1)
            conn.execute(update(tables.keys).where(tables.keys.c.name == name).values(expires_at=past))
        self.look()

    def look(self) -> None:
        """Let the worker see the keys now; its own thread would a moment later."""
        with self._looks:
            self.worker.replica.keyring.follow(seen(self.database).ring)

    def ask(
        self, method: str, path: str, key: str | None = None, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """Send a request with a key."""
        sent = {**(headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})}
        return self.client.request(method, path, headers=sent, **more)

    def audit(self) -> list[AuditRow]:
        """Return what the audit holds, the newest first."""
        with self.database.read() as conn:
            return audit.list_of(conn)


@contextmanager
def keyed(home: Path, database: Database, *, rates: Rates | None = None, may_be_open: bool = True) -> Iterator[Keyed]:
    """Yield the application, under way."""
    made = Keyed(home, database, rates=rates or Rates(), may_be_open=may_be_open)
    made.worker.replica.look()
    with serving(made.app) as made.client:
        yield made
