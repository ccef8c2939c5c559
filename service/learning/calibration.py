"""Calibrated drift: one family-wise test over all columns, whose threshold comes from clean windows of the reference.

Every clean window is compared with the reference without it, at the same hours of the week where a window is shorter
than one. The largest of the columns' scaled distances is the statistic (Westfall and Young's max-T): that many columns
are looked at, and that they move together, is in its distribution already.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from service.domain.budget import Budget, parse_budget
from service.domain.duration import Window, parse_duration, parse_window
from service.domain.policy import Drift
from service.domain.spec import Schema
from service.learning.blocks import Season, blocks_of, cut, season_of
from service.learning.columns import FEWEST, thinned, values_of
from service.learning.distances import distances_of, is_fast
from service.learning.frames import EVENT_TIME, require
from service.learning.level import Limit, limit_of, wide_limit_of

__all__ = ["ROWS", "Bar", "Calibration", "Measured", "bar_of", "calibrate"]

_DAYS = 90.0
"""Expected alarms are told for so many days."""
_WINDOWS_NEEDED = 40
"""Clean windows below which nothing is promised: see docs/adr/0011."""
_FEWEST_WINDOWS = 4
"""Below so many not even a spread can be told."""
_MOST_WINDOWS = 400
_MOST_VALUES = 4e8
"""Of all windows together: with many rows and columns fewer windows are looked at, though never fewer than 100."""
_MOST_ASKED = 60
"""Windows, where Evidently itself is asked for each: some milliseconds a column."""
ROWS = 4
"""A calibration looks at most at so many times the rows that one check compares."""
_WEIGHT_FLOOR = 0.2
"""Of the mean weight: what the model hardly uses needs a larger shift, and is never ignored."""
_SCALE_FLOOR = 0.25
"""Over the square root of a window's rows: the deviation of a Jensen-Shannon distance between independent rows. A
column may not count as more regular than that, or one odd row in a column that stood still would be drift."""
_LOWEST = 1.0
"""No window has drifted whose columns all lie within one deviation of what clean windows show."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What clean windows show of one column."""

    centre: float
    scale: float
    weight: float
    """Relative to the mean weight: its share of the family's level."""
    own_rows: float
    """Rows of a clean window, and of what it was compared with."""
    other_rows: float

    def threshold(self, limit: float, *, stretch: float = 1.0) -> float:
        """Return the distance at which the column alone brings the family's statistic to `limit`."""
        deviations = math.sqrt(max(limit * abs(limit) - 2 * math.log(self.weight), _LOWEST))
        return (self.centre + self.scale * deviations) * stretch

    def score(self, distance: float, *, stretch: float = 1.0) -> float:
        """Return what `distance` brings to the family's statistic."""
        deviations = (distance / stretch - self.centre) / self.scale
        return float(_weighted(np.array([deviations]), self.weight)[0])

    def stretch(self, own_rows: int, other_rows: int) -> float:
        """Return by how much a distance grows by chance because fewer rows take part than in the calibration."""
        now, then = 1 / max(own_rows, 1) + 1 / max(other_rows, 1), 1 / self.own_rows + 1 / self.other_rows
        return max(1.0, math.sqrt(now / then))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the clean windows of a version's reference show; belongs to the version and changes only with it."""

    made_for: str
    """Digest of what the windows depend on: for another window or method it is no calibration."""
    columns: dict[str, Measured]
    statistics: tuple[float, ...]
    """Of the clean windows, in time order."""
    places: tuple[int, ...]
    """Their numbers on the time line."""
    season: Season
    share: float
    """Of the rows that were looked at; a check thins its window by the same."""
    checks: float
    """Expected in 90 days."""
    reason: str = ""
    """Why there is nothing to calibrate with, where that is so."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @staticmethod
    def from_json(plain: Mapping[str, Any] | None) -> "Calibration | None":
        """Return what `to_json` gave; None where a version has none, or another release wrote it."""
        try:
            return None if not plain else TypeAdapter(Calibration).validate_python(plain)
        except ValidationError:
            return None


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The limit of the family's statistic under a policy."""

    state: Literal["calibrated", "uncalibrated"] = "uncalibrated"
    limit: Limit | None = None
    """None where there is nothing to take it from: every column has a fixed threshold then."""
    expected: float | None = None
    reason: str


