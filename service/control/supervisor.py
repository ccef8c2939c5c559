"""The parent of all processes on a machine: starts them, restarts the dead with a pause, and takes them down.

Each child holds the reading end of a pipe that the supervisor never writes to: when the supervisor dies, however it
dies, the pipe ends and the child leaves by itself.
"""

import errno
import fcntl
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from service.domain.errors import HomeUnusable, PortInUse, SettingInvalid
from service.journal import facts

__all__ = ["Child", "Supervisor", "bind", "leave_with_parent", "lock_family", "lock_home", "wipe"]

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
"""Pause before a dead child is started again: doubled each time, up to the longest."""
STEADY_S = 30.0
"""A child that lived so long starts again with the first pause."""
POLL_S = 0.1
ORPHANS_S = 30.0
"""Children whose supervisor was killed leave by themselves; longer than their grace it never takes."""
COMPLAIN_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Child:
    """One process to keep alive."""

    name: str
    argv: Sequence[str]
    """Arguments after ``python``; ``{parent}`` stands for the file descriptor of the life line."""
    fds: tuple[int, ...] = ()
    """Descriptors that it inherits."""
    last: bool = False
    """Whether it leaves after the others, to take in what they wrote while leaving."""


@dataclass
class _Place:
    child: Child
    process: "subprocess.Popen[bytes] | None" = None
    life_line: int | None = None
    started: float = 0.0
    start_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S


@dataclass
class Supervisor:
    """Keeps `children` running until it is told to stop.

    Parameters
    ----------
    children
        What to run.
    environ
        Their environment.
    grace_s
        Seconds that they get to leave after SIGTERM.
    metrics
        Folder of the multi-process metrics, where a dead process is marked; None if there is none.
    restarted
        Told the name of each child that died and will be started again.
    """

    children: Sequence[Child]
    environ: Mapping[str, str]
    grace_s: float = 10.0
    metrics: Path | None = None
    restarted: Callable[[str], None] = lambda _: None
    _stop: threading.Event = field(default_factory=threading.Event)
    _places: list[_Place] = field(default_factory=list)

    def run(self) -> None:
        """Start the children and watch them until `stop`, SIGTERM or SIGINT; then take them down."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        self._places = [_Place(child) for child in self.children]
        try:
            while not self._stop.wait(POLL_S):
                for place in self._places:
                    self._look(place)
        finally:
            self._take_down()
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Make `run` take the children down and return."""
        self._stop.set()

    def pids(self) -> dict[str, int]:
        """Return the process ids of the living children."""
        return {place.child.name: place.process.pid for place in self._places if place.process is not None}

    def _on_signal(self, number: int, frame: object) -> None:  # noqa: ARG002  signal's own signature
        self._stop.set()

    def _look(self, place: _Place) -> None:
        now = time.monotonic()
        if place.process is None:
            if now >= place.start_at:
                self._start(place)
            return
        code = place.process.poll()
        if code is None:
            return
        self._bury(place)
        if now - place.started >= STEADY_S:
            place.pause_s = FIRST_PAUSE_S
        place.start_at = now + place.pause_s
        log.error("child_died", extra=facts(child=place.child.name, code=code, again_in_s=round(place.pause_s, 1)))
        self.restarted(place.child.name)
        place.pause_s = min(place.pause_s * 2, LONGEST_PAUSE_S)

    def _start(self, place: _Place) -> None:
        reading, place.life_line = os.pipe()
        argv = [sys.executable, *(word.replace("{parent}", str(reading)) for word in place.child.argv)]
        try:
            place.process = subprocess.Popen(  # noqa: S603  our own program
                argv, env=dict(self.environ), stdin=subprocess.DEVNULL, pass_fds=(*place.child.fds, reading)
            )
        finally:
            os.close(reading)
        place.started = time.monotonic()
        log.info("child_started", extra=facts(child=place.child.name, pid=place.process.pid))

    def _bury(self, place: _Place) -> None:
        if place.process is not None and self.metrics is not None:
            from prometheus_client import multiprocess

            multiprocess.mark_process_dead(place.process.pid, str(self.metrics))  # type: ignore[no-untyped-call]
        if place.life_line is not None:
            os.close(place.life_line)
        place.process = place.life_line = None

    def _take_down(self) -> None:
        ends = time.monotonic() + self.grace_s
        for last in (False, True):
            leaving = [place for place in self._places if place.child.last is last and place.process is not None]
            for place in leaving:
                _signal(place, signal.SIGTERM)
            for place in leaving:
                self._await(place, ends=ends)

    def _await(self, place: _Place, *, ends: float) -> None:
        if place.process is None:
            return
        try:
            # The last ones get a second of their own even when the others used up the grace.
            place.process.wait(max(ends - time.monotonic(), 1.0 if place.child.last else 0.05))
        except subprocess.TimeoutExpired:
            log.warning("child_killed", extra=facts(child=place.child.name, after_s=self.grace_s))
            _signal(place, signal.SIGKILL)
            place.process.wait()
        self._bury(place)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket that children may inherit.

    Raises
    ------
    PortInUse
        If another program listens there.
    SettingInvalid
        If this machine has no such address, or may not listen on it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        msg = f"{host!r} is no address of this machine: set RETRUE_HOST to one that is, such as 127.0.0.1"
        raise SettingInvalid(msg, host=host) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            msg = f"port {port} on {host} is in use by another program: stop it, or set RETRUE_PORT to a free port"
            raise PortInUse(msg, host=host, port=port) from error
        msg = f"cannot listen on {host} port {port} ({error.strerror}): set RETRUE_HOST and RETRUE_PORT to others"
        raise SettingInvalid(msg, host=host, port=port) from error
    listener.set_inheritable(True)
    return listener


