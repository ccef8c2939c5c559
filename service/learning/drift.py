"""Drift: every column's distance by a pinned method, and one test over all of them."""

from collections.abc import Sequence

import pandas as pd

from service.domain.check import ColumnDrift, DriftTest
from service.domain.policy import Drift
from service.domain.spec import Schema
from service.learning.blocks import in_phase
from service.learning.calibration import Bar, Calibration, bar_of
from service.learning.columns import FEWEST, PREDICTION, Pair, pairs_of, thinned
from service.learning.frames import EVENT_TIME
from service.learning.statistic import FIXED_THRESHOLDS, P_VALUES, as_distance, as_statistic, method_of, statistic_of

__all__ = ["Compared", "compare", "family_test"]

_SHOWN = 3
"""Columns that a reason names."""


class Compared:
    """Both sides as they are compared, and what each column is judged by."""

    def __init__(
        self, schema: Schema, policy: Drift, *, reference: pd.DataFrame, window: pd.DataFrame,
        calibration: Calibration | None = None,
    ) -> None:  # fmt: skip
        self.policy, self.bar, self.calibration = policy, bar_of(calibration, policy), calibration
        self._stretch = 1.0
        if calibration is not None and self.bar.limit is not None:
            reference, window = _sides(policy, calibration, reference, window)
        self.pairs = pairs_of(schema, policy, reference=reference, window=window)
        if calibration is not None and calibration.columns:
            any_column = next(iter(calibration.columns.values()))
            sides = min(len(window), policy.sample), min(len(reference), policy.sample)
            self._stretch = any_column.stretch(*sides)

    def column(self, pair: Pair) -> ColumnDrift:
        """Return how far one column has moved."""
        method = method_of(self.policy, pair)
        threshold, is_pinned = self._threshold(pair, method)
        statistic = None if pair.obstacle else statistic_of(method, pair)
        reason = pair.obstacle or pair.note
        if statistic is None and not reason:
            reason = f"not evaluated: {method} gave no finite number"
        elif statistic is not None and threshold is None:
            statistic, reason = None, "not evaluated: clean windows hold too few values to tell what is usual"
        drifted = None
        if statistic is not None and threshold is not None:
            drifted = statistic <= threshold if method in P_VALUES else statistic >= threshold
        return ColumnDrift(
            column=pair.column,
            role=pair.role,
            method=method,
            statistic=statistic,
            threshold=FIXED_THRESHOLDS[method] if threshold is None else threshold,
            drifted=drifted,
            reason=reason,
            score=None if is_pinned or statistic is None else self._score(pair, method, statistic),
            pinned=is_pinned,
        )

    def _threshold(self, pair: Pair, method: str) -> tuple[float | None, bool]:
        """Return the column's threshold, and whether it stands by itself, outside the family."""
        policy, limit = self.policy, self.bar.limit
        of_type = policy.numeric_threshold if pair.kind == "numeric" else policy.categorical_threshold
        pinned = policy.thresholds.get(pair.column, of_type)
        if pinned is not None:
            return pinned, True
        if method == "TVD":
            return FIXED_THRESHOLDS[method], True  # too dear to calibrate
        if limit is None or self.calibration is None:
            return FIXED_THRESHOLDS[method], False
        measured = self.calibration.columns.get(pair.column)
        if measured is None:
            return None, False
        return as_statistic(method, measured.threshold(limit.threshold, stretch=self._stretch)), False

    def _score(self, pair: Pair, method: str, statistic: float) -> float | None:
        if self.bar.limit is None or self.calibration is None:
            return None
        return self.calibration.columns[pair.column].score(as_distance(method, statistic), stretch=self._stretch)


