"""A PostgreSQL server that can be stopped and started again, with the data that it had."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import postgres

__all__ = ["Server", "server"]

SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "100"}
"""A commit waits for the server's own log, so that a server that dies loses none; it does not wait for the disk."""


@dataclass
class Server:
    """A running server.

    Attributes
    ----------
    url
        SQLAlchemy URL of its database.
    """

    url: str
    _command: list[str]
    _log: Path
    _port: int
    _apart: dict[str, Any]
    _guard: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("wb") as sink:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", postgres.GUARD, "sh", *self._command],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                **self._apart,
            )
        postgres._await_ready(self._port, self._log)

    def stop(self) -> None:
        """Stop it at once: whoever is connected is cut off."""
        if self._guard is not None:
            self._guard.communicate(b"\n", timeout=postgres.STOP_S)
            self._guard = None

    def cut(self, seconds: float) -> None:
        """Stop it for so long."""
        self.stop()
        time.sleep(seconds)
        self.start()


@contextmanager
def server() -> Iterator[Server]:
    """Yield a server with its data in a scratch folder, which goes with it."""
    binaries = postgres.find_binaries()
    folder = Path(tempfile.mkdtemp(prefix="retrue-chaos-postgres-"))
    user = postgres._server_user()
    try:
        if user is not None:
            shutil.chown(folder, user.pw_uid, user.pw_gid)
        binaries = postgres._reachable(binaries, folder, user)
        data, port = folder / "data", postgres._free_port()
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", f"--username={postgres.OWNER}"]
        postgres._run([binaries / "initdb", "--pgdata", data, *options], folder, user)
        command = [str(binaries / "postgres"), "-D", str(data)]
        places = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": ""}
        for name, value in (SETTINGS | places).items():
            command += ["-c", f"{name}={value}"]
        url = f"postgresql+psycopg://{postgres.OWNER}@127.0.0.1:{port}/postgres"
        running = Server(url, command, folder / "log", port, postgres._as_user(folder, user))
        running.start()
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
