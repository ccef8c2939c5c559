"""The paired block bootstrap: how far a loss, or a difference of two, may be chance when rows follow one another."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.learning.metric import Metric

__all__ = ["Answers", "Resampled", "block_length", "resample", "resampled_means", "row_losses"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one version answers on the rows that are judged."""

    output: Array
    probabilities: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """Losses of the same resampled rows for several versions.

    Attributes
    ----------
    losses
        On all rows, one per version.
    draws
        On each resample, shape (n_versions, n_resamples); the same rows for all versions.
    block
        Rows in a block.
    """

    losses: tuple[float, ...]
    draws: NDArray[np.float64]
    block: int

    def interval(self, confidence: float, *, of: NDArray[np.float64]) -> tuple[float, float]:
        """Return the two-sided percentile interval of `of`, one value per resample."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(of, [tail, 1 - tail])
        return float(low), float(high)


def block_length(series: Array) -> int:
    """Return how many neighbouring rows belong into one block, from the series' own autocorrelation.

    Parameters
    ----------
    series
        One value per row in time order, shape (n_rows,): the difference of two versions' row losses.

    Returns
    -------
    int
        At least 1, at most a fifth of the rows, so that a resample mixes five blocks or more.

    Notes
    -----
    Source: Politis & White, Automatic block-length selection for the dependent bootstrap, Econometric Reviews 23
    (2004), with Patton's correction (2009); circular blocks, flat-top lag window.

    Examples
    --------
    >>> block_length(np.zeros(100))
    1
    """
    n = len(series)
    most = max(1, n // 5)
    centred = np.asarray(series, dtype=np.float64) - np.mean(series)
    variance = float(centred @ centred) / n if n else 0.0
    if n < 20 or variance <= 0:
        return 1
    quiet = max(5, math.ceil(math.sqrt(math.log10(n))))
    lags = min(n - 1, math.ceil(math.sqrt(n)) + quiet)
    covariance = np.array([float(centred[lag:] @ centred[: n - lag]) / n for lag in range(lags + 1)])
    loud = np.abs(covariance / variance) >= 2 * math.sqrt(math.log10(n) / n)
    # The last loud lag after which `quiet` lags in a row are silent.
    reach = next((lag for lag in range(1, lags + 1) if not loud[lag : lag + quiet].any()), lags) - 1
    width = min(max(2 * reach, 1), lags)
    lag = np.arange(-width, width + 1)
    window = np.clip(2 * (1 - np.abs(lag) / width), 0, 1)
    weighted = window * covariance[np.abs(lag)]
    spread = float((weighted * np.abs(lag)).sum())
    level = float(weighted.sum())
    if level <= 0 or spread <= 0:
        return 1
    best = (2 * spread**2 / (4 / 3 * level**2)) ** (1 / 3) * n ** (1 / 3)
    return int(min(max(1, math.ceil(best)), most))


def resample(metric: Metric, truth: Array, versions: tuple[Answers, ...], *, resamples: int, seed: int) -> Resampled:
    """Return the losses of `versions` on the same resampled blocks of rows.

    Parameters
    ----------
    metric
        Judges.
    truth
        Labels in time order, shape (n_rows,).
    versions
        One or two versions' answers to these rows; with two, the block length is that of their difference.
    resamples
        How many.
    seed
        Of the draws.
    """
    random = np.random.default_rng(seed)
    n = len(truth)
    rows = [metric.row_losses(truth, a.output, a.probabilities) for a in versions]
    block = block_length(_series(truth, versions, rows))
    count = math.ceil(n / block)
    starts = random.integers(0, n, (resamples, count))
    losses = tuple(metric.loss(truth, a.output, a.probabilities) for a in versions)
    if all(row is not None for row in rows):
        draws = np.array([_fast(metric, row, starts, block) for row in rows if row is not None])
    else:
        places = (starts[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :n] % n
        draws = np.array([[_loss(metric, truth, a, place) for place in places] for a in versions])
    return Resampled(losses=losses, draws=draws, block=block)


def resampled_means(series: Array, block: int, *, resamples: int, seed: int) -> Array:
    """Return the mean of `series` on each of so many resamples of its blocks, shape (resamples,)."""
    n = len(series)
    starts = np.random.default_rng(seed).integers(0, n, (resamples, math.ceil(n / block)))
    return _means(np.asarray(series, dtype=np.float64), starts, block)


def row_losses(metric: Metric, truth: Array, answers: Answers) -> tuple[Array, str]:
    """Return each row's loss, and in a word which loss it is.

    Where the metric is no mean over rows, as an area under a curve is not, that is what every row has: whether it is
    wrong, or by how much.
    """
    rows = metric.row_losses(truth, answers.output, answers.probabilities)
    if rows is not None:
        return rows, metric.name
    return _closeness(truth, answers.output), "distance" if truth.dtype.kind == "f" else "share of wrong answers"


def _series(truth: Array, versions: tuple[Answers, ...], rows: list[Array | None]) -> Array:
    per_row = [
        row if row is not None else _closeness(truth, answer.output) for row, answer in zip(rows, versions, strict=True)
    ]
    return per_row[0] - per_row[1] if len(per_row) > 1 else per_row[0]


def _closeness(truth: Array, output: Array) -> Array:
    apart: Array = np.abs(truth - output) if truth.dtype.kind == "f" else (truth != output).astype(np.float64)
    return apart


def _means(series: Array, starts: Array, block: int) -> Array:
    around = np.concatenate([[0.0], np.cumsum(np.concatenate([series, series[: block - 1]]))])
    means: Array = (around[starts + block] - around[starts]).sum(axis=1) / (starts.shape[1] * block)
    return means


def _fast(metric: Metric, losses: Array, starts: Array, block: int) -> Array:
    """Return each resample's loss from running sums: no row is gathered."""
    means = _means(losses, starts, block)
    if metric.loss_of_mean(4.0) == 4.0:
        return means
    return np.array([metric.loss_of_mean(max(float(mean), 0.0)) for mean in means])


def _loss(metric: Metric, truth: Array, answer: Answers, place: Array) -> float:
    probabilities = None if answer.probabilities is None else answer.probabilities[place]
    return metric.loss(truth[place], answer.output[place], probabilities)
