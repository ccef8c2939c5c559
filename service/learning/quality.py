"""Data quality: is the window what the model's inputs can look like at all? Asked before anybody asks about drift.

Each check compares with the reference and knows what the reference itself did, so that a season, a holiday or a market
that opens is no breakage: those are for drift to tell.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.check import Finding
from service.domain.policy import Quality
from service.domain.spec import Feature, Schema
from service.learning.arrival import duplicates, future, late
from service.learning.encoding import recoded, stretches, swapped
from service.learning.frames import require

__all__ = ["look"]

Array = NDArray[Any]

_STILL = 3
"""A column is frozen when it stands still for so many times the longest stretch for which the reference did."""

_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

_SAME_FACTOR = 0.25
"""Quantiles whose factors differ by no more than this share were multiplied by one and the same factor."""

_NOUGHT = 1e-9
"""A quantile smaller than this share of the largest one is nought."""

_NEAR_NOUGHT = 0.6
"""Quantiles smaller than this share of the largest one are near nought, where there are values on both sides of it."""

_FEWEST = 20
"""With fewer values than this, nothing is said about a column's shape."""


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
    parts = stretches(reference, window)
    exchanged, moved = swapped(schema, policy, reference=reference, window=window, parts=parts)
    findings += exchanged
    for feature in schema.features:
        before, now = reference[feature.name], window[feature.name]
        # A column that stands in another's place breaks its own bounds, too: one cause, one finding.
        if feature.name not in moved:
            findings += _column(schema, policy, feature, before, now)
        if feature.kind == "categorical":
            findings += recoded(policy, feature, reference=before, window=now, parts=parts)
    return tuple(findings)


def _column(
    schema: Schema, policy: Quality, feature: Feature, reference: pd.Series, window: pd.Series
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
        scaled = _scale(policy, feature, before, values)
        # A column in another unit also leaves its bounds: one cause, one finding.
        findings += scaled or _out_of_range(policy, feature, before, values)
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


def _scale(policy: Quality, feature: Feature, before: Array, values: Array) -> list[Finding]:
    """Every quantile multiplied by about one factor, and a large one: another unit."""
    if len(before) < _FEWEST or len(values) < _FEWEST:
        return []
    old, new = np.quantile(before, _QUANTILES), np.quantile(values, _QUANTILES)
    size = float(np.abs(old).max()), float(np.abs(new).max())
    if min(size) == 0 or ((np.abs(old) <= size[0] * _NOUGHT) != (np.abs(new) <= size[1] * _NOUGHT)).any():
        return []
    # Between negative and positive values the quantiles near nought are noise: their factors say nothing.
    there = np.abs(old) > size[0] * (_NEAR_NOUGHT if old[0] < 0 < old[-1] else _NOUGHT)
    factors = new[there] / old[there]
    middle = float(np.median(factors))
    if middle <= 0 or np.abs(factors / middle - 1).max() > _SAME_FACTOR:
        return []
    if 1 / policy.scale < middle < policy.scale:
        return []
    words = (
        f"every quantile of {feature.name} is about {middle:.3g} times the reference's (median {old[2]:.4g}, now "
        f"{new[2]:.4g}; limit {policy.scale:g} times): another unit?"
    )
    return [_finding("scale", feature, middle, policy.scale, words)]


def _frozen(policy: Quality, feature: Feature, reference: pd.Series, window: pd.Series) -> list[Finding]:
    """Find a column that stands still for much longer than it ever did in the reference."""
    if not policy.constant or len(window) < _FEWEST or window.nunique() > 1 or reference.nunique() <= 1:
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
