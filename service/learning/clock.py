"""Event times by another clock: columns that follow time of day or weekday come at other times than they did."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.check import Finding
from service.domain.policy import Quality
from service.domain.spec import Schema
from service.learning.frames import EVENT_TIME

__all__ = ["misplaced"]

Floats = NDArray[np.float64]

_SLOTS = 48
"""Half-hours of a day."""

_SUMMER_TIME = 2
"""Half-hours by which a column may be off: a reference of the winter does not know the summer's clock."""

_OBEYS = 0.99
"""A column is a clock when it has one and the same value at the same time of day, in this share of the reference..."""

_FACES = 12
"""...and so many different ones over a day."""

_WEEKDAYS = 7
_WEEKS = 3
"""Weeks of the reference that show that a column is the weekday: with another value for each."""

_DAYS = 2
"""Days that a daily profile needs."""

_LIKE, _UNLIKE = 0.8, 0.4
"""Profiles that correlate at least so much are alike; and only what correlates less by this much as it stands, and so
much more when it is moved, has been moved."""


def misplaced(policy: Quality, schema: Schema, *, reference: pd.DataFrame, window: pd.DataFrame) -> list[Finding]:
    """Find event times that lie off by hours; a daily profile or a clock among the columns shows it.

    Without either, nothing can be told. An hour is summer time.
    """
    if reference.empty or window.empty or EVENT_TIME not in reference:
        return []
    then, now = _slots(reference), _slots(window)
    profiles: list[tuple[str, Floats, Floats]] = []
    for feature in schema.features:
        if schema.is_text(feature) or feature.kind == "boolean":
            continue
        before = reference[feature.name].to_numpy(dtype=np.float64, na_value=np.nan)
        values = window[feature.name].to_numpy(dtype=np.float64, na_value=np.nan)
        faces = _faces(before, then)
        if faces is not None:
            share = _off(values, now, faces)
            if share > policy.clock:
                words = (
                    f"{feature.name} follows the time of day, and in {share:.1%} of {len(values)} rows it does not "
                    f"(limit {policy.clock:.0%}), by more than the hour of summer time: event times in another zone?"
                )
                return [Finding(check="clock", column=feature.name, value=share, limit=policy.clock, reason=words)]
            continue
        weekdays = _weekdays(before, reference)
        if weekdays is not None:
            known = np.isfinite(values)
            share = float((values != weekdays[_days(window)])[known].mean()) if known.any() else 0.0
            if share > policy.clock:
                words = (
                    f"{feature.name} follows the weekday, and in {share:.1%} of {len(values)} rows it does not (limit "
                    f"{policy.clock:.0%}): other codes, or event times of other days?"
                )
                return [Finding(check="clock", column=feature.name, value=share, limit=policy.clock, reason=words)]
        elif feature.kind == "numeric":
            profiles.append((feature.name, before, values))
    return _moved(profiles, reference, window, then // 2, now // 2)


def _slots(frame: pd.DataFrame) -> NDArray[np.int64]:
    times = frame[EVENT_TIME].dt
    slots: NDArray[np.int64] = (times.hour.to_numpy() * 2 + times.minute.to_numpy() // 30).astype(np.int64)
    return slots


def _faces(before: Floats, slots: NDArray[np.int64]) -> Floats | None:
    """Return the value of each half-hour, NaN where there is none; None where the column is no clock."""
    known = np.isfinite(before)
    if known.sum() < 2 * _SLOTS:
        return None
    faces = np.full(_SLOTS, np.nan)
    medians = pd.Series(before[known]).groupby(slots[known]).median()
    faces[medians.index.to_numpy()] = medians.to_numpy()
    if len(np.unique(faces[np.isfinite(faces)])) < _FACES:
        return None
    near = np.abs(before[known] - faces[slots[known]]) <= 1e-3 * (np.nanmax(faces) - np.nanmin(faces))
    return faces if near.mean() >= _OBEYS else None


def _days(frame: pd.DataFrame) -> NDArray[np.int64]:
    days: NDArray[np.int64] = frame[EVENT_TIME].dt.dayofweek.to_numpy().astype(np.int64)
    return days


def _weekdays(before: Floats, reference: pd.DataFrame) -> Floats | None:
    """Return the value of each weekday; None where the column is not the weekday."""
    known = np.isfinite(before)
    if (reference[EVENT_TIME].max() - reference[EVENT_TIME].min()) < pd.Timedelta(weeks=_WEEKS) or not known.any():
        return None
    days = _days(reference)
    medians = pd.Series(before[known]).groupby(days[known]).median()
    if len(medians) < _WEEKDAYS or medians.nunique() < _WEEKDAYS:
        return None
    found: Floats = np.asarray(medians, dtype=np.float64)
    return found if (before[known] == found[days[known]]).mean() >= _OBEYS else None


def _off(values: Floats, slots: NDArray[np.int64], faces: Floats) -> float:
    """Return the share of rows whose value belongs to no half-hour within summer time of their own."""
    room = 1e-3 * (np.nanmax(faces) - np.nanmin(faces))
    known = np.isfinite(values)
    right = np.zeros(int(known.sum()), dtype=bool)
    for shift in range(-_SUMMER_TIME, _SUMMER_TIME + 1):
        right |= np.abs(values[known] - faces[(slots[known] + shift) % _SLOTS]) <= room
    return float((~right).mean()) if len(right) else 0.0


def _moved(
    columns: list[tuple[str, Floats, Floats]],
    reference: pd.DataFrame,
    window: pd.DataFrame,
    then: NDArray[np.int64],
    now: NDArray[np.int64],
) -> list[Finding]:
    if (window[EVENT_TIME].max() - window[EVENT_TIME].min()) < pd.Timedelta(days=_DAYS):
        return []
    days: Any = (reference[EVENT_TIME] - reference[EVENT_TIME].min()).dt.days.to_numpy()
    lags: dict[str, tuple[int, float, float]] = {}
    faithful = 0
    for name, before, values in columns:
        usual, own = _profile(before, then), _profile(values, now)
        if usual is None or own is None:
            continue
        weeks = [_profile(before[days // 7 == week], then[days // 7 == week]) for week in np.unique(days // 7)]
        # Only a profile that every week of the reference has shown is one.
        if min((float(usual @ week) for week in weeks if week is not None), default=0.0) < _LIKE:
            continue
        faithful += 1
        fits = np.array([float(usual @ np.roll(own, lag)) for lag in range(24)])
        best = int(fits.argmax())
        if 2 <= best <= 22 and fits[best] >= _LIKE and fits[best] - fits[0] >= _UNLIKE:
            lags[name] = (best, float(fits[0]), float(fits[best]))
    if len(lags) < max(1, faithful) or len(lags) == 0:
        return []
    name, (lag, stands, moved) = next(iter(lags.items()))
    if any(abs(other - lag) > 1 for other, _, _ in lags.values()):
        return []
    hours = -lag if lag <= 12 else 24 - lag  # to put it right, it was moved on by the lag
    words = (
        f"the daily course of {', '.join(lags)} lies {hours:+d} h beside the reference's (correlation {stands:.2f} as "
        f"it stands, {moved:.2f} moved, needed {_LIKE:g}): event times in another zone?"
    )
    return [Finding(check="clock", column=name, value=float(hours), limit=1.0, reason=words)]


def _profile(values: Floats, hours: NDArray[np.int64]) -> Floats | None:
    """Return the daily course by the hour, centred and of length one; None where an hour is missing."""
    known = np.isfinite(values)
    counts = np.bincount(hours[known], minlength=24)
    if (counts == 0).any():
        return None
    course = np.bincount(hours[known], weights=values[known], minlength=24) / counts
    centred = course - course.mean()
    length = float(np.sqrt(centred @ centred))
    return centred / length if length > 0 else None