def calibrate(
    schema: Schema, policy: Drift, reference: pd.DataFrame, weights: Mapping[str, float] | None = None,
    *, shift: float = 0.0, rows: int | None = None,
) -> Calibration:  # fmt: skip
    """Return what the clean windows of a reference show.

    Parameters
    ----------
    schema
        The version's.
    policy
        Window, methods and sample.
    reference
        Rows that the version learned from, with `output`.
    weights
        Importance of each feature to the version; all alike when left out.
    shift
        Distance between the version's answers to rows that it has learned from and to rows that it has not: the
        reference's answers are of the former kind, a window's of the latter.
    rows
        How many there were before `reference` was thinned evenly; it was not when left out. A window of so many rows
        would be cut too long otherwise.

    Raises
    ------
    CheckFailed
        If a feature's column is missing.
    """
    require(schema, reference)
    ordered = reference.sort_values(EVENT_TIME, kind="stable", ignore_index=True)
    kept = thinned(ordered, ROWS * policy.sample).reset_index(drop=True)
    rows = len(ordered) if rows is None else rows
    share = len(kept) / max(rows, 1)
    span = kept[EVENT_TIME].iloc[-1] - kept[EVENT_TIME].iloc[0] if len(kept) else pd.Timedelta(0)
    window = parse_window(policy.window)
    blank = Calibration(
        made_for=_made_for(policy), columns={}, statistics=(), places=(), season="none", share=share,
        checks=_checks(policy, window, rows=rows, span=span),
    )  # fmt: skip
    if len(kept) < 2 or span <= timedelta(0):
        return replace(blank, reason="the reference holds no stretch of time")
    stretches = cut(
        kept[EVENT_TIME], window, share=share, fewest=max(FEWEST, round(policy.min_rows * share)),
        most=_most(schema, policy, rows=len(kept)), in_a_row=max(policy.confirm, 2),
    )  # fmt: skip
    if len(stretches) < _FEWEST_WINDOWS:
        return replace(blank, reason=f"the reference holds {len(stretches)} windows of {window}")
    length = window.duration or float(np.mean([stop - start for _, start, stop in stretches])) / len(kept) * span
    season = season_of(span, length)
    return _measured(blank, schema, policy, kept, stretches, season=season, weights=weights, shift=shift)


def bar_of(calibration: Calibration | None, policy: Drift) -> Bar:
    """Return the limit that the policy's budget sets among the clean windows."""
    if calibration is None:
        return Bar(reason="this version was stored without a calibration")
    if calibration.made_for != _made_for(policy):
        why = "the policy's window, methods or sample are not those that this version was calibrated for"
        return Bar(reason=why)
    if not calibration.statistics:
        return Bar(reason=calibration.reason)
    budget = parse_budget(policy.false_alarms)
    rate = budget.in_days(_DAYS) / calibration.checks
    many = len(calibration.statistics)
    if many < _WINDOWS_NEEDED:
        wide = wide_limit_of(calibration.statistics, rate=rate, confirm=policy.confirm)
        why = f"{many} windows of the reference are too few to promise anything, {_WINDOWS_NEEDED} are needed"
        words = f"{why}: the wider of a t-bound and the largest of them with a margin applies"
        return Bar(limit=_raised(wide), reason=words)
    limit = _raised(limit_of(calibration.statistics, calibration.places, rate=rate, confirm=policy.confirm))
    return Bar(
        state="calibrated",
        limit=limit,
        expected=limit.confirmed * calibration.checks,
        reason=_promise(budget, limit, calibration, policy.confirm),
    )


