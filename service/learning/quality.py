"""Data quality: is the window what the model's inputs can look like at all? Asked before anybody asks about drift.

Each check compares with the reference and knows what the reference itself did, so that a season, a holiday or a market
that opens is no breakage: those are for drift to tell.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.check import Finding
from service.domain.policy import Quality
from service.domain.spec import Feature, Schema
from service.learning.arrival import duplicates, future, late
from service.learning.atoms import atoms, usual_atom
from service.learning.clock import misplaced
from service.learning.columns import thinned
from service.learning.encoding import recoded, swapped
from service.learning.frames import EVENT_TIME, require
from service.learning.stretches import FEWEST_VALUES, stretches
from service.learning.units import beyond, converted, scaled

__all__ = ["look"]

Array = NDArray[Any]

_STILL = 3
"""A column is frozen when it stands still for so many times the longest stretch for which the reference did."""

_TAILS = (0.5, 0.25, 0.1)
"""What broke inside the window is looked for in the newest such shares of its rows, too."""

_STRETCHES = 8
"""...where the reference has so many stretches of that length, none of which looks broken by the same measure."""

_MOST_ROWS = 50_000
"""A column's shape is told from at most so many rows, spread evenly."""

_MOST_STRETCHES = 100
"""At most so many of them are looked at, spread evenly."""

_GONE = frozenset({"nulls", "all_null", "constant", "sentinel"})
"""Findings of a column whose values are not there..."""

_TOGETHER = 1 / 3
"""...and of so many columns at once: that is one cause."""


def look(
    schema: Schema,
    policy: Quality,
    *,
    reference: pd.DataFrame,
    window: pd.DataFrame,
    stragglers: pd.DataFrame | None = None,
) -> tuple[Finding, ...]:
    """Return every broken expectation of a window.

    Parameters
    ----------
    schema
        Says which columns there are, and what they declare.
    policy
        The limits.
    reference
        Rows the champion learned from, in time order.
    window
        Rows to judge, in time order, with `answered_at` where it is known when they were answered.
    stragglers
        Rows that came with the window's and lie before it; see `service.learning.arrival.late`.

    Returns
    -------
    tuple of Finding
        Findings on the whole window first, then by column in the schema's order; empty when nothing is broken.

    Raises
    ------
    CheckFailed
        If a feature's column is missing.
    """
    require(schema, reference)
    require(schema, window)
    if window.empty:
        return ()
    findings = duplicates(schema, policy, reference=reference, window=window)
    findings += [*future(policy, window), *late(policy, window, stragglers)]
    moved = misplaced(policy, schema, reference=reference, window=window)
    window = thinned(window, _MOST_ROWS)
    columns = _columns(schema, policy, reference=reference, window=window)
    # A clock that is broken itself also disagrees with the event times: one cause, one finding.
    findings += [one for one in moved if one.column not in {other.column for other in columns}] + columns
    if not findings:
        findings = _tails(schema, policy, reference=reference, window=window)
    return tuple(_together(schema, findings))


def _columns(
    schema: Schema, policy: Quality, *, reference: pd.DataFrame, window: pd.DataFrame, is_tail: bool = False
) -> list[Finding]:
    parts = stretches(reference, window)
    findings, moved = swapped(schema, policy, reference=reference, window=window, parts=parts)
    for feature in schema.features:
        before, now = reference[feature.name], window[feature.name]
        # A column that stands in another's place breaks its own bounds, too: one cause, one finding.
        if feature.name not in moved:
            # For some hours a price may stand where it never stood: in a tail only what lies far outside is an atom.
            usual = usual_atom(before, parts) if feature.kind == "numeric" and not is_tail else 1.0
            findings += _column(schema, policy, feature, before, now, usual=usual)
        if feature.kind == "categorical":
            findings += recoded(policy, feature, reference=before, window=now, parts=parts)
    return findings


def _tails(schema: Schema, policy: Quality, *, reference: pd.DataFrame, window: pd.DataFrame) -> list[Finding]:
    """Find what broke inside the window: its newest rows, against stretches of the reference that are as short.

    A night, a Sunday or a storm is as odd beside eight weeks as a broken sensor; what tells them apart is that the
    reference had some of its own.
    """
    for share in _TAILS:
        size = round(share * len(window))
        if size < FEWEST_VALUES or len(reference) < size * _STRETCHES:
            continue
        tail = window.iloc[-size:]
        found = _columns(schema, policy, reference=reference, window=tail, is_tail=True)
        found = [one for one in found if not _known(schema, policy, one, reference, size)]
        if found:
            since = f"{tail[EVENT_TIME].iloc[0]:%Y-%m-%d %H:%M}"
            return [replace(one, reason=f"{one.reason} (the newest {size} rows, since {since})") for one in found]
    return []


