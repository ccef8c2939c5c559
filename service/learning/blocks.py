"""The clean windows of a reference: as long as a check's, and compared with like hours where seasons are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.duration import Window
from service.learning.frames import EVENT_TIME

__all__ = ["Block", "Season", "blocks_of", "cut", "in_phase", "is_short", "season_of"]

Season = Literal["week", "day", "none"]
DAY, WEEK = timedelta(days=1), timedelta(days=7)
_SEASONS: dict[Season, timedelta | None] = {"week": WEEK, "day": DAY, "none": None}
_WHOLE = 0.9
"""A window of this share of a season holds the whole of it."""
_SEASONS_NEEDED = 4
"""So many whole seasons must lie in the reference before windows are compared phase by phase."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One clean window: its rows, and those that it is compared with, as masks over the reference's rows."""

    place: int
    """Its number on the time line: consecutive numbers are adjacent windows."""
    own: NDArray[np.bool_]
    rest: NDArray[np.bool_]


def is_short(window: Window) -> bool:
    """Return whether a window may be shorter than a week, so that its hours matter."""
    return window.duration is None or window.duration < _WHOLE * WEEK


def season_of(span: timedelta, window: timedelta) -> Season:
    """Return by which season windows are compared: like hours with like hours, where the reference knows them."""
    if window >= _WHOLE * WEEK:
        return "none"
    if span >= _SEASONS_NEEDED * WEEK:
        return "week"
    if window < _WHOLE * DAY and span >= _SEASONS_NEEDED * DAY:
        return "day"
    return "none"


def in_phase(times: pd.Series, *, first: pd.Timestamp, last: pd.Timestamp, season: Season) -> NDArray[np.bool_]:
    """Return which moments lie at the same hours of the day or week as the stretch from `first` to `last`."""
    period = _SEASONS[season]
    if period is None or last - first >= _WHOLE * period:
        return np.ones(len(times), dtype=bool)
    length = round(period.total_seconds() * 1e6)
    moments = times.to_numpy(dtype="datetime64[us]").astype(np.int64)
    since = (moments - first.value // 1000) % length
    within: NDArray[np.bool_] = since <= (last - first) // pd.Timedelta(microseconds=1)
    return within


def cut(
    times: pd.Series, window: Window, *, share: float, fewest: int, most: int, in_a_row: int
) -> list[tuple[int, int, int]]:
    """Return adjacent stretches of rows as long as a window: ``(place, start, stop)``, the oldest first.

    Parameters
    ----------
    times
        Event times, sorted.
    window
        What one check looks at.
    share
        Of the rows that are left after thinning.
    fewest
        A stretch with fewer rows is no window.
    most
        At most so many stretches, spread evenly, ...
    in_a_row
        ...in groups of so many adjacent ones.
    """
    found: list[tuple[int, int, int]] = []
    if window.duration is not None:
        moments = times.to_numpy(dtype="datetime64[us]").astype(np.int64)
        length = round(window.duration.total_seconds() * 1e6)
        end = int(moments[-1])
        gap = (end - int(moments[0])) / max(len(moments) - 1, 1)  # the first row stands for the time before it, too
        count = int((end - int(moments[0]) + gap) // length)
        edges = end - length * np.arange(count, -1, -1)
        places = np.searchsorted(moments, edges, side="right")
    else:
        rows = max(round((window.rows or 1) * share), 1)
        count = len(times) // rows
        places = len(times) - rows * np.arange(count, -1, -1)
    for place, (start, stop) in enumerate(pairwise(places)):
        if stop - start >= fewest:
            found.append((place, int(start), int(stop)))
    if len(found) <= most:
        return found
    starts = np.linspace(0, len(found) - in_a_row, most // in_a_row).astype(int)
    wanted = sorted({int(start) + i for start in starts for i in range(in_a_row)})
    return [found[i] for i in wanted]


def blocks_of(frame: pd.DataFrame, stretches: Sequence[tuple[int, int, int]], *, season: Season) -> list[Block]:
    """Return each stretch with what it is compared with: the reference without it, at the same hours."""
    times, found = frame[EVENT_TIME], []
    for place, start, stop in stretches:
        own = np.zeros(len(frame), dtype=bool)
        own[start:stop] = True
        phase = in_phase(times, first=times.iloc[start], last=times.iloc[stop - 1], season=season)
        found.append(Block(place=place, own=own, rest=phase & ~own))
    return found
