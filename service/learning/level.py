"""From a budget of confirmed false alarms to a threshold on the statistic of clean windows.

The windows of a reference are few, so that the threshold is itself uncertain. What is held is the chance that new
clean windows lie above it, averaged over that uncertainty: for the k-th largest of B it is known exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

__all__ = ["Limit", "limit_of", "wide_limit_of"]

HIGHEST_LEVEL = 0.05
"""However large the budget: a verdict that is wrong more often than once in twenty windows is believed by nobody."""
_TAIL = 0.2
"""Share of the windows whose excesses give the tail beyond the largest of them."""
_PAIRS = 10
"""Adjacent windows from which their dependence is told."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A threshold, and what it promises."""

    threshold: float
    level: float
    """Share of clean windows at or above it."""
    confirmed: float
    """Share of checks of clean data that end a row of `confirm` windows above it."""
    rank: float
    """It is the value of this rank among the reference's windows; below 1 it lies beyond the largest."""
    dependence: float
    """Correlation of adjacent windows' statistics."""


def limit_of(statistics: Sequence[float], places: Sequence[int], *, rate: float, confirm: int) -> Limit:
    """Return the threshold that new clean windows exceed so seldom that confirmed alarms keep to `rate`.

    Parameters
    ----------
    statistics
        Of the reference's windows.
    places
        Their numbers on the time line: adjacent windows show how far alarms cluster.
    rate
        Confirmed alarms that are allowed per check.
    confirm
        So many windows in a row are a confirmed alarm.

    Notes
    -----
    The chance that `confirm` new windows all lie above the k-th largest of B earlier ones, all exchangeable, is
    Γ(k + c) Γ(B + 1) / (Γ(k) Γ(B + 1 + c)), whatever the distribution. Where adjacent windows depend on each other it
    is multiplied by what a Gaussian copula with their correlation gives. Between ranks the threshold is interpolated;
    below rank 1 it is continued with an exponential tail fitted to the largest fifth.
    """
    many, t = len(statistics), np.sort(np.asarray(statistics, dtype=np.float64))[::-1]
    dependence = _dependence(np.asarray(statistics, dtype=np.float64), np.asarray(places), confirm)
    rate = min(rate, 1.0)
    clustering = _clustering(rate ** (1 / confirm), dependence, confirm)
    rank = min(_rank(many, confirm, rate / clustering), HIGHEST_LEVEL * (many + 1))
    return Limit(
        threshold=_at_rank(t, rank),
        level=rank / (many + 1),
        confirmed=min(clustering * math.exp(_log_chance(rank, many, confirm)), rate),
        rank=rank,
        dependence=dependence,
    )


def wide_limit_of(statistics: Sequence[float], *, rate: float, confirm: int) -> Limit:
    """Return a threshold from too few windows: the wider of a t-bound for new values and the largest with a margin."""
    t = np.asarray(statistics, dtype=np.float64)
    many, spread = len(t), float(np.std(t, ddof=1))
    level = min(min(rate, 1.0) ** (1 / confirm), HIGHEST_LEVEL)
    bound = float(np.mean(t)) + float(stats.t.isf(level / 2, many - 1)) * spread * math.sqrt(1 + 1 / many)
    return Limit(
        threshold=max(bound, float(t.max()) + spread), level=level, confirmed=level**confirm, rank=0.0, dependence=0.0
    )


def _log_chance(rank: float, many: int, confirm: int) -> float:
    g = special.gammaln
    return float(g(rank + confirm) - g(rank) + g(many + 1) - g(many + 1 + confirm))


def _rank(many: int, confirm: int, rate: float) -> float:
    wanted = math.log(max(rate, 1e-300))
    low, high = 1e-9, float(many)
    if _log_chance(low, many, confirm) >= wanted:
        return low
    if _log_chance(high, many, confirm) <= wanted:
        return high
    return float(optimize.brentq(lambda rank: _log_chance(rank, many, confirm) - wanted, low, high))


def _at_rank(t: NDArray[np.float64], rank: float) -> float:
    """Return the value of a rank among descending values."""
    if rank >= 1:
        return float(np.interp(rank, np.arange(1, len(t) + 1), t))
    tail = max(math.ceil(_TAIL * len(t)), 5)
    excess = float(np.mean(t[:tail] - t[min(tail, len(t) - 1)]))
    return float(t[0]) + excess * math.log(1 / rank)


def _dependence(t: NDArray[np.float64], places: NDArray[np.int64], confirm: int) -> float:
    if confirm < 2 or len(t) < 3:
        return 0.0
    adjacent = np.diff(places) == 1
    if adjacent.sum() < _PAIRS:
        return 0.0
    scores = stats.norm.ppf(stats.rankdata(t) / (len(t) + 1))
    one, other = scores[:-1][adjacent], scores[1:][adjacent]
    if np.std(one) == 0 or np.std(other) == 0:
        return 0.0
    return float(np.clip(np.corrcoef(one, other)[0, 1], 0.0, 0.95))


def _clustering(level: float, dependence: float, confirm: int) -> float:
    """Return how many times likelier a row of exceedances is than among independent windows."""
    if dependence <= 0 or confirm < 2 or level >= 1:
        return 1.0
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    z = stats.norm.isf(level)
    above = stats.norm.sf((z - math.sqrt(dependence) * nodes) / math.sqrt(1 - dependence))
    return max(float(weights @ above**confirm / weights.sum()) / level**confirm, 1.0)