def _measured(
    blank: Calibration, schema: Schema, policy: Drift, kept: pd.DataFrame, stretches: Sequence[tuple[int, int, int]],
    *, season: Season, weights: Mapping[str, float] | None, shift: float,
) -> Calibration:  # fmt: skip
    blocks = blocks_of(kept, stretches, season=season)
    shares = _weights(schema, weights)
    own_rows = float(np.mean([block.own.sum() for block in blocks]))
    other_rows = float(np.mean([block.rest.sum() for block in blocks]))
    floor = _SCALE_FLOOR / math.sqrt(own_rows)
    columns: dict[str, Measured] = {}
    scores = []
    for values in values_of(schema, kept):
        if values.kind == "categorical" and policy.categorical == "TVD":
            continue  # a thousand permutations for every window: it keeps its fixed threshold
        ready = distances_of(values, policy)
        found = np.array([np.nan if (d := ready.distance(block)) is None else d for block in blocks])
        if np.isfinite(found).sum() < _FEWEST_WINDOWS:
            continue
        weight = max(shares.values()) if values.role == "prediction" else shares[values.column]
        spread = max(float(np.nanstd(found, ddof=1)), floor)
        columns[values.column] = Measured(
            centre=float(np.nanmean(found)) + (shift if values.role == "prediction" else 0.0),
            scale=spread, weight=weight, own_rows=own_rows, other_rows=other_rows,
        )  # fmt: skip
        scores.append(_weighted(_left_out(found, floor), weight))
    if not scores:
        return replace(blank, reason="no column of the reference can be compared window by window")
    largest = np.nanmax(np.where(np.isnan(scores), -np.inf, scores), axis=0)
    told = [(b.place, float(t)) for b, t in zip(blocks, largest, strict=True) if np.isfinite(t)]
    return replace(
        blank, columns=columns, season=season,
        places=tuple(place for place, _ in told), statistics=tuple(round(t, 6) for _, t in told),
    )  # fmt: skip


def _most(schema: Schema, policy: Drift, *, rows: int) -> int:
    """Return how many windows are looked at, at most, so that a calibration takes seconds."""
    if not is_fast(policy.numeric, policy.categorical):
        return _MOST_ASKED
    return int(np.clip(_MOST_VALUES / (rows * len(schema.features)), 100, _MOST_WINDOWS))


def _left_out(found: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """Return each window's distance in deviations of the others, as a new window's will be.

    With its own among them an odd window would widen its own yardstick: over fifty columns that hides so much that
    0.05 becomes 0.2.
    """
    many = np.isfinite(found).sum() - 1
    centred = found - np.nanmean(found)
    centre = (np.nansum(centred) - centred) / many
    squares = np.nansum(centred**2) - centred**2 - many * centre**2
    scores: NDArray[np.float64] = (centred - centre) / np.maximum(np.sqrt(np.maximum(squares, 0) / (many - 1)), floor)
    return scores


def _weighted(deviations: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """Return scores after their weight: the share of the family's level that the column is given.

    A normal tail falls as exp(-z²/2), so that a share w of the level is z² + 2 ln w. Multiplying the score itself would
    blind the test for all but the heaviest columns.
    """
    squared = np.maximum(deviations**2 + 2 * math.log(weight), 0.0)
    scores: NDArray[np.float64] = np.where(deviations >= _LOWEST, np.sqrt(squared), deviations - _LOWEST)
    return scores


def _weights(schema: Schema, weights: Mapping[str, float] | None) -> dict[str, float]:
    """Return each feature's weight, 1 on average, none below a fifth of that before they are scaled."""
    given = {name: max(float((weights or {}).get(name, 0.0)), 0.0) for name in schema.names}
    mean = sum(given.values()) / len(given)
    if mean <= 0:
        return dict.fromkeys(given, 1.0)
    floored = {name: max(weight / mean, _WEIGHT_FLOOR) for name, weight in given.items()}
    total = sum(floored.values()) / len(floored)
    return {name: weight / total for name, weight in floored.items()}


def _checks(policy: Drift, window: Window, *, rows: int, span: timedelta) -> float:
    """Return how many checks 90 days hold."""
    length = timedelta(days=_DAYS)
    if policy.every is not None:
        return length / parse_duration(policy.every)
    if window.duration is not None:
        return length / window.duration
    return max(rows * (length / span) / (window.rows or 1), 1.0) if span > timedelta(0) else 1.0


def _made_for(policy: Drift) -> str:
    text = json.dumps([str(parse_window(policy.window)), policy.numeric, policy.categorical, policy.sample])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _raised(limit: Limit) -> Limit:
    return limit if limit.threshold >= _LOWEST else replace(limit, threshold=_LOWEST)


def _promise(budget: Budget, limit: Limit, calibration: Calibration, confirm: int) -> str:
    beyond = "" if limit.rank >= 1 else ", which lies beyond the largest of them: extrapolated by an exponential tail"
    phase = "" if calibration.season == "none" else f" at the same hours of the {calibration.season}"
    return (
        f"a budget of {budget} and {confirm} in a row leave each check {limit.level:.2g}, "
        f"taken from {len(calibration.statistics)} clean windows{phase}{beyond}"
    )
