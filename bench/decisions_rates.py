"""The arithmetic of the decision benches: intervals of a rate, thresholds at an equal rate, delays, fronts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = [
    "Rate",
    "best_within",
    "confirmed_alarms",
    "delays",
    "dominated",
    "matched_threshold",
    "median_delay",
    "poisson_interval",
    "rate_of",
]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often something happened, with the interval in which the true rate lies."""

    hits: int
    trials: int
    low: float
    high: float
    """Ends of the 95 % interval, by cluster: windows that share a reference share its luck."""
    binomial_low: float
    binomial_high: float
    """Ends of the 95 % interval that takes every window for a draw of its own."""

    @property
    def value(self) -> float:
        """The rate."""
        return self.hits / self.trials if self.trials else float("nan")


def rate_of(alarms: Array, confidence: float = 0.95) -> Rate:
    """Return the rate of alarms and its intervals.

    Parameters
    ----------
    alarms
        Booleans, shape (n_references, n_windows): the rows share nothing, the windows of a row share a reference.
    confidence
        Of both intervals.

    Notes
    -----
    The interval by cluster is Student's over the references' own rates. Where no reference differs from another (no
    alarm at all, say) it has no width to offer, and the binomial one of Clopper and Pearson takes its place.
    """
    hits, trials = int(alarms.sum()), int(alarms.size)
    tail = (1 - confidence) / 2
    exact_low = float(stats.beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    exact_high = float(stats.beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    rates = alarms.mean(axis=1)
    spread = float(rates.std(ddof=1)) if len(rates) > 1 else 0.0
    low, high = exact_low, exact_high
    if spread > 0:
        reach = float(stats.t.ppf(1 - tail, len(rates) - 1)) * spread / np.sqrt(len(rates))
        low, high = max(0.0, float(rates.mean()) - reach), min(1.0, float(rates.mean()) + reach)
    return Rate(hits=hits, trials=trials, low=low, high=high, binomial_low=exact_low, binomial_high=exact_high)


def poisson_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval in which the expectation of a count lies (Garwood)."""
    tail = (1 - confidence) / 2
    low = float(stats.gamma.ppf(tail, count)) if count else 0.0
    return low, float(stats.gamma.ppf(1 - tail, count + 1))


def confirmed_alarms(alarms: Array, confirm: int) -> int:
    """Return how often `confirm` alarms in a row began a state of alarm that none of them stood in before.

    Parameters
    ----------
    alarms
        Booleans in time order, shape (n_windows,).
    confirm
        So many in a row confirm one another; the state ends with the first window without an alarm.
    """
    run = count = 0
    for alarm in alarms:
        run = run + 1 if alarm else 0
        count += run == confirm
    return count


def matched_threshold(null: Array, alarms: int) -> float:
    """Return the threshold that exactly so many of the null statistics reach, as nearly as ties allow.

    Parameters
    ----------
    null
        Statistics of drift-free windows, any shape; larger is more suspicious.
    alarms
        How many of them may alarm, that is, lie at or above the threshold.

    Returns
    -------
    float
        Half way between the last that alarms and the first that does not; just above the largest for no alarm at all.
        With ties across the border fewer alarm, never more.
    """
    ordered = np.sort(np.asarray(null, dtype=np.float64).ravel())[::-1]
    if alarms >= len(ordered):
        return float(ordered[-1])
    below = float(ordered[alarms])
    if alarms > 0 and ordered[alarms - 1] > below:
        above = float(ordered[alarms - 1])
        middle = below + (above - below) / 2
        return middle if middle > below else above
    return float(np.nextafter(below, np.inf))


def delays(statistics: Array, threshold: float) -> NDArray[np.float64]:
    """Return in which window after its onset each shift is first seen: 1 is the first; infinite where it is missed.

    Parameters
    ----------
    statistics
        Shape (n_onsets, n_windows).
    threshold
        At or above it a window alarms.
    """
    alarms = statistics >= threshold
    return np.where(alarms.any(axis=1), alarms.argmax(axis=1) + 1.0, np.inf)


def median_delay(found: Array) -> float:
    """Return the median delay; a missed shift counts as later than every one that was found.

    With an even number of onsets it is the upper of the two in the middle: half a window was measured by nobody, and
    half of infinity is none.
    """
    return float(np.sort(found)[len(found) // 2])


def best_within(points: Sequence[tuple[int, float]], most: int, *, greater_is_better: bool) -> float | None:
    """Return the best quality among the points with at most `most` promotions; None if there is none."""
    within = [quality for count, quality in points if count <= most]
    if not within:
        return None
    return max(within) if greater_is_better else min(within)


def dominated(
    ours: Sequence[tuple[int, float]], other: tuple[int, float], *, greater_is_better: bool, slack: float = 0.0
) -> bool:
    """Return whether one of our points is at least as good as `other` with at most as many promotions.

    `slack` is how much worse still counts as equal; it is stated where it is not 0.
    """
    best = best_within(ours, other[0], greater_is_better=greater_is_better)
    if best is None:
        return False
    return best >= other[1] - slack if greater_is_better else best <= other[1] + slack
