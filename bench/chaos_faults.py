"""Faults around the service: a database that does not answer, a full disk, a lake that is gone, a leader asleep."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos_stage import Stage

__all__ = ["Faults", "Window", "own_mounts"]

SPOOL_BYTES = 24 << 20
FOLLOWED_S = 40.0
"""A leader that has just been killed is followed within so long, on a busy machine."""
CLONE_NEWNS = 0x00020000
AT_FDCWD, RENAME_EXCHANGE = -100, 2
WAL_LOCKS = (120, 8)
"""Bytes of SQLite's -shm file that its writers, readers and checkpointers lock."""

# A process of its own: closing any handle on the file would let go of the locks, and the harness reads the database.
HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "r+b") as shared:
    fcntl.lockf(shared, fcntl.LOCK_EX, {length}, {start})
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One fault, from when to when (seconds since the epoch)."""

    kind: str
    begin: float
    end: float


@dataclass
class Faults:
    """Causes faults and remembers when.

    Parameters
    ----------
    home
        Of the service.
    stage
        Who runs.
    cut
        Stops a database server for so many seconds; None for SQLite, which is locked instead.
    """

    home: Path
    stage: Stage
    cut: Callable[[float], None] | None = None
    windows: list[Window] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    has_small_disk: bool = False

    def cut_database(self, seconds: float) -> None:
        """Let nobody read or write the database for so long."""
        with self._window("database"):
            if self.cut is not None:
                self.cut(seconds)
                return
            words = HOLD.format(start=WAL_LOCKS[0], length=WAL_LOCKS[1])
            command = [sys.executable, "-c", words, f"{self.home / 'retrue.db'}-shm", str(seconds)]
            subprocess.run(command, check=False, timeout=seconds + 30, stdout=subprocess.DEVNULL)

    def hide_lake(self, seconds: float) -> None:
        """Put a file where the lake was, and take it away again: nothing can be read, and nothing made there."""
        lake, block = self.home / "lake", self.home / "lake.away"
        with self._window("lake"):
            block.write_text("the lake is away\n")
            _exchange(lake, block)
            try:
                time.sleep(seconds)
            finally:
                _exchange(lake, block)
                block.unlink()

    def fill_disk(self, seconds: float) -> None:
        """Leave no room in the spool's file system."""
        if not self.has_small_disk:
            return
        filler = self.home / "spool" / ".filler"
        with self._window("disk"):
            ends = time.monotonic() + seconds
            try:
                with filler.open("ab", buffering=0) as file:
                    while time.monotonic() < ends:
                        # Again and again: a committed segment makes room that the next record would find.
                        with suppress(OSError):
                            while file.write(b"\0" * 65536) == 65536:
                                pass
                        with suppress(OSError):
                            while file.write(b"\0" * 64) == 64:
                                pass
                        time.sleep(0.02)
            finally:
                filler.unlink(missing_ok=True)

    def pause_leader(self, seconds: float) -> None:
        """Stop the leader for longer than its lease; it wakes up and believes that nothing has happened."""
        ends = time.monotonic() + FOLLOWED_S
        while not (pids := self.stage.pids("leader")):
            if time.monotonic() > ends:
                self.left_out.append("NO LEADER WAS PAUSED: nobody led")
                return
            time.sleep(0.2)
        with self._window("paused leader"), suppress(ProcessLookupError):
            os.kill(pids[0], signal.SIGSTOP)
            try:
                time.sleep(seconds)
            finally:
                os.kill(pids[0], signal.SIGCONT)

    def mount_small_disk(self) -> None:
        """Give the spool a small file system of its own; say so where that is not possible."""
        spool = self.home / "spool"
        spool.mkdir(parents=True, exist_ok=True)
        why = own_mounts()
        if why is None:
            command = ["mount", "-t", "tmpfs", "-o", f"size={SPOOL_BYTES}", "tmpfs", str(spool)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            why = None if done.returncode == 0 else done.stderr.strip()
        if why is None:
            self.has_small_disk = True
        else:
            self.left_out.append(f"THE DISK WAS NOT FILLED: no small file system could be mounted ({why})")

    def unmount(self) -> None:
        """Take the small file system away."""
        if self.has_small_disk:
            subprocess.run(["umount", "-l", str(self.home / "spool")], check=False, capture_output=True)  # noqa: S607
            self.has_small_disk = False

    def near(self, kind: str, begin: float, end: float, *, margin_s: float = 2.0) -> bool:
        """Return whether a fault of that kind touches the span."""
        return any(
            window.kind == kind and window.begin - margin_s <= end and begin <= window.end + margin_s
            for window in self.windows
        )

    @contextmanager
    def _window(self, kind: str) -> Iterator[None]:
        begin = time.time()
        # Open-ended while it lasts: who asks meanwhile finds it.
        self.windows.append(Window(kind=kind, begin=begin, end=float("inf")))
        place = len(self.windows) - 1
        try:
            yield
        finally:
            self.windows[place] = Window(kind=kind, begin=begin, end=time.time())


def own_mounts() -> str | None:
    """Give this process and its children mounts of their own, gone with them; return why that failed, or None."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        return "this system has no mount namespaces"
    if libc.unshare(CLONE_NEWNS) != 0:
        return os.strerror(ctypes.get_errno())
    done = subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True, text=True)  # noqa: S607
    return None if done.returncode == 0 else done.stderr.strip()


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))
