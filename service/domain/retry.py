"""What a setback of a run leads to: another try after a pause that grows, or the end. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

__all__ = ["RETRIES", "Retry", "Setback", "pause_of"]

GROWTH = 6
"""Each pause is so many times the one before: what was not there a moment ago may need minutes."""


class Setback(StrEnum):
    """What went wrong. The value is the run's code; a closed set."""

    DATA_UNAVAILABLE = "data_unavailable"  # source, lake or database do not answer
    TRAIN_ERROR = "train_error"  # the model's own code: the same rows would raise it again
    RESOURCE = "resource"  # out of memory, or killed by a signal
    WORKER_LOST = "worker_lost"  # no trainer any more, or no leader, or no sign of life
    ARTIFACT = "artifact"  # the store could not write
    CORRUPT = "corrupt"  # the store gave back something else
    EVAL_ERROR = "eval_error"  # the gate, or the champion, could not judge
    CHAMPION_CHANGED = "champion_changed"  # it was judged against another one


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often one kind of setback is tried again, and whether after a pause."""

    times: int
    pauses: bool = False


RETRIES: Mapping[Setback, Retry] = {
    Setback.DATA_UNAVAILABLE: Retry(times=3, pauses=True),
    Setback.TRAIN_ERROR: Retry(times=0),
    Setback.RESOURCE: Retry(times=1),
    Setback.WORKER_LOST: Retry(times=1),
    Setback.ARTIFACT: Retry(times=2, pauses=True),
    Setback.CORRUPT: Retry(times=0),
    Setback.EVAL_ERROR: Retry(times=1),
    Setback.CHAMPION_CHANGED: Retry(times=2),
}
"""Counted for each kind by itself: a lake that was away twice takes nothing from a trainer that was killed once."""


def pause_of(setback: Setback, *, before: int, first: timedelta) -> timedelta | None:
    """Return the pause before the next try; None when it is not tried again.

    Parameters
    ----------
    setback
        What went wrong.
    before
        How often the run was tried again for it already.
    first
        The first pause.

    Examples
    --------
    >>> pause_of(Setback.DATA_UNAVAILABLE, before=1, first=timedelta(seconds=5)).total_seconds()
    30.0
    >>> pause_of(Setback.TRAIN_ERROR, before=0, first=timedelta(seconds=5)) is None
    True
    """
    retry = RETRIES[setback]
    if before >= retry.times:
        return None
    return first * GROWTH**before if retry.pauses else timedelta()
