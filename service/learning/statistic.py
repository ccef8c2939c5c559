"""Evidently's statistic for one pair of columns, called directly, by a pinned method.

Its report computes each statistic three times, draws every plot, and dies of one bad column; a verdict needs the
number.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from service.domain.policy import Drift
from service.learning.columns import Pair
from service.learning.foreign import (
    ColumnType,
    StatTest,
    jensenshannon_stat_test,
    ks_stat_test,
    psi_stat_test,
    tvd_test,
    wasserstein_stat_test,
)

__all__ = [
    "FIXED_THRESHOLDS",
    "P_VALUES",
    "as_distance",
    "as_statistic",
    "method_of",
    "quiet_evidently",
    "statistic_of",
]

_TESTS: dict[str, StatTest] = {
    "wasserstein": wasserstein_stat_test,
    "ks": ks_stat_test,
    "psi": psi_stat_test,
    "jensenshannon": jensenshannon_stat_test,
    "TVD": tvd_test,
}

FIXED_THRESHOLDS = {"wasserstein": 0.25, "jensenshannon": 0.25, "psi": 0.25, "ks": 0.001, "TVD": 0.002}
"""Where nothing is calibrated and the policy names none."""

P_VALUES = frozenset({"ks", "TVD"})
"""Methods whose statistic is a p-value: small is far."""

_TYPES = {"numeric": ColumnType.Numerical, "categorical": ColumnType.Categorical}
_SMALLEST_P = 1e-300


def method_of(policy: Drift, pair: Pair) -> str:
    """Return the method for one column."""
    return policy.numeric if pair.kind == "numeric" else policy.categorical


def statistic_of(method: str, pair: Pair) -> float | None:
    """Return Evidently's statistic; None where it gives no finite number."""
    with quiet_evidently():
        result = _TESTS[method](pair.reference, pair.window, _TYPES[pair.kind], FIXED_THRESHOLDS[method])
    statistic = float(result.drift_score)
    return statistic if np.isfinite(statistic) else None


def as_distance(method: str, statistic: float) -> float:
    """Return the statistic as something that grows with the distance: of a p-value the number of its noughts."""
    return -math.log10(max(statistic, _SMALLEST_P)) if method in P_VALUES else statistic


def as_statistic(method: str, distance: float) -> float:
    """Return the method's statistic at a distance."""
    return 10.0 ** -min(max(distance, 0.0), 300.0) if method in P_VALUES else distance


@contextmanager
def quiet_evidently() -> Iterator[None]:
    """Keep Evidently's marks off the process: one of its tests reseeds numpy's global state, others warn."""
    state = np.random.get_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            np.random.set_state(state)
