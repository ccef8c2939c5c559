"""Trials of versions: held in throw-away processes, once on a host, and remembered for its other workers."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from service.domain.errors import ArtifactInvalid
from service.serving.block import Block
from service.serving.recent import written
from service.storage.artifacts import ArtifactStore
from service.storage.versions import VersionRow

__all__ = ["Trials", "starved_s"]

POLL_S = 0.05
DEADLINE_S = 60.0
LISTEN_S = 0.5
REFUSED_FOR_S = 30.0
"""A refusal is believed for so long; then it is looked at again, for what was missing may be back."""


@dataclass(frozen=True)
class Verdict:
    """How a trial went."""

    reason: str
    """``ok``, or why not: a slug."""
    detail: str = ""
    modules: list[str] | None = None
    """What had to be imported for it."""


class Trials:
    """The trials of one host.

    Parameters
    ----------
    folder
        Where verdicts are kept for the other workers; it belongs to one life of the service.
    store
        The artifacts.
    deadline_s
        After which a trial is over; the time that it waits for a processor on a busy host does not count.
    """

    def __init__(self, folder: Path, store: ArtifactStore, *, deadline_s: float = DEADLINE_S) -> None:
        self._folder, self._store, self._deadline_s = folder, store, deadline_s
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        folder.mkdir(parents=True, exist_ok=True)

    def prove(self, row: VersionRow, recent: Block | None) -> list[str]:
        """Return what the version imports, once it has been loaded elsewhere without harm.

        Parameters
        ----------
        recent
            Rows that it is to answer too.

        Raises
        ------
        ArtifactInvalid
            If it did not load, did not end in time, or ended the process.
        """
        key = _key(row)
        with self._alone(key):
            verdict = self._remembered(key)
            if verdict is None:
                verdict = self._held(row, recent)
                if verdict.reason != "leaving":
                    self._remember(key, verdict)
        if verdict.reason != "ok":
            raise ArtifactInvalid(verdict.detail, model=row.model, version=row.version, reason=verdict.reason)
        return verdict.modules or []

    @contextmanager
    def loading(self, row: VersionRow) -> Iterator[None]:
        """Leave word while this process loads the version, for the case that it dies of it."""
        mark = self._folder / f"{_key(row)}.{os.getpid()}.loading"
        mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def has_killed(self, row: VersionRow) -> bool:
        """Return whether a worker died while it loaded the version; true until it has passed a trial."""
        marks = list(self._folder.glob(f"{_key(row)}.*.loading"))
        return any(not _is_alive(int(mark.name.split(".")[1])) for mark in marks)

    def close(self) -> None:
        """End the trials that run."""
        with self._lock:
            self._is_closed = True
            running = list(self._running)
        for process in running:
            process.kill()

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        with (self._folder / f"{key}.lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    # Whoever holds it has a deadline, and a lock ends with its process.
                    if self._is_closed:
                        msg = "the worker is leaving"
                        raise ArtifactInvalid(msg, reason="leaving") from None
                    time.sleep(POLL_S)
                else:
                    break
            yield

    def _remembered(self, key: str) -> Verdict | None:
        path = self._folder / f"{key}.verdict"
        try:
            verdict = msgspec.json.decode(path.read_bytes(), type=Verdict)
            age_s = time.time() - path.stat().st_mtime
        except (OSError, msgspec.MsgspecError):
            return None
        return verdict if verdict.reason == "ok" or age_s < REFUSED_FOR_S else None

    def _remember(self, key: str, verdict: Verdict) -> None:
        if verdict.reason == "ok":
            for mark in self._folder.glob(f"{key}.*.loading"):
                if not _is_alive(int(mark.name.split(".")[1])):
                    mark.unlink(missing_ok=True)
        with suppress(OSError):  # a full disk: then the next worker tries for itself
            path = self._folder / f"{key}.verdict"
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(msgspec.json.encode(verdict))
            temporary.replace(path)

    def _held(self, row: VersionRow, recent: Block | None) -> Verdict:
        asked = {"store": str(self._store.root), "row": row, "recent": written(recent)}
        command = [sys.executable, "-m", "service.serving.trial"]
        # A trial counts nothing: it must leave no file among the workers' metrics.
        environ = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
        with self._lock:
            if self._is_closed:
                return Verdict("leaving", "the worker is leaving")
            process = subprocess.Popen(  # noqa: S603  our own program
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ
            )
            self._running.add(process)
        try:
            said = self._heard(process, msgspec.json.encode(asked))
        finally:
            with self._lock:
                self._running.discard(process)
        if said is None:
            return Verdict("hang", f"{_name(row)}: its load did not end within {self._deadline_s:g} s")
        if self._is_closed:
            return Verdict("leaving", "the worker is leaving")
        try:
            return msgspec.json.decode(said, type=Verdict)
        except msgspec.MsgspecError:
            return _fallen(row, process.returncode)

    def _heard(self, process: "subprocess.Popen[bytes]", asked: bytes) -> bytes | None:
        """Return what the process says; None if it says nothing in time."""
        began, unsaid = time.monotonic(), asked
        while True:
            try:
                said, _ = process.communicate(unsaid or None, timeout=LISTEN_S)
            except subprocess.TimeoutExpired:
                unsaid = b""  # it has been taken over; only the first call may name it
                if time.monotonic() - began - starved_s(process.pid, process.pid) < self._deadline_s:
                    continue
                process.kill()
                process.communicate()
                return None
            return said


def starved_s(pid: int, thread: int) -> float:
    """Return how long a thread has waited for a processor: on a busy host a load that only starves does not hang."""
    try:
        waited_ns = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0.0  # not Linux, or gone
    return int(waited_ns) / 1e9


def _fallen(row: VersionRow, code: int) -> Verdict:
    if code in {-signal.SIGXCPU, -signal.SIGALRM}:
        return Verdict("hang", f"{_name(row)}: its load did not end")
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return Verdict("crash", f"{_name(row)}: its load ended the process {how}")


def _name(row: VersionRow) -> str:
    return f"{row.model} version {row.version}"


def _key(row: VersionRow) -> str:
    what = msgspec.json.encode([row.model, row.version, row.artifact, row.manifest], order="sorted")
    return hashlib.sha256(what).hexdigest()[:32]


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
