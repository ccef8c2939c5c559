"""Label maturity: up to which moment have the labels mostly arrived? Early labels are biased, so newer rows wait."""

from itertools import pairwise

import numpy as np
import pandas as pd

from service.domain.duration import Window
from service.learning.frames import EVENT_TIME, LABEL

__all__ = ["mature_rows"]

RIPE = 0.8
"""A cohort is mature when its coverage is at least this share of the one that older cohorts have reached."""

_COHORTS = 28
"""Cohorts in a window: of a week, a quarter of a day each."""

_FEWEST = 10
"""Rows in a cohort at least."""

_AGES = 4
"""What older cohorts have reached is the best of so many parts of the rows."""

_NEIGHBOURS = 5
"""A cohort is looked at together with so many, itself among them."""


def mature_rows(answered: pd.DataFrame, window: Window) -> tuple[pd.DataFrame, float]:
    """Return the rows whose labels have mostly arrived, in time order, and the coverage that older cohorts reached.

    Parameters
    ----------
    answered
        `event_time` and `label` (null while unknown), any order; not changed.
    window
        Of a check: it gives the size of a cohort.

    Notes
    -----
    By what has arrived and not by a clock, so that a replay of ten years ago ripens as the years did. Churn that is
    known at once and loyalty that shows after a month make a young cohort look worse than it is; cohorts are therefore
    compared at equal maturity only.
    """
    ordered = answered.sort_values(EVENT_TIME, kind="stable")
    known = ordered[LABEL].notna().to_numpy()
    if not known.any():
        return ordered.iloc[:0], 0.0
    size = _size(ordered, window)
    # Counted back from the newest row: the oldest cohort is the one that may be cut off.
    bounds = np.arange(len(ordered), -1, -size)
    shares = np.array([known[low:high].mean() for high, low in pairwise(bounds)])
    if not len(shares):
        return ordered.iloc[: int(np.flatnonzero(known)[-1]) + 1], float(known.mean())
    parts = np.array_split(shares, min(_AGES, len(shares)))
    reached = max(float(part.mean()) for part in parts)
    ripe = shares >= RIPE * reached
    # A small cohort has its luck: most of those just before it, which are older, must be mature as well. Most, not the
    # mean of all: a short outage of the labels' source lowers the coverage, and sends nobody back before it.
    following = np.array([np.median(shares[place : place + _NEIGHBOURS]) for place in range(len(shares))])
    ripe &= following >= RIPE * reached
    if not ripe.any():
        return ordered.iloc[:0], reached
    newest = int(np.flatnonzero(ripe)[0])
    # Within the newest mature cohort, rows after its last label are as young as the next one.
    end = int(np.flatnonzero(known[: bounds[newest]])[-1]) + 1
    return ordered.iloc[:end], reached


def _size(ordered: pd.DataFrame, window: Window) -> int:
    if window.duration is None:
        return max(_FEWEST, (window.rows or 0) // _COHORTS)
    newest = ordered[EVENT_TIME].iloc[-1]
    inside = int((ordered[EVENT_TIME] > newest - window.duration).sum())
    return max(_FEWEST, inside // _COHORTS)