def lock_home(home: Path) -> IO[str]:
    """Return a lock on `home` that ends with this process; keep the file open.

    Raises
    ------
    HomeUnusable
        If another service runs in it.
    """
    file = (home / "serve.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        pid = file.read().strip() or "unknown"
        file.close()
        msg = f"another Retrue (process {pid}) runs in the home {home}: stop it, or set RETRUE_HOME to another folder"
        raise HomeUnusable(msg, home=str(home), pid=pid) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def lock_family(home: Path, *, within_s: float = ORPHANS_S) -> int:
    """Return a lock that all children inherit, once no child of an earlier supervisor holds it any more.

    A supervisor that was killed leaves children behind which answer what they accepted: until they are gone they hold
    the port, the spool and the metrics.

    Raises
    ------
    HomeUnusable
        If they do not leave.
    """
    lock = os.open(home / "family.lock", os.O_RDWR | os.O_CREAT, 0o644)
    began = time.monotonic()
    complained = began - COMPLAIN_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            if now - began > within_s:
                os.close(lock)
                msg = f"processes of an earlier start in the home {home} do not leave: end them"
                raise HomeUnusable(msg, home=str(home)) from None
            if now - complained >= COMPLAIN_S:
                complained = now
                log.warning("waiting_for_orphans", extra=facts(home=home, for_s=round(now - began, 1)))
            time.sleep(POLL_S)
        else:
            return lock


def wipe(folder: Path) -> None:
    """Empty `folder`: counters of processes that are gone must not come back."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def leave_with_parent(life_line: int | None, *, grace_s: float = 10.0) -> None:
    """Leave as on SIGTERM when the pipe `life_line` ends, and by force if that takes longer than `grace_s`."""
    if life_line is None:
        return

    def watch() -> None:
        with suppress(OSError):
            os.read(life_line, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=watch, name="life-line", daemon=True).start()


def _signal(place: _Place, number: signal.Signals) -> None:
    if place.process is not None:
        with suppress(ProcessLookupError):
            place.process.send_signal(number)
