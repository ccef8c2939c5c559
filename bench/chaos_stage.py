"""The stage: the service's processes as an init system keeps them, who died when, which worker served from when on."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.launched import ROOT, Launched, Project
from service.domain.errors import RetrueError
from service.storage import leases
from service.storage.database import Database

__all__ = ["Kill", "Span", "Stage"]

SITE = ROOT / "bench" / "chaos_site"
RESTART_S = 0.4
POLL_S = 0.03
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "api": ("api", "--workers", "2"),
    "controller-a": ("controller",),
    "controller-b": ("controller",),
}


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One SIGKILL that hit."""

    at: float
    role: str
    step: str
    """Where it died: a step of the service, or ``random``."""


@dataclass(kw_only=True)
class Span:
    """One worker that answers for one model, from its first rebind to its end."""

    pid: int
    model: str
    begin: float
    end: float | None = None


@dataclass
class _Journal:
    position: int = 0
    children: dict[int, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    corrupted: list[tuple[str, str]] = field(default_factory=list)
    agreed: list[tuple[str, bool]] = field(default_factory=list)


class Stage:
    """Starts everything, restarts what ends, kills on request.

    Parameters
    ----------
    project
        Where it runs.
    folder
        For tokens and the journal.
    database
        To ask who leads.
    """

    def __init__(self, project: Project, folder: Path, database: Database) -> None:
        self.kills: list[Kill] = []
        self.spans: list[Span] = []
        self.restarts = 0
        self._project, self._folder, self._database = project, folder, database
        (folder / "tokens").mkdir(parents=True, exist_ok=True)
        project.environ |= {"PYTHONPATH": str(SITE), "CHAOS_FOLDER": str(folder)}
        self._running: dict[str, Launched] = {}
        self._groups: set[int] = set()
        self._again: dict[str, float] = {}
        self._keeps = True
        self._journal = _Journal()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        """Start the processes and keep them."""
        for name in COMMANDS:
            self._launch(name)
        self._thread.start()

    def arm(self, step: str, target: str = "self") -> None:
        """Lay a token: the first process that reaches `step` dies there, or kills `target`."""
        part = self._folder / "tokens" / f".{step}"
        part.write_text(target)
        part.rename(self._folder / "tokens" / step)

    def disarm(self, step: str) -> bool:
        """Take a token away; return whether it was still there."""
        try:
            (self._folder / "tokens" / step).unlink()
        except FileNotFoundError:
            return False
        return True

    def armed(self) -> list[str]:
        """Return the steps whose tokens nobody has taken yet."""
        return [entry.name for entry in (self._folder / "tokens").iterdir() if entry.name[0] != "."]

    @property
    def absent(self) -> list[str]:
        """Functions that the harness wraps and the service does not have."""
        return sorted(self._journal.absent)

    @property
    def corrupted(self) -> list[tuple[str, str]]:
        """How artifacts were harmed, and their digests."""
        return list(self._journal.corrupted)

    @property
    def agreed(self) -> list[tuple[str, bool]]:
        """What workers said of waiting swaps: the swap, and whether they were ready."""
        return list(self._journal.agreed)

    def pids(self, role: str) -> list[int]:
        """Return the living processes of a role."""
        if role == "supervisor":
            return [self._running["api"].process.pid] if self._running["api"].process.poll() is None else []
        if role in {"worker", "committer"}:
            # Only those of the present supervisor: orphans are leaving anyway.
            parents = self.pids("supervisor")
            return [pid for pid in _living() if _parent(pid) in parents and f"service.app {role}" in _command(pid)]
        if role in {"leader", "standby"}:
            leads = self._leader()
            controllers = [
                one.process.pid for name, one in self._running.items() if name != "api" and one.process.poll() is None
            ]
            return [pid for pid in controllers if (pid == leads) == (role == "leader")]
        with self._lock:
            return [pid for pid, what in self._journal.children.items() if what == role and _is_alive(pid)]

    def answering(self) -> int:
        """Return how many workers of the present supervisor answer for a model."""
        workers = set(self.pids("worker"))
        return len({span.pid for span in self.spans if span.end is None} & workers)

    def kill(self, role: str, *, pick: int = 0) -> bool:
        """Kill a process of that role; return whether there was one."""
        pids = self.pids(role)
        if not pids:
            return False
        pid = pids[pick % len(pids)]
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.kills.append(Kill(at=time.time(), role=role, step="random"))
        return True

    def leave(self) -> dict[str, int]:
        """Ask everything to leave, the controllers first; return the exit codes. Whoever stays is killed."""
        self._keeps = False
        codes = {name: self._running[name].stop() for name in sorted(self._running, reverse=True)}
        time.sleep(2 * POLL_S)
        self.end()
        return codes

    def end(self) -> None:
        """End every process that was ever started here."""
        self._keeps = False
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(5)
        for group in self._groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    def _launch(self, name: str) -> None:
        launched = Launched(self._project, *COMMANDS[name], log=f"{name}.log")
        self._running[name] = launched
        self._groups.add(launched.process.pid)

    def _keep(self) -> None:
        while not self._over.wait(POLL_S):
            self._read()
            for span in self.spans:
                if span.end is None and not _is_alive(span.pid):
                    span.end = time.time()
            if self._keeps:
                self._revive()
        self._read()

    def _revive(self) -> None:
        now = time.monotonic()
        for name, launched in list(self._running.items()):
            if launched.process.poll() is None:
                continue
            if name not in self._again:
                self._again[name] = now + RESTART_S
            elif now >= self._again[name]:
                del self._again[name]
                self.restarts += 1
                self._launch(name)

    def _read(self) -> None:
        path = self._folder / "journal.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._journal.position)
            lines = file.read()
        whole = lines.rfind(b"\n") + 1
        self._journal.position += whole
        for line in lines[:whole].splitlines():
            self._take(json.loads(line))

    def _take(self, fact: dict[str, Any]) -> None:
        with self._lock:
            if fact["kind"] == "kill":
                role = fact["role"] if fact["target"] == fact["pid"] else "leader"
                self.kills.append(Kill(at=fact["at"], role=role, step=fact["step"]))
            elif fact["kind"] == "child":
                self._journal.children[fact["pid"]] = fact["role"]
            elif fact["kind"] == "absent":
                self._journal.absent.add(fact["step"])
            elif fact["kind"] == "corrupt":
                self._journal.corrupted.append((fact["how"], fact["artifact"]))
            elif fact["kind"] == "agreed":
                self._journal.agreed.append((fact["swap"], bool(fact["ready"])))
            elif fact["kind"] == "bound" and not any(
                span.pid == fact["pid"] and span.model == fact["model"] for span in self.spans
            ):
                self.spans.append(Span(pid=fact["pid"], model=fact["model"], begin=fact["at"]))

    def _leader(self) -> int | None:
        try:
            with self._database.read() as conn:
                lease = leases.holder(conn, "controller")
        except RetrueError:
            return None
        match = re.search(r":(\d+):", lease.owner) if lease else None
        return int(match[1]) if match else None


def _living() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _is_alive(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] not in {"Z", "X"}


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
