"""Atoms: one value in many rows that the reference hardly knew. A sentinel, or the end of a clipped range."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.check import Finding
from service.domain.policy import Quality
from service.domain.spec import Feature
from service.learning.stretches import FEWEST_STRETCHES, FEWEST_VALUES

__all__ = ["atoms", "usual_atom"]

Array = NDArray[Any]

_COUNT = 4
"""So few rows at one value are chance."""

_VARIED = 20
"""A column with fewer values than this is a row of atoms by itself: in it, only a far value is odd."""

_STANDS_OUT = 4.0
"""An atom is so many times as frequent as the most frequent other value, as it was in the reference, and as the largest
atom that any stretch of the reference had."""

_GAP = 0.2
"""A far value lies outside all that the reference held, and apart from all else in the window, by this share of the
reference's range: the hottest days of the year come with hot ones."""

_CLIPPED = 2.0
"""An end of the range needs to be so many times as large an atom as any that a stretch of the reference had: that
nothing lies beyond it speaks as well."""

_BEYOND = 0.02
"""A range is clipped where this share of the reference lay beyond its new end."""


def usual_atom(column: pd.Series, parts: Sequence[slice]) -> float:
    """Return the largest share of one value in any stretch of the reference; 1 where there are too few of them.

    A price that is agreed on for some days makes an atom each week, each at a value that no other week knows: by the
    value alone, every such week looks like a sentinel.
    """
    if len(parts) < FEWEST_STRETCHES:
        return 1.0
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    finite = (numbers[part][np.isfinite(numbers[part])] for part in parts)
    shares = [
        float(np.unique(one, return_counts=True)[1].max()) / len(one) for one in finite if len(one) >= FEWEST_VALUES
    ]
    return max(shares, default=1.0)


def atoms(policy: Quality, feature: Feature, before: Array, values: Array, *, usual: float) -> list[Finding]:
    """Find the value in which too many rows sit, one or the two ends of a range.

    Parameters
    ----------
    before, values
        Finite values of the reference and of the window.
    usual
        As `usual_atom` gave it: a value within the reference's range is only odd far above it.

    Notes
    -----
    A column on a grid (whole degrees) holds many values of about the same frequency; none stands out, and none is
    found. That is also why an ordinary value of such a column cannot be told from a sentinel.
    """
    if len(before) < FEWEST_VALUES or len(values) < FEWEST_VALUES:
        return []
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:3]
    shares = np.append(counts[order] / len(values), 0.0)
    low, high = float(before.min()), float(before.max())
    if low == high or len(found) < 2:
        return []  # what stands still is told as such
    gap = _GAP * (high - low)
    for place, value, share in zip(order, found[order], shares, strict=False):
        apart = float(np.min(np.abs(np.delete(found, place) - value)))
        if (
            (value < low - gap or value > high + gap)
            and apart > gap
            and share > policy.atom
            and counts[place] >= _COUNT
        ):
            far = "far outside all that the reference held"
            return [_told(policy.atom, feature, float(value), float(share), 0.0, far)]
    for leading in (1, 2):
        least = shares[leading - 1]
        if least > policy.atom and least >= _STANDS_OUT * shares[leading] and counts[order[leading - 1]] >= _COUNT:
            return _standing_out(policy, feature, before, values, found[order[:leading]], largest=usual)
    return []


def _standing_out(
    policy: Quality, feature: Feature, before: Array, values: Array, which: Array, *, largest: float
) -> list[Finding]:
    if len(np.unique(before)) < _VARIED:
        return []
    for value in which:
        share, usual = float((values == value).mean()), float((before == value).mean())
        if share < _STANDS_OUT * usual:
            continue
        above, below = float((before > value).mean()), float((before < value).mean())
        limit = max(policy.atom, _CLIPPED * largest)
        if share > limit and value == values.max() and above >= _BEYOND:
            return [_told(limit, feature, float(value), share, usual, _end("above", above), check="clipped")]
        if share > limit and value == values.min() and below >= _BEYOND:
            return [_told(limit, feature, float(value), share, usual, _end("below", below), check="clipped")]
        limit = max(policy.atom, _STANDS_OUT * largest)
        if share > limit:
            return [_told(limit, feature, float(value), share, usual, "and no other value is nearly as frequent")]
    return []


def _end(side: str, share: float) -> str:
    return f"nothing lies {side} it, where {share:.0%} of the reference lay"


def _told(
    limit: float, feature: Feature, value: float, share: float, usual: float, why: str, *, check: str = "sentinel"
) -> Finding:
    cause = "a sentinel for unknown values?" if check == "sentinel" else "values clipped?"
    words = (
        f"{feature.name} is {value:g} in {share:.1%} of the rows (before: {usual:.1%}, limit {limit:.0%}), {why}"
        f": {cause}"
    )
    return Finding(check=check, column=feature.name, value=share, limit=limit, reason=words)
