"""A new champion's answers against those of the version before, on the rows that the new one answered."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from service.domain.probation import Comparison
from service.domain.spec import Schema
from service.learning.columns import thinned
from service.learning.frames import EVENT_TIME, LABEL, OUTPUT, labels
from service.learning.metric import Metric, metric_of
from service.learning.predictor import Predictor
from service.learning.resampling import Answers, resample

__all__ = ["MOST_ROWS", "RESAMPLES", "compare"]

Array = NDArray[Any]

MOST_ROWS = 4_000
"""At most so many rows are answered again by the version before: enough for a share, cheap for a forest."""
RESAMPLES = 300
SLOW_ROWS, SLOW_RESAMPLES = 1_000, 100
"""For a metric that is no mean over rows: each resample is scored anew, and a check must stay quick."""
PROBABILITIES = "probabilities"


def compare(
    schema: Schema, metric: str, rows: pd.DataFrame, previous: Predictor, *, confidence: float, seed: int = 0
) -> Comparison:
    """Return how far the answers lie apart, and where labels are known, whose are better.

    Parameters
    ----------
    schema
        The new champion's, with classes.
    metric
        Scorer name.
    rows
        What the new champion answered: `event_time`, the features of both versions, `output`, `label` (null while
        unknown), and `probabilities` where there are any; not changed.
    previous
        Answers the same rows now.
    confidence
        Of the two-sided interval of the difference in loss, by the paired block bootstrap.
    seed
        Of the bootstrap.

    Returns
    -------
    Comparison
        Without losses where no label is known, or where the metric is not defined on the labelled rows.
    """
    ordered = rows.sort_values(EVENT_TIME, kind="stable").reset_index(drop=True)
    judged = metric_of(metric, schema)
    known = ordered[ordered[LABEL].notna()]
    is_mean = len(known) > 0 and judged.row_losses(*_given(schema, known.head(1))) is not None
    known = thinned(known, MOST_ROWS if is_mean else SLOW_ROWS)
    sample = thinned(ordered, MOST_ROWS)
    if sample.empty:
        return Comparison()
    outputs, _ = previous.answer(sample)
    distance = _distance(schema, sample[OUTPUT], outputs)
    if known.empty:
        return Comparison(rows=len(sample), distance=distance)
    truth, output, probabilities = _given(schema, known)
    answered, chances = previous.answer(known)
    pair = (
        Answers(output=output, probabilities=probabilities),
        Answers(output=answered, probabilities=_aligned(schema, previous.schema, chances)),
    )
    resamples = RESAMPLES if is_mean else SLOW_RESAMPLES
    losses = _losses(judged, truth, pair, confidence=confidence, resamples=resamples, seed=seed)
    return Comparison(rows=len(sample), distance=distance, **losses)


def _losses(
    metric: Metric, truth: Array, pair: tuple[Answers, Answers], *, confidence: float, resamples: int, seed: int
) -> dict[str, Any]:
    try:
        drawn = resample(metric, truth, pair, resamples=resamples, seed=seed)
    except ValueError as error:
        # One class only among the labels, or no probabilities: the metric is not defined on these rows.
        return {"error": f"{metric.name} is not defined on these rows: {str(error).splitlines()[0]}"}
    low, high = drawn.interval(confidence, of=drawn.draws[0] - drawn.draws[1])
    loss, previous_loss = drawn.losses
    if not np.isfinite([loss, previous_loss, low, high]).all():
        return {"error": f"{metric.name} is not finite on these rows"}
    return {"labelled": len(truth), "loss": loss, "previous_loss": previous_loss, "low": low, "high": high}


def _distance(schema: Schema, own: pd.Series, other: Array) -> float | None:
    if schema.task == "regression":
        ours = own.to_numpy(dtype=np.float64, na_value=np.nan)
        return _apart(ours[np.isfinite(ours)], other[np.isfinite(other)])
    names = sorted({str(value) for value in own} | {str(value) for value in other})
    shares = [pd.Series([str(v) for v in side]).value_counts(normalize=True).reindex(names) for side in (own, other)]
    distance = float(jensenshannon(*(share.fillna(0.0).to_numpy() for share in shares), base=2))
    return distance if np.isfinite(distance) else 0.0  # rounding took the root of less than nothing: they are equal


def _apart(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float | None:
    if not len(ours) or not len(theirs):
        return None
    # A version that always answered the same has no spread to measure by: then the other one's counts.
    spread = float(np.std(theirs)) or float(np.std(ours)) or abs(float(theirs[0])) or 1.0
    return float(wasserstein_distance(ours, theirs)) / spread


def _given(schema: Schema, known: pd.DataFrame) -> tuple[Array, Array, NDArray[np.float64] | None]:
    """Return the truths of labelled rows, and what was answered there."""
    kind = {"number": np.float64, "integer": np.int64, "string": object}[schema.label]
    return labels(schema, known), known[OUTPUT].to_numpy(dtype=kind), _probabilities(known)


def _probabilities(rows: pd.DataFrame) -> NDArray[np.float64] | None:
    if PROBABILITIES not in rows.columns or not rows[PROBABILITIES].notna().all():
        return None
    return np.array(rows[PROBABILITIES].tolist(), dtype=np.float64)


def _aligned(schema: Schema, other: Schema, probabilities: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Return probabilities in the columns of `schema`; a class that the other version never saw had no chance."""
    if probabilities is None or schema.classes == other.classes:
        return probabilities
    place = {label: position for position, label in enumerate(other.classes)}
    aligned = np.zeros((len(probabilities), len(schema.classes)))
    for position, label in enumerate(schema.classes):
        if label in place:
            aligned[:, position] = probabilities[:, place[label]]
    return aligned