def compare(
    schema: Schema, policy: Drift, *, reference: pd.DataFrame, window: pd.DataFrame,
    calibration: Calibration | None = None,
) -> tuple[tuple[ColumnDrift, ...], DriftTest]:  # fmt: skip
    """Return how far every feature, and the output, has moved, and the test over all of them.

    Parameters
    ----------
    schema
        Its features are all measured, in its order.
    policy
        Methods, and thresholds that the operator has set.
    reference, window
        Rows in canonical columns, with `output` where the output is to be measured; not changed.
    calibration
        Of the version; without it thresholds are fixed.

    Returns
    -------
    tuple of ColumnDrift, DriftTest
        One per feature and one for the prediction; what could not be evaluated says why.

    Raises
    ------
    CheckFailed
        If a feature's column is missing.
    """
    compared = Compared(schema, policy, reference=reference, window=window, calibration=calibration)
    columns = tuple(compared.column(pair) for pair in compared.pairs)
    return columns, family_test(calibration, policy, columns)


def family_test(calibration: Calibration | None, policy: Drift, columns: Sequence[ColumnDrift]) -> DriftTest:
    """Return the one test over a window's columns, as `compare` gave them with the same calibration and policy."""
    bar = bar_of(calibration, policy)
    alone = [column for column in columns if column.pinned and column.drifted]
    if calibration is None or bar.limit is None:
        return _by_fixed_thresholds(bar, policy, columns)
    family = sorted((c for c in columns if c.score is not None), key=lambda c: c.score or 0.0, reverse=True)
    above = [c.column for c in family if c.drifted]
    if PREDICTION in above:
        above = [PREDICTION, *(name for name in above if name != PREDICTION)]
    return DriftTest(
        state=bar.state,
        statistic=max((c.score for c in family if c.score is not None), default=0.0),
        threshold=bar.limit.threshold,
        blocks=len(calibration.statistics),
        level=bar.limit.level,
        expected_alarms=bar.expected,
        culprits=(*above, *(c.column for c in alone)),
        reason=_and_alone(bar.reason, alone),
    )


def _sides(
    policy: Drift, calibration: Calibration, reference: pd.DataFrame, window: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the reference's rows of like hours, and as dense a share of the window as was calibrated."""
    if calibration.season != "none" and len(window):
        times = window[EVENT_TIME]
        like = in_phase(reference[EVENT_TIME], first=times.min(), last=times.max(), season=calibration.season)
        reference = reference.loc[like]
    if calibration.share < 1:
        window = thinned(window, max(round(len(window) * calibration.share), policy.min_rows, FEWEST))
    return reference, window


def _by_fixed_thresholds(bar: Bar, policy: Drift, columns: Sequence[ColumnDrift]) -> DriftTest:
    """Return a verdict where nothing is known of clean windows: the share of columns beyond a fixed threshold."""
    features = [c for c in columns if c.role == "feature" and c.drifted is not None and not c.pinned]
    moved = sorted((c for c in features if c.drifted), key=_excess, reverse=True)
    output = [c for c in columns if c.role == "prediction" and c.drifted]
    alone = [c for c in columns if c.pinned and c.drifted and c not in output]
    is_many = bool(moved) and len(moved) >= policy.share * len(features)
    culprits = [*output, *(moved if is_many or output else []), *alone]
    words = f"{bar.reason}: fixed thresholds, and {policy.share:.0%} of the features beyond theirs, stand in for it"
    return DriftTest(
        state="uncalibrated",
        statistic=round(max((_excess(c) for c in columns if c.statistic is not None), default=0.0), 6),
        threshold=1.0,
        blocks=0,
        level=1.0,
        expected_alarms=None,
        culprits=tuple(c.column for c in culprits),
        reason=_and_alone(words, alone),
    )


def _and_alone(reason: str, alone: Sequence[ColumnDrift]) -> str:
    names = ", ".join(c.column for c in alone[:_SHOWN])
    return f"{reason}; {names} beyond a threshold of its own" if alone else reason


def _excess(column: ColumnDrift) -> float:
    """Return how many times over its threshold a column is; a p-value lies below its threshold."""
    if column.method in P_VALUES:
        return min(column.threshold / max(column.statistic or 0.0, 1e-300), 1e6)
    return (column.statistic or 0.0) / column.threshold
