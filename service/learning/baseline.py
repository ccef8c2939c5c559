"""What a version takes with it from its holdout, so that checks can judge it later.

Losses by block, and how to estimate a loss without labels: a few hundred numbers, stored as JSON with its metrics.

The fit that is promoted may be a refit that has learned the holdout: these figures are of the fit that was judged, on
rows that it had not seen.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.duration import Window
from service.learning.losses import Blocks, blocks_of, by_words
from service.learning.metric import Metric
from service.learning.resampling import Answers
from service.learning.scores import ESTIMABLE, calibrated, expected_loss, expected_rows

__all__ = ["baseline"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

_BINS = 8
"""Parts of the outputs' range, each with about as many rows, of which the mean error is known (regression)."""

_BIN_ROWS = 100
"""Rows per part when calibration is checked, at least."""

_FEWEST = 100
"""Holdout rows below which nothing is learned from it."""

_ERRORS = frozenset({"mean_absolute_error", "mean_squared_error", "root_mean_squared_error"})


def baseline(metric: Metric, *, window: Window, times: pd.Series, truth: Array, answers: Answers) -> dict[str, Any]:
    """Return the figures of a version's holdout.

    Parameters
    ----------
    metric
        The model's.
    window
        Of its checks: holdout and windows are cut alike.
    times, truth, answers
        Of the holdout, in time order; `answers` of the fit that was judged.

    Returns
    -------
    dict
        ``blocks`` (see `Blocks`; None where the metric is no mean over rows) and ``estimator`` (what
        `service.learning.estimate` takes; with only ``why_not`` where there is none).
    """
    rows = metric.row_losses(truth, answers.output, answers.probabilities)
    blocks = None if rows is None else blocks_of(times, np.asarray(rows, np.float64), by=by_words(window)).to_json()
    return {"blocks": blocks, "estimator": _estimator(metric, window, times, truth, answers)}


def _estimator(metric: Metric, window: Window, times: pd.Series, truth: Array, answers: Answers) -> dict[str, Any]:
    if len(truth) < _FEWEST:
        return {"why_not": f"{len(truth)} holdout rows are too few to learn an estimate from ({_FEWEST} are needed)"}
    if truth.dtype.kind == "f":
        if metric.name not in _ERRORS:
            return {"why_not": f"there is no estimate of {metric.name} without labels"}
        return _of_outputs(metric, window, times, truth, answers)
    if metric.name not in ESTIMABLE or (metric.name in {"roc_auc", "brier_score"} and len(metric.classes) != 2):
        return {"why_not": f"there is no estimate of {metric.name} without labels"}
    if answers.probabilities is None:
        return {"why_not": "the estimator gives no scores"}
    return _of_scores(metric, window, times, truth, answers)


def _of_scores(metric: Metric, window: Window, times: pd.Series, truth: Array, answers: Answers) -> dict[str, Any]:
    scores, classes = np.asarray(answers.probabilities, np.float64), metric.classes
    chances = np.empty_like(scores)
    # Each half of the time is judged by what the other half taught: in-sample, every calibration is perfect.
    for own, other in _halves(len(truth)):
        chances[own] = calibrated(classes, truth[other], scores[other]).chances(scores[own])
    wrong = expected_rows("accuracy", classes, answers.output, scores, chances)
    error, chance = _calibration_error(1 - wrong, answers.output == truth)
    rows = expected_rows(metric.name, classes, answers.output, scores, chances)
    realised = metric.row_losses(truth, answers.output, answers.probabilities)
    if realised is None:
        realised = rows + (answers.output != truth) - wrong
    return {
        "kind": "scores",
        "calibration": calibrated(classes, truth, scores).to_json(),
        "loss": expected_loss(metric.name, rows, scores, chances),
        "error": error,
        "chance": chance,
        "rows": len(truth),
        "uncertainty": _uncertainty(times, realised - rows, window),
    }


def _of_outputs(metric: Metric, window: Window, times: pd.Series, truth: Array, answers: Answers) -> dict[str, Any]:
    output = np.asarray(answers.output, np.float64)
    losses = np.asarray(metric.row_losses(truth, output), np.float64)
    expected = np.empty_like(losses)
    for own, other in _halves(len(losses)):
        edges, means = _binned(output[other], losses[other])
        expected[own] = means[np.searchsorted(edges, output[own])]
    halves = [abs(float(expected[own].mean() / losses[own].mean()) - 1) for own, _ in _halves(len(losses))]
    edges, means = _binned(output, losses)
    spread = _uncertainty(times, losses - expected, window)
    return {
        "kind": "outputs",
        "edges": [float(f"{edge:.6g}") for edge in edges],
        "means": [float(f"{mean:.6g}") for mean in means],
        "loss": metric.loss_of_mean(float(means[np.searchsorted(edges, output)].mean())),
        "error": float(np.mean(halves)) if np.isfinite(halves).all() else 1.0,
        "chance": float(2 * 0.8 * spread / max(losses.mean(), np.finfo(np.float64).tiny)),
        "rows": len(truth),
        "uncertainty": spread,
        # An output beyond those of the holdout has an error that nobody has seen.
        "range": [float(f"{end:.6g}") for end in (output.min(), output.max())],
    }


def _halves(n: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    early, late = slice(0, n // 2), slice(n // 2, n)
    return (early, late), (late, early)


def _binned(output: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return edges and mean losses of parts of the outputs' range that hold about as many rows each."""
    edges = np.unique(np.quantile(output, np.linspace(0, 1, _BINS + 1)[1:-1]))
    place = np.searchsorted(edges, output)
    counts = np.bincount(place, minlength=len(edges) + 1)
    sums = np.bincount(place, weights=losses, minlength=len(edges) + 1)
    means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), losses.mean())
    return edges, means


def _calibration_error(confidence: Floats, hit: Array) -> tuple[float, float]:
    """Return the mean distance of confidence from the truth, and how much of it chance alone brings."""
    order = np.argsort(confidence, kind="stable")
    error = chance = 0.0
    for part in np.array_split(order, max(1, min(10, len(order) // _BIN_ROWS))):
        mean, share = float(confidence[part].mean()), len(part) / len(order)
        error += share * abs(mean - float(np.mean(hit[part])))
        chance += share * float(np.sqrt(2 / np.pi * max(mean * (1 - mean), 0.0) / len(part)))
    return error, chance


def _uncertainty(times: pd.Series, apart: Floats, window: Window) -> float:
    """Return the standard error of the mean difference between realised and expected losses, from whole blocks."""
    blocks: Blocks = blocks_of(times, np.asarray(apart, np.float64), by=by_words(window))
    if len(blocks.means) < 2:
        return float(np.std(apart) / np.sqrt(max(len(apart), 1)))
    shares = blocks.rows / blocks.rows.sum()
    spread = float(shares @ (blocks.means - blocks.mean) ** 2)
    return float(np.sqrt(spread / (len(blocks.means) - 1)))
