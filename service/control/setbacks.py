"""What went wrong with a run, written down in one transaction: back to the queue after a pause, or its end."""

from concurrent.futures.process import BrokenProcessPool
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from service.domain.errors import ArtifactInvalid, LakeUnavailable, RetrueError, SpecInvalid, TrainingFailed
from service.domain.retry import Setback, pause_of
from service.domain.run import RunState
from service.domain.version import VersionState
from service.storage import runs, versions
from service.storage.runs import Run

__all__ = ["FIRST_PAUSE", "drop_version", "set_back", "setback_of"]

FIRST_PAUSE = timedelta(seconds=5)
"""Before the first try again of what may come back by itself; each further pause is longer."""


def setback_of(error: Exception, state: RunState) -> Setback | None:
    """Return what kind of setback it is that a trainer met in `state`; None for an end with a code of its own."""
    if isinstance(error, TrainingFailed):
        return None
    if isinstance(error, BrokenProcessPool):
        return Setback.RESOURCE  # a process that the estimator started was killed
    is_store = isinstance(error, LakeUnavailable | OSError)
    if state is RunState.PACKAGING:
        if isinstance(error, ArtifactInvalid):
            return Setback.CORRUPT
        if is_store:
            return Setback.ARTIFACT
    elif isinstance(error, ArtifactInvalid) or state is RunState.EVALUATING:
        return Setback.EVAL_ERROR  # the champion's artifact, or whatever is met while judging
    is_source = isinstance(error, SpecInvalid) and error.facts.get("field") == "source"
    if isinstance(error, LakeUnavailable) or is_source or (is_store and state is RunState.PREPARING):
        return Setback.DATA_UNAVAILABLE
    return None if isinstance(error, RetrueError) else Setback.TRAIN_ERROR


def set_back(
    conn: Connection,
    run: Run,
    setback: Setback,
    *,
    why: str,
    actor: str,
    at: datetime,
    token: int | None,
    first_pause: timedelta = FIRST_PAUSE,
    **columns: Any,
) -> Run:
    """Queue the run for another try, or end it where it has been tried often enough.

    Parameters
    ----------
    run
        A run at work, as it stands in this transaction.
    at
        The database's time; a pause counts from it.
    columns
        Of the run, written with the transition.
    """
    before = runs.retried(conn, run.id, setback.value)
    pause = pause_of(setback, before=before, first=first_pause)
    common: dict[str, Any] = {"actor": actor, "at": at, "token": token, "code": setback.value, "detail": why, **columns}
    if pause is not None:
        drop_version(conn, run)
        again = at + pause if pause else None
        words = f"{why}; tried again" + (f" in {pause.total_seconds():.0f} s" if pause else "")
        return runs.transition(
            conn, run.id, RunState.QUEUED, reason=words, attempt=run.attempt + 1, not_before=again, **common
        )
    if setback is not Setback.EVAL_ERROR:  # nobody judged that version: it stays a candidate, for a person to look at
        drop_version(conn, run)
    words = f"{why}; given up after {before + 1} tries" if before else why
    common.setdefault("decided_event_time", run.decided_event_time or run.until)
    return runs.transition(conn, run.id, RunState.FAILED, reason=words, **common)


def drop_version(conn: Connection, run: Run) -> None:
    """Take the version of a run that goes on, or ends, without it off the list of those that want to answer."""
    row = None if run.version is None else versions.find(conn, run.model, run.version)
    if row is not None and row.state in {VersionState.CANDIDATE, VersionState.APPROVED}:
        versions.set_state(conn, run.model, row.version, VersionState.REJECTED)
