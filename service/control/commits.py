"""The committer's process: spool to lake, again and again, and the lake's maintenance between."""

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.control.retention import Keeping
from service.domain.errors import RetrueError
from service.journal import facts
from service.storage.committer import CommitReport, Committed, Committer
from service.storage.lake import Lake
from service.storage.spool import survey

__all__ = ["commit_until"]

log = logging.getLogger(__name__)

COMPLAIN_S = 10.0
"""The same trouble is told again at most so often."""


def commit_until(  # the parts of one small process
    stop: threading.Event,
    spool: Path,
    lake: Lake,
    *,
    every_s: float,
    maintain_s: float,
    telemetry: Any,
    keeping: Keeping,
) -> None:
    """Commit what is ready until `stop`, then once more: what workers wrote while leaving goes in too."""
    committer = Committer(
        spool,
        lake,
        on_commit=lambda done: _count(telemetry, done),
        on_failure=lambda kind, _: telemetry.commits.labels(kind=kind, outcome="error").inc(),
        on_damage=lambda path, why: _damage(telemetry, path, why),
    )
    complaints = Complaints()
    due: deque[str] = deque()
    maintain_at = time.monotonic() + maintain_s
    while True:
        is_last = stop.is_set()
        _commit(committer, spool, telemetry, complaints)
        if is_last:
            return
        if time.monotonic() >= maintain_at:
            maintain_at = time.monotonic() + maintain_s
            with suppress(OSError):  # a lake that can't be listed has nothing to be maintained
                due = deque(lake.models())
        if due:  # one at a time: commits go on between them
            _maintain(lake, due.popleft(), keeping, complaints)
        else:
            stop.wait(every_s)


class Complaints:
    """Says the same trouble again only after a while."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def are_due(self, about: str) -> bool:
        """Return whether to say it now."""
        now = time.monotonic()
        if now - self._at.get(about, -COMPLAIN_S) < COMPLAIN_S:
            return False
        self._at[about] = now
        return True


def _commit(committer: Committer, spool: Path, telemetry: Any, complaints: Complaints) -> None:
    started = time.monotonic()
    try:
        report = committer.run_once()
        waiting = survey(spool)
    except Exception:
        # Whatever it is: what waits goes on waiting, and the next round may succeed.
        if complaints.are_due("commit"):
            log.exception("commit_broke", extra=facts())
        return
    if report.commits:
        telemetry.commit_seconds.observe(time.monotonic() - started)
    _tell(report, complaints)
    telemetry.spool_bytes.set(waiting.size_bytes)
    telemetry.spool_oldest_seconds.set(0.0 if waiting.since is None else max(time.time() - waiting.since, 0.0))


def _tell(report: CommitReport, complaints: Complaints) -> None:
    if report.mended:
        log.error("log_mended", extra=facts(files=report.mended))
    if report.errors and complaints.are_due("commit"):
        log.warning("commit_failed", extra=facts(left=report.left, why=report.errors[0]))


def _count(telemetry: Any, done: Committed) -> None:
    telemetry.commits.labels(kind=done.kind, outcome="ok").inc()
    telemetry.committed_rows.labels(model=done.model, kind=done.kind).inc(done.rows)
    if done.kind == "predictions":
        telemetry.lake_lag_seconds.labels(model=done.model).set(max(time.time() - done.oldest_us / 1e6, 0.0))


def _damage(telemetry: Any, path: Path, why: str) -> None:
    telemetry.damaged_segments.inc()
    log.error("segment_damaged", extra=facts(segment=path.name, why=why))


def _maintain(lake: Lake, model: str, keeping: Keeping, complaints: Complaints) -> None:
    started = time.monotonic()
    try:
        forgotten = keeping.forget(lake, model)
        done = lake.maintain(model)
    except RetrueError as error:
        if complaints.are_due(f"maintain {model}"):
            log.warning("maintenance_failed", extra=facts(model=model, why=error.detail))
    except Exception:
        # Answers must reach the lake though it can't be tidied.
        if complaints.are_due(f"maintain {model}"):
            log.exception("maintenance_broke", extra=facts(model=model))
    else:
        seconds = round(time.monotonic() - started, 2)
        log.info("lake_maintained", extra=facts(model=model, seconds=seconds, forgotten=forgotten, **done))
