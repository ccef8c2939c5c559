"""Patience: cuts off transactions on PostgreSQL that take too long, from this side.

A server that hangs (stopped, out of memory, its disk gone) keeps its connections open and its kernel keeps them alive:
no time-out of the server and none of TCP ends such a wait, and a thread that waits so is lost. So a watching thread
shuts the socket, and the driver sees the end of the connection.
"""

import os
import socket
import threading
import time
from typing import Any

from sqlalchemy import Connection, Engine, event

__all__ = ["Patience"]

MARGIN_S = 0.5
"""The server gets the first chance to end a statement, since its own words are the better ones."""
LOOK_S = 0.25


class Patience:
    """Watches the connections of one engine while they are in use.

    Parameters
    ----------
    patience_s
        So long one use of a connection may take, its ping included.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s + MARGIN_S
        self._in_use: dict[int, tuple[float, Any]] = {}
        self._lock = threading.Lock()
        self._has_work = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, engine: Engine) -> None:
        """Begin to watch every use of the engine's connections."""
        # The ping of a pooled connection comes before its checkout and may hang too: it is SQLAlchemy's own call.
        ping = engine.dialect.do_ping

        def watched(connection: Any) -> bool:
            self._begin(connection)
            try:
                return ping(connection)
            finally:
                self._end(connection)

        engine.dialect.do_ping = watched  # type: ignore[assignment,method-assign]
        event.listen(engine, "connect", lambda connection, _record: self._begin(connection))
        event.listen(engine, "checkout", lambda connection, _record, _proxy: self._begin(connection))
        for name in ("checkin", "invalidate", "close"):
            event.listen(engine, name, lambda connection, *_: self._end(connection), named=False)

    def spare(self, connection: Connection) -> None:
        """Let this use of the connection take as long as it takes."""
        self._end(connection.connection.dbapi_connection)

    def _begin(self, connection: Any) -> None:
        with self._lock:
            self._in_use[id(connection)] = (time.monotonic() + self._patience_s, connection)
            if self._thread is None or not self._thread.is_alive():
                # The first use in this process; after a fork no thread is left.
                self._thread = threading.Thread(target=self._look, name="database-patience", daemon=True)
                self._thread.start()
        self._has_work.set()

    def _end(self, connection: Any) -> None:
        with self._lock:
            self._in_use.pop(id(connection), None)

    def _look(self) -> None:
        while True:
            self._has_work.wait()
            time.sleep(LOOK_S)
            now = time.monotonic()
            with self._lock:
                late = [key for key, (ends_at, _) in self._in_use.items() if ends_at < now]
                for key in late:
                    _cut(self._in_use.pop(key)[1])
                if not self._in_use:
                    self._has_work.clear()


def _cut(connection: Any) -> None:
    try:
        # Of a copy: the driver closes its own descriptor when it sees the end.
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)
    except (OSError, ValueError, AttributeError):
        return  # closed meanwhile
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "psycopg":
            raise  # the driver's own error says that the connection is closed
