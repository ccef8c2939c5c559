"""Drift: Evidently's statistic for every column, by pinned methods, called directly.

Its report computes each statistic three times, draws every plot, and dies of one bad column; a verdict needs the
number.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd

from service.domain.check import ColumnDrift
from service.domain.policy import Drift
from service.domain.spec import Schema
from service.learning.columns import Pair, pairs_of
from service.learning.foreign import (
    ColumnType,
    StatTest,
    jensenshannon_stat_test,
    ks_stat_test,
    psi_stat_test,
    tvd_test,
    wasserstein_stat_test,
)

__all__ = ["measure", "measure_pair", "method_of", "quiet_evidently"]

_TESTS: dict[str, StatTest] = {
    "wasserstein": wasserstein_stat_test,
    "ks": ks_stat_test,
    "psi": psi_stat_test,
    "jensenshannon": jensenshannon_stat_test,
    "TVD": tvd_test,
}

_THRESHOLDS = {"wasserstein": 0.25, "jensenshannon": 0.25, "psi": 0.25, "ks": 0.001, "TVD": 0.002}
"""Where the policy names none."""

_TYPES = {"numeric": ColumnType.Numerical, "categorical": ColumnType.Categorical}


def measure(schema: Schema, policy: Drift, *, reference: pd.DataFrame, window: pd.DataFrame) -> tuple[ColumnDrift, ...]:
    """Return how far every feature, and the output, has moved.

    Parameters
    ----------
    schema
        Its features are all measured, in its order.
    policy
        Methods and thresholds.
    reference, window
        Rows in canonical columns, with `output` where the output is to be measured; not changed.

    Returns
    -------
    tuple of ColumnDrift
        One per feature and one for the prediction; what could not be evaluated says why.

    Raises
    ------
    CheckFailed
        If a feature's column is missing.
    """
    return tuple(measure_pair(policy, pair) for pair in pairs_of(schema, policy, reference=reference, window=window))


def measure_pair(policy: Drift, pair: Pair) -> ColumnDrift:
    """Return how far one column has moved."""
    method, threshold = method_of(policy, pair)
    statistic: float | None = None
    drifted: bool | None = None
    reason = pair.obstacle
    if not reason:
        with quiet_evidently():
            result = _TESTS[method](pair.reference, pair.window, _TYPES[pair.kind], threshold)
        statistic, drifted, reason = float(result.drift_score), bool(result.drifted), pair.note
        if not np.isfinite(statistic):
            statistic, drifted, reason = None, None, f"not evaluated: {method} gave no finite number"
    return ColumnDrift(
        column=pair.column,
        role=pair.role,
        method=method,
        statistic=statistic,
        threshold=threshold,
        drifted=drifted,
        reason=reason,
    )


def method_of(policy: Drift, pair: Pair) -> tuple[str, float]:
    """Return the method and the threshold for one column."""
    numeric = pair.kind == "numeric"
    method = policy.numeric if numeric else policy.categorical
    threshold = policy.numeric_threshold if numeric else policy.categorical_threshold
    return method, policy.thresholds.get(pair.column, threshold if threshold is not None else _THRESHOLDS[method])


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
