"""A change detector on matured losses: whether a champion's loss has risen for certain, or by chance.

A one-sided CUSUM over blocks of rows. Its threshold is what the same statistic reaches when holdout and window are both
drawn again, in contiguous pieces, from the holdout's own blocks: losses that follow one another (a hard day comes after
a hard day) raise the threshold, and so does a short holdout.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.learning.losses import Blocks
from service.learning.resampling import block_length

__all__ = ["LEVEL", "Change", "change"]

Floats = NDArray[np.float64]

LEVEL = 0.05
"""Share of sound windows that are called worse."""

_ALLOWANCE = 0.25
"""A block adds to the sum what it lies above the holdout's mean, less this, in standard deviations of a block."""

_FEWEST = (8, 4)
"""Blocks of the holdout, and of the window, below which nothing is concluded."""

_SHARE = 0.5
"""The threshold is drawn at this share of the level: on a fortnight's blocks the draws know too little of the tail. At
the whole level 7.5 % of sound windows were called worse instead of 5 % (autoregressive losses, 14 blocks)."""

_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the detector says; `worse` is None where it cannot tell."""

    worse: bool | None
    reason: str
    statistic: float | None = None
    threshold: float | None = None


def change(holdout: Mapping[str, Any] | None, now: Blocks | None, *, level: float = LEVEL, seed: int = 0) -> Change:
    """Return whether the losses of `now` have risen over those of the version's holdout.

    Parameters
    ----------
    holdout
        Blocks of the version's own holdout as they are stored with it; None for a version without them.
    now
        Blocks of the matured window; None where the metric is no mean over rows.
    level
        Share of sound windows that may be called worse.
    seed
        Of the draws.
    """
    if now is None:
        return Change(worse=None, reason="the metric is no mean over rows: only its value as a whole is compared")
    if holdout is None:
        return Change(worse=None, reason="the version holds no losses of its holdout: there is nothing to compare with")
    before = Blocks.from_json(holdout)
    if before.by != now.by:
        return Change(worse=None, reason=f"the holdout was cut by {before.pitch}, the window by {now.pitch}")
    if len(before.means) < _FEWEST[0] or len(now.means) < _FEWEST[1]:
        words = (
            f"{len(before.means)} blocks of the holdout and {len(now.means)} of the window; {_FEWEST[0]} and "
            f"{_FEWEST[1]} are needed"
        )
        return Change(worse=None, reason=words)
    if before.means.std() == 0:
        return Change(
            worse=None, reason=f"the holdout's blocks all have the loss {before.mean:.4g}: no spread is known"
        )
    statistic = float(_cusum(before.means[None, :], now.means[None, :])[0])
    threshold = _threshold(before.means, len(now.means), level=level, seed=seed)
    risen = statistic > threshold
    words = (
        f"loss {now.mean:.4g} over {len(now.means)} blocks of {now.pitch}, {before.mean:.4g} over {len(before.means)} "
        f"of the holdout: CUSUM {statistic:.3g} is {'above' if risen else 'not above'} {threshold:.3g}, which "
        f"{level:.0%} of sound windows exceed"
    )
    return Change(worse=risen, reason=words, statistic=statistic, threshold=threshold)


def _cusum(before: Floats, now: Floats) -> Floats:
    """Return, for each pair of rows, the one-sided CUSUM at the end of `now` by the mean and spread of `before`."""
    spread = np.maximum(before.std(axis=1, ddof=1, keepdims=True), np.finfo(np.float64).tiny)
    above = (now - before.mean(axis=1, keepdims=True)) / spread - _ALLOWANCE
    # The sum since whichever block makes it largest: what has risen and come back is no rise any more.
    tails: Floats = np.cumsum(above[:, ::-1], axis=1)
    highest: Floats = np.maximum(tails.max(axis=1), 0.0)
    return highest


def _threshold(before: Floats, blocks: int, *, level: float, seed: int) -> float:
    random = np.random.default_rng(seed)
    piece = max(2, block_length(before))
    pairs = _cusum(_drawn(random, before, len(before), piece), _drawn(random, before, blocks, piece))
    # A fortnight has fourteen days: what they never showed, the normal curve knows.
    return max(float(np.quantile(pairs, 1 - _SHARE * level)), _normal(len(before), blocks, level, seed))


@lru_cache(maxsize=64)
def _normal(before: int, blocks: int, level: float, seed: int) -> float:
    random = np.random.default_rng(seed)
    sums = _cusum(random.normal(size=(4 * _DRAWS, before)), random.normal(size=(4 * _DRAWS, blocks)))
    return float(np.quantile(sums, 1 - _SHARE * level))


def _drawn(random: np.random.Generator, series: Floats, length: int, piece: int) -> Floats:
    """Return `_DRAWS` series of `length`, put together from contiguous pieces of the circle that `series` makes."""
    starts = random.integers(0, len(series), (_DRAWS, math.ceil(length / piece)))
    places = (starts[:, :, None] + np.arange(piece)).reshape(_DRAWS, -1)[:, :length] % len(series)
    drawn: Floats = series[places]
    return drawn
