"""Child processes for heavy work: forked from a server that has already imported what they need.

A check would otherwise pay seconds for importing Evidently, each time. The children are nice to the rest of the
machine, use few threads, leave with their parent, and send what they found through a pipe.
"""

import importlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from multiprocessing import connection, forkserver
from typing import Any, Literal

from service.control.memory import bound, peak_bytes
from service.journal import bind, facts, set_up

__all__ = ["Exit", "Job", "Kind", "Peak", "Processes", "Surroundings"]

log = logging.getLogger(__name__)

Kind = Literal["files", "check", "train"]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "POLARS_MAX_THREADS",
)
PRELOAD = "service.control.warm"
TARGETS: Mapping[Kind, str] = {
    "files": "service.control.reader:read",
    "check": "service.control.checker:check",
    "train": "service.control.trainer:train",
}
"""What each kind of child runs, by name: the controller itself never imports what they need."""


class Exit(IntEnum):
    """Exit codes of a child that left without a verdict for a reason of ours; any other is the model's own code."""

    ORPHAN = 71  # its parent is gone
    LEASE_LOST = 72  # another leader works on it now, or somebody ended the run
    NOT_STARTED = 73
    UNAVAILABLE = 75  # the database did not answer for so long that its verdict could not be written
    OUT_OF_MEMORY = 137  # as a shell reports a kill
    NO_FORK_SERVER = 255  # the process that forks children died: nobody knows how they ended


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every child is given."""

    nice: int = 19
    threads: int = 1
    cpus: tuple[int, ...] = ()
    """Processors that trainers and checks may use; none named: all."""
    memory_bytes: int = 0
    """What one trainer or check may take, see `service.control.memory.bound`; 0: all that there is."""
    log_level: str = "info"
    log_format: str = "console"


@dataclass(frozen=True)
class Peak:
    """A child's last word: its memory."""

    size_bytes: int


