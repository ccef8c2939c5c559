"""The SQL database: one engine, short transactions, and its clock, which decides wherever hosts must agree."""

import json
import math
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, Table, create_engine, event, exc, func, make_url, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL

from service.domain.errors import DatabaseUnavailable, InvalidSetup
from service.storage import migrations
from service.storage.patience import Patience

__all__ = ["Database", "insert_into", "insert_new", "now", "origin_of"]

BUSY_TIMEOUT_S = 10
"""How long a writer waits for another one, on either database: far above any transaction of ours, all are short."""
CONNECT_TIMEOUT_S = 5
FROZEN_S = 5
"""PostgreSQL ends a transaction whose client has been silent for so long: one that was stopped, or whose host is gone,
would keep its locks, the leader's lease among them, and nobody could follow it."""
MIGRATION_FROZEN_S = 60
"""The same within a migration, for which nobody waits who serves."""
PATIENCE_S = 20.0
"""How long one transaction may take, however little the database says; a worker that answers requests sets it lower."""
KEEPALIVE = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""A host that vanished is noticed within 25 s, not after the system's two hours."""
MIGRATION_LOCK = 0x52455452
"""Key of the advisory lock that lets one process at a time migrate a PostgreSQL database."""


class Database:
    """Opens connections lazily: constructing it touches nothing.

    Parameters
    ----------
    url
        ``sqlite:///path`` or ``postgresql://user:password@host/name``.
    patience_s
        A transaction on PostgreSQL that takes longer is cut off and counts as unavailable. A server that hangs keeps
        its connections open, so no time-out of the server or of TCP would ever end the wait.
    """

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        parsed = _parse(url)
        self.address = parsed.render_as_string(hide_password=True)
        """The URL without its password, for people."""
        self.engine = _engine(parsed, patience_s)
        self._patience = Patience(patience_s) if parsed.get_backend_name() == "postgresql" else None
        if self._patience is not None:
            self._patience.watch(self.engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that only reads."""
        with self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self, *, origin: Mapping[str, Any] | None = None) -> Iterator[Connection]:
        """Yield a connection in a transaction that commits at the end, or leaves nothing when an error passes.

        `origin` says from where the change comes; what the audit writes in this transaction carries it.
        """
        with self._translated(), self.engine.connect() as opened:
            connection = opened.execution_options(retrue_writes=True, retrue_origin=origin)
            with connection.begin():
                yield connection

    def migrate(self) -> None:
        """Bring the tables up to date; safe when several processes start at once."""
        # Alembic is imported only here: an api worker checks the revision but never migrates.
        from service.storage.migrations.upgrade import upgrade

        if self.engine.dialect.name == "sqlite":
            path = Path(str(self.engine.url.database))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        with self.write() as connection:
            if self._patience is not None:
                self._patience.spare(connection)  # a migration may take as long as it takes
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                # On a crowded machine a migrator is silent between two statements for seconds, and not gone.
                connection.exec_driver_sql(
                    f"SET LOCAL idle_in_transaction_session_timeout = {MIGRATION_FROZEN_S * 1000}"
                )
                connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            upgrade(connection)

    def check_migrated(self) -> None:
        """Raise unless the tables are those of this release.

        Raises
        ------
        InvalidSetup
            If the database is empty, older or newer.
        DatabaseUnavailable
            If it does not answer.
        """
        found = self._revision()
        if found != migrations.HEAD:
            msg = (
                f"the database {self.address} is at revision {found}, this release needs {migrations.HEAD}: migrate it"
            )
            raise InvalidSetup(msg, found=found, needed=migrations.HEAD)

    def close(self) -> None:
        """Close all idle connections."""
        self.engine.dispose()

    @staticmethod
    def now(connection: Connection) -> datetime:
        """Return the database's own time, UTC."""
        return now(connection)

    def _revision(self) -> str | None:
        if self.engine.dialect.name == "sqlite" and not Path(str(self.engine.url.database)).exists():
            return None
        with self.read() as connection:
            if not connection.dialect.has_table(connection, "alembic_version"):
                return None
            found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
            return found

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            raise self._unavailable(error) from error
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            raise self._unavailable(error) from error

    def _unavailable(self, error: exc.SQLAlchemyError) -> DatabaseUnavailable:
        # The driver's own words may hold the address with its password, so only its kind is told.
        kind = type(getattr(error, "orig", None) or error).__name__
        return DatabaseUnavailable(f"the database {self.address} does not answer ({kind})", retry_after_s=2)


def now(connection: Connection) -> datetime:
    """Return the database's own time, UTC; not the transaction's start, which may lie before a wait for a lock."""
    if connection.dialect.name == "sqlite":
        stamp: str = connection.scalar(text("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')"))
        return datetime.fromisoformat(stamp).replace(tzinfo=UTC)
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


def origin_of(connection: Connection) -> dict[str, Any] | None:
    """Return from where the transaction's changes come; None: from the service itself."""
    origin = connection.get_execution_options().get("retrue_origin")
    return None if origin is None else dict(origin)


def insert_into(connection: Connection, table: Table) -> "postgresql.Insert | sqlite.Insert":
    """Return an insert that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update`` on both databases."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def insert_new(connection: Connection, table: Table, **values: Any) -> bool:
    """Insert a row and return True; False, and nothing done, if it breaks a unique index."""
    query = insert_into(connection, table).values(**values).on_conflict_do_nothing()
    # Without the option SQLAlchemy does not know an insert's count on PostgreSQL: it would be -1.
    return connection.execute(query, execution_options={"preserve_rowcount": True}).rowcount == 1


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        msg = "the database URL can't be read: write sqlite:///path or postgresql://user:password@host/name"
        raise InvalidSetup(msg) from error
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        msg = f"the database {parsed.get_backend_name()!r} is not supported: use sqlite or postgresql"
        raise InvalidSetup(msg)
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        msg = "SQLite needs a file: several processes share it"
        raise InvalidSetup(msg)
    return parsed


def _engine(url: URL, patience_s: float) -> Engine:
    if url.get_backend_name() == "postgresql":
        patience_ms = int(patience_s * 1000)
        options = {
            "timezone": "UTC",
            "lock_timeout": min(BUSY_TIMEOUT_S * 1000, patience_ms),
            "statement_timeout": patience_ms,
            "idle_in_transaction_session_timeout": FROZEN_S * 1000,
        }
        return create_engine(
            url,
            json_serializer=_to_json,
            pool_pre_ping=True,
            pool_timeout=min(BUSY_TIMEOUT_S, patience_s),
            connect_args={
                **KEEPALIVE,
                "tcp_user_timeout": 20_000,
                "connect_timeout": max(min(CONNECT_TIMEOUT_S, int(patience_s)), 2),
                "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            },
        )
    path = str(url.database)
    engine = create_engine(url, json_serializer=_to_json, creator=lambda: _open_sqlite(path))
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "checkout", _is_still_there(path))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _open_sqlite(path: str) -> sqlite3.Connection:
    # Never made here: a file that was moved away must not be replaced by an empty one, which would then be in the way.
    uri = f"file:{quote(path)}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False)


def _is_still_there(path: str) -> Any:
    def check(_connection: Any, record: Any, _proxy: Any) -> None:
        """Part with a connection whose file is no longer the one at its path: what it wrote would be lost."""
        try:
            found = os.stat(path)  # noqa: PTH116  called for each transaction
        except OSError:
            found = None
        seen = None if found is None else (found.st_dev, found.st_ino)
        if seen is None or record.info.setdefault("file", seen) != seen:
            msg = "the file was moved, removed or replaced"
            raise exc.DisconnectionError(msg)

    return check


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # Python's driver would begin lazily; we begin ourselves
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    connection.execute("PRAGMA foreign_keys = ON")
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    # Turning a fresh file to WAL needs it alone for a moment, and SQLite does not wait for that by itself.
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    # A reader that turns writer half-way is refused at once if another wrote meanwhile, whatever the time-out says:
    # so writers say at the start that they are.
    writes = connection.get_execution_options().get("retrue_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _to_json(value: Any) -> str:
    """Return JSON; a figure that is not finite becomes null, for PostgreSQL refuses it and no reader expects it."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
