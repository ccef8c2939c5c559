"""Performance without labels: an estimate, marked as one, that says when it does not hold. It never promotes.

It sees the inputs and the scores alone. A world in which the same inputs mean something else leaves it as it was: only
labels tell of that.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.check import Estimate
from service.domain.spec import Schema
from service.learning.frames import OUTPUT
from service.learning.metric import Metric
from service.learning.scores import Calibration, expected_loss, expected_rows
from service.learning.support import Support, support

__all__ = ["estimated"]

Floats = NDArray[np.float64]

_MISCALIBRATED = 0.05
"""Highest calibration error beyond what chance brings; of errors (regression), twice that, as a share of the loss."""

_EFFECTIVE = 0.1
"""Lowest effective sample size of the density ratio, as a share of the reference."""

_COVERED = 0.7
"""Lowest share of the window that lies where the reference has rows."""

_WIDTH = 1.645
"""Standard errors either side of the estimate: a 90 % interval."""

PROBABILITIES = "probabilities"


def estimated(
    schema: Schema,
    metric: Metric,
    estimator: Mapping[str, Any] | None,
    *,
    reference: pd.DataFrame,
    window: pd.DataFrame,
    tolerated: float,
    min_rows: int,
    seed: int = 0,
) -> tuple[Estimate | None, str]:
    """Return the estimated performance of a window, or None with the reason.

    Parameters
    ----------
    schema
        The champion's, with classes.
    metric
        The model's.
    estimator
        As `service.learning.baseline` stored it; None for a version without one.
    reference
        The version's.
    window
        Rows that the version answered, with `output` and `probabilities`; no labels are looked at.
    tolerated
        Rise of the loss that is no harm, as a share of the reference loss.
    min_rows
        Fewer rows say nothing.
    seed
        Of the classifier that tests the support.
    """
    if not estimator:
        return None, "the version has no estimator"
    if "why_not" in estimator:
        return None, str(estimator["why_not"])
    if len(window) < min_rows:
        return None, f"{len(window)} rows; {min_rows} are needed"
    found = _of_outputs(metric, estimator, window) if estimator["kind"] == "outputs" else None
    if estimator["kind"] == "scores":
        found = _of_scores(schema, metric, estimator, window)
    if found is None:
        return None, "the rows have no scores"
    loss, spread = found
    covered = support(schema, reference=reference, window=window, seed=seed)
    doubts = _doubts(estimator, covered, window)
    reference_loss = float(estimator["loss"])
    low, high = loss - _WIDTH * spread, loss + _WIDTH * spread
    worse = not doubts and low > reference_loss * (1 + tolerated)
    words = (
        f"estimated without labels: loss {loss:.4g} [{max(low, 0.0):.4g}, {high:.4g}] against {reference_loss:.4g} "
        f"estimated alike on the holdout; calibration error {estimator['error']:.3f} ({estimator['chance']:.3f} by "
        f"chance), effective sample size {covered.effective:.0%}, {covered.covered:.0%} of the window on known ground"
    )
    if doubts:
        words = f"not to be relied on, {'; '.join(doubts)}: {words}"
    estimate = Estimate(
        loss=loss,
        reference_loss=reference_loss,
        low=max(low, 0.0),
        high=high,
        rows=len(window),
        valid=not doubts,
        worse=worse,
        reason=words,
    )
    return estimate, words


def _of_scores(
    schema: Schema, metric: Metric, estimator: Mapping[str, Any], window: pd.DataFrame
) -> tuple[float, float] | None:
    if PROBABILITIES not in window.columns or window[PROBABILITIES].isna().any():
        return None
    scores = np.array(window[PROBABILITIES].tolist(), dtype=np.float64)
    curve = Calibration.from_json(estimator["calibration"])
    if scores.ndim != 2 or scores.shape[1] != len(curve.classes) or tuple(schema.classes) != curve.classes:
        return None
    chances = curve.chances(scores)
    output = window[OUTPUT].to_numpy()
    rows = expected_rows(metric.name, curve.classes, output, scores, chances)
    return expected_loss(metric.name, rows, scores, chances), _spread(estimator, len(rows))


def _of_outputs(metric: Metric, estimator: Mapping[str, Any], window: pd.DataFrame) -> tuple[float, float]:
    output = window[OUTPUT].to_numpy(dtype=np.float64)
    rows = np.asarray(estimator["means"])[np.searchsorted(np.asarray(estimator["edges"]), output)]
    mean, spread = float(rows.mean()), _spread(estimator, len(rows))
    loss = metric.loss_of_mean(mean)
    # From the mean of squares to its root: the spread shrinks with the root's slope.
    return loss, (metric.loss_of_mean(mean + spread) - loss) if mean > 0 else spread


def _spread(estimator: Mapping[str, Any], rows: int) -> float:
    """Return the standard error of the estimate: the holdout's, and that of a window with so many rows."""
    return float(estimator["uncertainty"] * np.sqrt(1 + estimator["rows"] / max(rows, 1)))


def _doubts(estimator: Mapping[str, Any], covered: Support, window: pd.DataFrame) -> list[str]:
    doubts = []
    limit = _MISCALIBRATED * (2 if estimator["kind"] == "outputs" else 1) + estimator["chance"]
    if estimator["error"] > limit:
        doubts.append(f"it missed the holdout's own losses by {estimator['error']:.3f} (limit {limit:.3f})")
    if covered.effective < _EFFECTIVE:
        doubts.append(f"the effective sample size is {covered.effective:.1%} (needed {_EFFECTIVE:.0%})")
    if covered.covered < _COVERED:
        doubts.append(f"{covered.covered:.0%} of the window lies where the reference has rows (needed {_COVERED:.0%})")
    if "range" in estimator:
        output = window[OUTPUT].to_numpy(dtype=np.float64)
        beyond = float(((output < estimator["range"][0]) | (output > estimator["range"][1])).mean())
        if beyond > 1 - _COVERED:
            doubts.append(f"{beyond:.0%} of the answers lie beyond those of the holdout (limit {1 - _COVERED:.0%})")
    return doubts
