"""When rows came: batches that were sent twice, clocks that are wrong, and old rows that arrive among new ones."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.check import Finding
from service.domain.duration import format_duration, parse_duration
from service.domain.policy import Quality
from service.domain.spec import Schema
from service.learning.frames import EVENT_TIME

__all__ = ["ANSWERED", "duplicates", "future", "late"]

ANSWERED = "answered_at"

_RECENT, _AHEAD, _FEWEST = 50, 0.8, 20
"""What is new is told by the newest fifth of the last fifty rows, and by twenty at least: one row with a wrong clock
makes no other one late."""


_BLOCK = 0.05
"""A stretch of so many of the window's rows..."""

_TWINS = 0.95
"""...of which so many have a twin was sent twice, if elsewhere..."""

_ELSEWHERE = 0.1
"""...at least so many stretches have few twins: rows that are alike by nature are so everywhere."""


def duplicates(schema: Schema, policy: Quality, *, reference: pd.DataFrame, window: pd.DataFrame) -> list[Finding]:
    """Find rows that repeat an earlier one of the window, where the reference's rows do not."""
    columns = [EVENT_TIME, *schema.names]
    share = float(_repeats(window, columns, keep="first").mean())
    has_times = EVENT_TIME in reference and len(reference)
    usual = float(_repeats(reference, columns, keep="first").mean()) if has_times else 0.0
    limit = min(usual + policy.duplicates, 1.0)
    if share <= limit:
        return _sent_twice(window, columns)
    words = (
        f"{share:.1%} of {len(window)} rows repeat an earlier one, event time included (limit {limit:.1%}): a batch "
        "sent twice?"
    )
    return [Finding(check="duplicates", column=None, value=share, limit=limit, reason=words)]


def _repeats(rows: pd.DataFrame, columns: list[str], *, keep: Literal["first", False]) -> NDArray[np.bool_]:
    """Return which rows repeat another; looked at in full are only those that share their event time with one."""
    found = rows[EVENT_TIME].duplicated(keep=False).to_numpy(copy=True)
    if found.any():
        found[found] = rows.loc[found, columns].duplicated(keep=keep).to_numpy()
    return found


def _sent_twice(window: pd.DataFrame, columns: list[str]) -> list[Finding]:
    """Find a stretch of event time in which nearly all rows come twice, however small a share of the window it is."""
    size = max(_FEWEST, round(_BLOCK * len(window)))
    twins = pd.Series(_repeats(window, columns, keep=False).astype(np.float64))
    by_stretch = twins.rolling(size).mean().dropna()
    if by_stretch.empty or by_stretch.max() < _TWINS or by_stretch.quantile(_ELSEWHERE) > 1 - _TWINS:
        return []
    rows = int((by_stretch >= _TWINS).sum()) + size - 1
    words = (
        f"in a stretch of at least {rows} of {len(window)} rows nearly all come twice, event time included, and "
        "elsewhere hardly any: a batch sent twice?"
    )
    return [Finding(check="duplicates", column=None, value=rows / len(window), limit=_BLOCK, reason=words)]


def future(policy: Quality, window: pd.DataFrame) -> list[Finding]:
    """Find rows that happened after they were answered."""
    if ANSWERED not in window.columns:
        return []
    share = float((window[EVENT_TIME] > window[ANSWERED]).mean())
    if share <= policy.future:
        return []
    words = (
        f"{share:.1%} of {len(window)} rows lie after the moment at which they were answered "
        f"(limit {policy.future:.1%}): a wrong clock or time zone upstream?"
    )
    return [Finding(check="future", column=None, value=share, limit=policy.future, reason=words)]


def late(policy: Quality, window: pd.DataFrame, stragglers: pd.DataFrame | None) -> list[Finding]:
    """Find rows that came long after newer ones had come.

    Parameters
    ----------
    stragglers
        Rows that came with the window's, or a little before them, and lie before it: event time and `answered_at`.

    Notes
    -----
    Late is by the stream's own order, never by the wall clock: a replay of ten years ago is in order. The finding
    says between which moments these rows were answered, so that those outside the window can be told from the good
    rows of their time.
    """
    if ANSWERED not in window.columns:
        return []
    columns = [EVENT_TIME, ANSWERED]
    sides = [window[columns]] if stragglers is None or stragglers.empty else [window[columns], stragglers[columns]]
    rows = pd.concat(sides, ignore_index=True)
    rows = rows[rows[EVENT_TIME] <= rows[ANSWERED]].sort_values([ANSWERED, EVENT_TIME], kind="stable")
    if rows.empty:
        return []
    times = rows[EVENT_TIME].astype("datetime64[us, UTC]").astype(np.int64).astype(np.float64)
    newest = times.rolling(_RECENT, min_periods=_FEWEST).quantile(_AHEAD).cummax().shift(1)
    behind = newest - times
    is_late = behind > parse_duration(policy.late_by).total_seconds() * 1e6
    share = float(is_late.mean())
    if share <= policy.late:
        return []
    most = pd.Timedelta(float(behind.max()), unit="us").to_pytimedelta()
    words = (
        f"{share:.1%} of {len(rows)} rows came when newer ones had come {policy.late_by} or more before, in event "
        f"time; the oldest is {format_duration(most)} behind (limit {policy.late:.1%}): an old batch sent again?"
    )
    answered = rows.loc[is_late, ANSWERED]
    moments = (answered.min().to_pydatetime(), answered.max().to_pydatetime())
    return [Finding(check="late", column=None, value=share, limit=policy.late, reason=words, answered=moments)]