def _known(schema: Schema, policy: Quality, finding: Finding, reference: pd.DataFrame, size: int) -> bool:
    """Return whether a stretch of the reference shows the same finding."""
    if finding.check == "unseen" and finding.value is not None and finding.value < 1:
        return True  # something new now and then is no new code
    starts = np.linspace(0, len(reference) - size, min(len(reference) // size, _MOST_STRETCHES)).astype(np.int64)
    feature = next((one for one in schema.features if one.name == finding.column), None)
    for start in starts:
        part = reference.iloc[start : start + size]
        if feature is None:
            same = swapped(schema, policy, reference=reference, window=part, parts=[])[0]
        elif finding.check in {"recoded", "missing"}:
            rest = [slice(other, other + size) for other in starts if other != start]
            same = recoded(policy, feature, reference=reference[feature.name], window=part[feature.name], parts=rest)
        else:
            same = _column(schema, policy, feature, reference[feature.name], part[feature.name], usual=1.0)
        if any(other.check == finding.check for other in same):
            return True
    return False


def _together(schema: Schema, findings: list[Finding]) -> list[Finding]:
    """Put one finding in front where several columns' values are gone at once: a join that missed."""
    columns = list(dict.fromkeys(one.column for one in findings if one.check in _GONE and one.column is not None))
    share = len(columns) / len(schema.features)
    if len(columns) < 2 or share < _TOGETHER:
        return findings
    words = (
        f"{len(columns)} of {len(schema.features)} columns are empty or at one value at once ({', '.join(columns[:4])}"
        f"{' …' if len(columns) > 4 else ''}; limit {_TOGETHER:.0%}): a join that missed?"
    )
    return [Finding(check="join", column=None, value=share, limit=_TOGETHER, reason=words), *findings]


def _column(
    schema: Schema, policy: Quality, feature: Feature, reference: pd.Series, window: pd.Series, *, usual: float
) -> list[Finding]:
    nulls = _nulls(policy, feature, reference, window)
    known, known_before = window.dropna(), reference.dropna()
    if nulls or known.empty:
        return nulls
    if feature.kind == "categorical":
        return [*_unseen(schema, policy, feature, known_before, known), *_frozen(policy, feature, known_before, known)]
    values, before = (side.to_numpy(dtype=np.float64) for side in (known, known_before))
    findings = _infinite(feature, values)
    values, before = values[np.isfinite(values)], before[np.isfinite(before)]
    if feature.kind == "numeric" and len(values):
        # A column in another unit also leaves its bounds: one cause, one finding.
        findings += (
            scaled(policy, feature, before, values)
            or converted(feature, before, values)
            or atoms(policy, feature, before, values, usual=usual)
            or beyond(feature, before, values)
            or _out_of_range(policy, feature, before, values)
        )
    return findings + _frozen(policy, feature, pd.Series(before), pd.Series(values))


def _nulls(policy: Quality, feature: Feature, reference: pd.Series, window: pd.Series) -> list[Finding]:
    now = float(window.isna().mean())
    before = float(reference.isna().mean()) if len(reference) else 0.0
    limit = before + policy.null_rise
    if now <= before or (now <= limit and now < 1):
        return []
    if now == 1:
        words = f"{feature.name} is null in all {len(window)} rows (before: {before:.1%})"
        return [_finding("all_null", feature, now, min(limit, 1.0), words)]
    words = f"{feature.name} is null in {now:.1%} of {len(window)} rows (before: {before:.1%}, limit {limit:.1%})"
    return [_finding("nulls", feature, now, limit, words)]


def _infinite(feature: Feature, values: Array) -> list[Finding]:
    share = float(np.isinf(values).mean())
    if share == 0:
        return []
    return [
        _finding("infinite", feature, share, 0.0, f"{feature.name} is infinite in {share:.1%} of {len(values)} rows")
    ]


def _unseen(
    schema: Schema, policy: Quality, feature: Feature, reference: pd.Series, window: pd.Series
) -> list[Finding]:
    as_key = str if schema.is_text(feature) else int
    known = {as_key(value) for value in feature.categories or ()} | {as_key(value) for value in reference.unique()}
    counts = window.value_counts()
    held = zip(map(as_key, counts.index), counts.tolist(), strict=True)
    strangers = [(value, count) for value, count in held if value not in known]
    share = sum(count for _, count in strangers) / len(window)
    if share <= policy.unseen:
        return []
    named = ", ".join(repr(value) for value, _ in strangers[:3]) + (" …" if len(strangers) > 3 else "")
    words = (
        f"{feature.name} holds unseen categories ({named}) in {share:.1%} of {len(window)} rows "
        f"(limit {policy.unseen:.1%})"
    )
    return [_finding("unseen", feature, share, policy.unseen, words)]


def _out_of_range(policy: Quality, feature: Feature, before: Array, values: Array) -> list[Finding]:
    low = -math.inf if feature.low is None else feature.low
    high = math.inf if feature.high is None else feature.high
    share = float(((values < low) | (values > high)).mean())
    usual = float(((before < low) | (before > high)).mean()) if len(before) else 0.0
    limit = usual + policy.out_of_range
    if share <= limit:
        return []
    words = (
        f"{feature.name} lies outside [{low:g}, {high:g}] in {share:.1%} of {len(values)} rows (limit {limit:.1%}); "
        f"it ranges from {values.min():.4g} to {values.max():.4g}"
    )
    return [_finding("out_of_range", feature, share, limit, words)]


def _frozen(policy: Quality, feature: Feature, reference: pd.Series, window: pd.Series) -> list[Finding]:
    """Find a column that stands still for much longer than it ever did in the reference."""
    if not policy.constant or len(window) < FEWEST_VALUES or window.nunique() > 1 or reference.nunique() <= 1:
        return []
    longest = _longest_run(reference.to_numpy())
    limit = _STILL * longest
    if len(window) < limit:
        return []
    words = (
        f"{feature.name} is {window.iloc[0]!s} in all {len(window)} rows; in the reference it never stood still for "
        f"more than {longest}"
    )
    return [_finding("constant", feature, float(len(window)), float(limit), words)]


def _longest_run(values: Array) -> int:
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    return int(np.diff(np.concatenate([[0], changes, [len(values)]])).max())


def _finding(check: str, feature: Feature, value: float, limit: float, reason: str) -> Finding:
    return Finding(check=check, column=feature.name, value=value, limit=limit, reason=reason)
