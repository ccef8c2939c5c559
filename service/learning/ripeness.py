"""Which labels are complete: where truths are still arriving, the rows that have theirs are not like the others."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from service.domain.duration import format_duration, parse_duration
from service.domain.policy import Training
from service.learning.frames import EVENT_TIME, between

__all__ = ["OBSERVED", "Maturity", "coverage", "embargo_of", "maturity_of"]

OBSERVED = "observed_at"
_PARTS = 14
_EXPECTED = 20
"""A part of the stretch holds so many labels, by its median share, before its share says anything."""
_RIPE = 0.7
"""A part whose share of labels lies below this of the others' is still waiting for some of them."""


@dataclass(frozen=True, kw_only=True)
class Maturity:
    """How far labels have come in.

    Attributes
    ----------
    until
        Newer rows are not looked at; None where nothing is to be left out.
    delay
        Median time from a row to its label; None where no answered row has one.
    reason
        In words.
    """

    until: datetime | None = None
    delay: timedelta | None = None
    reason: str = "all rows come from the starting data set: their labels were there from the start"


def maturity_of(arrivals: pd.DataFrame | None) -> Maturity:
    """Return how far the labels of the newest answered rows have come in.

    Parameters
    ----------
    arrivals
        `event_time` and `observed_at` (null: no label yet) of the newest stretch of answered rows, up to the newest
        one that has a label; any order, not changed.

    Notes
    -----
    The stretch is cut into parts of equally many rows. From its new end on, parts are left out as long as their share
    of labels lies well below the median part's: a constant delay, and labels that are only ever sampled, leave out
    nothing. Never more than half of the stretch.
    """
    if arrivals is None or not arrivals[OBSERVED].notna().any():
        return Maturity()
    ordered = arrivals.sort_values(EVENT_TIME, kind="stable")
    known = ordered[OBSERVED].notna().to_numpy()
    waited = (ordered[OBSERVED] - ordered[EVENT_TIME])[known].dt.total_seconds()
    delay = timedelta(seconds=max(float(waited.median()), 0.0))
    count = int(min(_PARTS, known.sum() // _EXPECTED))
    words = f"labels take {format_duration(delay)} (median)"
    if count < 4:
        return Maturity(delay=delay, reason=words)
    shares = np.array([part.mean() for part in np.array_split(known, count)])
    ripe = count
    while ripe > count - count // 2 and shares[ripe - 1] < _RIPE * np.median(shares):
        ripe -= 1
    if ripe == count:
        return Maturity(delay=delay, reason=words)
    last = sum(len(part) for part in np.array_split(known, count)[:ripe]) - 1
    until: datetime = ordered[EVENT_TIME].iloc[last].to_pydatetime()
    left_out = len(ordered) - 1 - last
    reason = (
        f"{words}, and those of the newest {left_out} answered rows are still arriving ({shares[ripe:].mean():.0%} are "
        f"here, of older rows {np.median(shares):.0%}): rows after {until:%Y-%m-%d %H:%M} are left out"
    )
    return Maturity(until=until, delay=delay, reason=reason)


def coverage(arrivals: pd.DataFrame | None, *, after: datetime, until: datetime) -> tuple[int, int]:
    """Return how many rows were answered in the stretch, and how many of them have a label."""
    if arrivals is None:
        return 0, 0
    stretch = between(arrivals, after=after, until=until)
    return len(stretch), int(stretch[OBSERVED].notna().sum())


def embargo_of(policy: Training, maturity: Maturity) -> timedelta:
    """Return what is left out between the rows that are fitted on and the holdout."""
    if policy.embargo == "none":
        return timedelta(0)
    if policy.embargo != "delay":
        return parse_duration(policy.embargo)
    return min(maturity.delay or timedelta(0), parse_duration(policy.holdout))
