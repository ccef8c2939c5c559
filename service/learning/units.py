"""Values in another unit: times a factor, converted by a known formula, or out of all reach in part of the rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.check import Finding
from service.domain.policy import Quality
from service.domain.spec import Feature
from service.learning.stretches import FEWEST_VALUES, LEVELS

__all__ = ["beyond", "converted", "scaled"]

Array = NDArray[Any]

_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

_SAME_FACTOR = 0.25
"""Quantiles whose factors differ by no more than this share were multiplied by one and the same factor."""

_NOUGHT = 1e-9
"""A quantile smaller than this share of the largest one is nought."""

_NEAR_NOUGHT = 0.6
"""Quantiles smaller than this share of the largest one are near nought, where there are values on both sides of it."""

_CONVERSIONS = {
    "Fahrenheit instead of Celsius": (1.8, 32.0),
    "Celsius instead of Fahrenheit": (1 / 1.8, -32.0 / 1.8),
    "Kelvin instead of Celsius": (1.0, 273.15),
    "Celsius instead of Kelvin": (1.0, -273.15),
}
"""Factor and summand. What has no summand is found by its factor."""

_FITS = 0.15
"""A conversion fits when the quantiles, converted back, lie so near, as a share of the reference's spread."""

_FAR = 0.75
"""And only what has moved by this share of the spread can have been converted..."""

_BETTER = 5.0
"""...and lies so many times nearer when converted back."""

_REACH = 2.0
"""Beyond all reach is what lies so many times the reference's whole range outside it."""

_AT_HOME = 0.2
"""Only where this share of the rows is where it was: from one row to the next, no world moves so far."""

_SHARE = 0.03
"""Share of the rows that may be beyond all reach."""

_COUNT = 8
"""Fewer rows there say nothing of what lies between."""

_BETWEEN = 0.25
"""...and so many as a share of these lie between there and the reference's range where it is the world that leaps: a
price that spikes passes through what lies between, another unit does not."""


def scaled(policy: Quality, feature: Feature, before: Array, values: Array) -> list[Finding]:
    """Every quantile multiplied by about one factor, and a large one: another unit."""
    if len(before) < FEWEST_VALUES or len(values) < FEWEST_VALUES:
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


def converted(feature: Feature, before: Array, values: Array) -> list[Finding]:
    """Find a column that fits the reference when it is converted back, and not as it stands."""
    if len(before) < FEWEST_VALUES or len(values) < FEWEST_VALUES:
        return []
    old, new = np.quantile(before, LEVELS), np.quantile(values, LEVELS)
    spread = float(old[-1] - old[0])
    if spread <= 0:
        return []
    own = float(np.abs(new - old).mean() / spread)
    for name, (factor, summand) in _CONVERSIONS.items():
        left = float(np.abs((new - summand) / factor - old).mean() / spread)
        if own >= _FAR and left <= min(_FITS, own / _BETTER):
            words = (
                f"{feature.name} fits the reference only if it is {name} (median {np.median(before):.4g}, now "
                f"{np.median(values):.4g}; {own:.3g} spreads away as it stands, {left:.3g} converted back, limit "
                f"{_FITS:g})"
            )
            return [_finding("conversion", feature, left, _FITS, words)]
    return []


def beyond(feature: Feature, before: Array, values: Array) -> list[Finding]:
    """Find rows that lie far outside all that the reference held, beside others that are where they were."""
    if len(before) < FEWEST_VALUES or len(values) < FEWEST_VALUES:
        return []
    low, high = float(before.min()), float(before.max())
    reach = _REACH * (high - low)
    if reach <= 0:
        return []
    far = (values < low - reach) | (values > high + reach)
    share = float(far.mean())
    at_home = float(((values >= low) & (values <= high)).mean())
    if share <= _SHARE or far.sum() < _COUNT or at_home < _AT_HOME or 1 - at_home - share >= _BETWEEN * share:
        return []
    words = (
        f"{feature.name} lies beyond [{low - reach:.4g}, {high + reach:.4g}], far outside all that the reference held, "
        f"in {share:.1%} of {len(values)} rows (limit {_SHARE:.0%}), while {at_home:.0%} lie inside it: another unit "
        "in part of the rows?"
    )
    return [_finding("beyond", feature, share, _SHARE, words)]


def _finding(check: str, feature: Feature, value: float, limit: float, reason: str) -> Finding:
    return Finding(check=check, column=feature.name, value=value, limit=limit, reason=reason)
