"""The committer's process: spool to lake, again and again, and the lake's maintenance between."""

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.domain.errors import RetrueError
from service.journal import facts
from service.storage.committer import Committed, Committer
from service.storage.lake import Lake
from service.storage.spool import spool_bytes

__all__ = ["commit_until"]

log = logging.getLogger(__name__)

COMPLAIN_S = 10.0
"""The same trouble is told again at most so often."""


def commit_until(  # the parts of one small process
    stop: threading.Event, spool: Path, lake: Lake, *, every_s: float, maintain_s: float, telemetry: Any
) -> None:
    """Commit what is ready until `stop`, then once more: what workers wrote while leaving goes in too."""
    committer = Committer(
        spool,
        lake,
        on_commit=lambda done: _count(telemetry, done),
        on_damage=lambda path, why: _damage(telemetry, path, why),
    )
    complained = 0.0
    maintain_at = time.monotonic() + maintain_s
    while True:
        is_last = stop.is_set()
        started = time.monotonic()
        report = committer.run_once()
        if report.commits:
            telemetry.commit_seconds.observe(time.monotonic() - started)
        if report.errors and time.monotonic() - complained > COMPLAIN_S:
            complained = time.monotonic()
            log.warning("commit_failed", extra=facts(left=report.left, why=report.errors[0]))
        telemetry.spool_bytes.set(spool_bytes(spool))
        telemetry.spool_oldest_seconds.set(_oldest_s(spool))
        if is_last:
            return
        if time.monotonic() >= maintain_at:
            _maintain(lake, _models(lake))
            maintain_at = time.monotonic() + maintain_s
        stop.wait(every_s)


def _count(telemetry: Any, done: Committed) -> None:
    telemetry.commits.labels(kind=done.kind, outcome="ok").inc()
    telemetry.committed_rows.labels(model=done.model, kind=done.kind).inc(done.rows)
    if done.kind == "predictions":
        telemetry.lake_lag_seconds.labels(model=done.model).set(max(time.time() - done.oldest_us / 1e6, 0.0))


def _oldest_s(spool: Path) -> float:
    """Return the age of the oldest segment that waits, in seconds; 0 when none does."""
    begun = [time.time()]
    for segment in spool.glob("*/*.ready"):
        with suppress(FileNotFoundError):
            begun.append(segment.stat().st_mtime)
    return max(time.time() - min(begun), 0.0)


def _damage(telemetry: Any, path: Path, why: str) -> None:
    telemetry.damaged_segments.inc()
    log.error("segment_damaged", extra=facts(segment=path.name, why=why))


def _maintain(lake: Lake, models: Iterable[str]) -> None:
    for model in models:
        started = time.monotonic()
        try:
            done = lake.maintain(model)
        except RetrueError as error:
            log.warning("maintenance_failed", extra=facts(model=model, why=error.detail))
        else:
            log.info("lake_maintained", extra=facts(model=model, seconds=round(time.monotonic() - started, 2), **done))


def _models(lake: Lake) -> list[str]:
    folder = Path(lake.root) / "predictions"
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