@dataclass
class Job:
    """A child at work, or its remains."""

    kind: Kind
    key: str
    """What it works on: a run's or a check's id."""
    model: str
    started: float
    process: Any
    messages: deque[Any] = field(default_factory=deque)
    """What it sent and nobody has looked at yet."""
    exit_code: int | None = None
    """None while it lives; negative: the signal that killed it."""
    peak_bytes: int | None = None
    """Resident memory at its peak; None of one that was killed, or that has not ended."""
    asked_to_leave: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the process has ended and all that it sent has arrived."""
        return self.exit_code is not None

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    def ask_to_leave(self) -> None:
        """Send SIGTERM; the second call and later ones kill, once the grace is over."""
        if self.is_over:
            return
        now = time.monotonic()
        if self.asked_to_leave is None:
            self.asked_to_leave = now
            self._signal(signal.SIGTERM)
        elif now - self.asked_to_leave >= GRACE_S:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL; one that is still to be started is killed as soon as it is."""
        self.asked_to_leave = self.asked_to_leave or time.monotonic()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.process.pid
        if pid is None or self.is_over:
            return
        try:
            os.killpg(pid, number)  # the workers that its estimator may have started, too
        except (ProcessLookupError, PermissionError):
            with suppress(ProcessLookupError):
                os.kill(pid, number)  # it leads no group yet

    def sweep(self) -> None:
        """Kill what an ended child has left behind in its group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


GRACE_S = 5.0
"""Seconds from SIGTERM to SIGKILL."""


class Processes:
    """Starts children and notices their ends.

    Parameters
    ----------
    surroundings
        What every child is given.
    targets
        What each kind runs, as ``module:function``; the function takes the task and `send`.
    woken
        Called, from a thread, whenever a child has sent something or ended.
    peaked
        Told, from a thread, the kind of a child that ends and its memory at its peak.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        woken: Callable[[], None],
        targets: Mapping[Kind, str] = TARGETS,
        peaked: Callable[[Kind, int], None] = lambda _kind, _bytes: None,
    ) -> None:
        self._targets = targets
        self._surroundings = surroundings
        self._woken, self._peaked = woken, peaked
        self._jobs: dict[tuple[Kind, str], Job] = {}
        self._context = multiprocessing.get_context("forkserver")

    def warm_up(self) -> None:
        """Start the fork server; it imports while the caller goes on."""
        self._equip()
        forkserver.ensure_running()

    def _equip(self) -> None:
        # Whatever starts the fork server first decides for good what its children find. One that a start had brought
        # up bare let every trainer import for seconds, at its low priority, until it was taken for dead.
        for variable in THREAD_VARIABLES:
            os.environ[variable] = str(self._surroundings.threads)
        self._context.set_forkserver_preload([PRELOAD])

    def start(self, kind: Kind, key: str, *, model: str, task: Any) -> Job:
        """Start a child that works on `task`."""
        self._equip()
        reading, writing = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_enter,
            args=(kind, self._targets[kind], task, writing, self._surroundings),
            name=f"{kind}-{model}",
            daemon=True,
        )
        job = Job(kind=kind, key=key, model=model, started=time.monotonic(), process=process)
        self._jobs[kind, key] = job
        # In the thread: the first start waits until the fork server has imported everything.
        follower = threading.Thread(
            target=self._follow, args=(job, reading, writing), name=f"follow-{key}", daemon=True
        )
        follower.start()
        return job

    def find(self, kind: Kind, key: str) -> Job | None:
        """Return the job, or None."""
        return self._jobs.get((kind, key))

    def of_kind(self, kind: Kind) -> list[Job]:
        """Return the jobs of a kind, the ended ones that nobody has forgotten among them."""
        return [job for job in list(self._jobs.values()) if job.kind == kind]

    def count(self, kind: Kind) -> int:
        """Return how many children of a kind live."""
        return sum(not job.is_over for job in self.of_kind(kind))

    def forget(self, job: Job) -> None:
        """Drop an ended job; another one that was started under its key stays."""
        if self._jobs.get((job.kind, job.key)) is job:
            del self._jobs[job.kind, job.key]

    def stop_all(self, *, grace_s: float = GRACE_S) -> None:
        """Send every child away and wait for their ends."""
        jobs = [job for job in self._jobs.values() if not job.is_over]
        for job in jobs:
            job.ask_to_leave()
        ends = time.monotonic() + grace_s
        for job in jobs:
            while not job.is_over and time.monotonic() < ends:
                time.sleep(0.01)
            job.kill()
        self._jobs.clear()

    def _follow(self, job: Job, reading: connection.Connection, writing: connection.Connection) -> None:
        try:
            job.process.start()
        except (OSError, EOFError) as error:
            log.error("child_not_started", extra=facts(kind=job.kind, key=job.key, why=str(error)))  # noqa: TRY400
            job.exit_code = Exit.NOT_STARTED
            self._woken()
            return
        finally:
            writing.close()
        log.debug("job_started", extra=facts(kind=job.kind, key=job.key, pid=job.process.pid))
        if job.asked_to_leave is not None:
            job.kill()
        with suppress(EOFError, OSError), reading:
            while True:
                message = reading.recv()
                if isinstance(message, Peak):
                    job.peak_bytes = message.size_bytes
                    self._peaked(job.kind, message.size_bytes)
                else:
                    job.messages.append(message)
                    self._woken()
        job.process.join()
        if job.process.exitcode != 0:
            job.sweep()  # one that was killed, or left in a hurry, took nobody with it
        job.exit_code = job.process.exitcode
        self._woken()


def _enter(kind: Kind, target: str, task: Any, pipe: connection.Connection, around: Surroundings) -> None:
    os.setpgid(0, 0)  # whoever ends it ends all that it started
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    threading.Thread(target=_leave_with_parent, name="life-line", daemon=True).start()
    _yield_to_servers(kind, around)
    role = {"train": "trainer", "check": "checker", "files": "files"}[kind]
    set_up(role, level=around.log_level, style=around.log_format)
    bind(**_names(task))
    module, _, function = target.partition(":")
    try:
        getattr(importlib.import_module(module), function)(task, pipe.send)
    finally:
        with suppress(OSError, MemoryError):
            pipe.send(Peak(peak_bytes()))
        pipe.close()


def _names(task: Any) -> dict[str, Any]:
    """Return what each of the child's lines shall name."""
    known = {"run": "run_id", "check": "check_id", "model": "model"}
    return {name: getattr(task, field) for name, field in known.items() if hasattr(task, field)}


def _yield_to_servers(kind: Kind, around: Surroundings) -> None:
    with suppress(OSError):
        os.nice(around.nice)
    if kind == "files":
        return
    if around.cpus and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # they were there when the service started
            os.sched_setaffinity(0, around.cpus)
    bound(around.memory_bytes)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(Exit.ORPHAN)
