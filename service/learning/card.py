"""What a model card shows of answers beside the gate's figures: calibration, and predicted against observed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.spec import Schema
from service.learning.gate import Evidence
from service.learning.resampling import Answers

__all__ = ["portrait", "predicted_against_observed", "reliability"]

Array = NDArray[Any]
BINS = 10
POINTS = 200


def portrait(schema: Schema, evidence: Evidence) -> dict[str, Any]:
    """Return the plots' figures as JSON values, of the challenger and of the champion on the same holdout rows.

    Whatever breaks in here leaves the card a sentence instead of a plot; it never takes a verdict back.
    """
    try:
        drawn = {
            who: _drawn(schema, evidence.truth, answers)
            for who, answers in (("challenger", evidence.challenger), ("champion", evidence.champion))
            if answers is not None and len(evidence.truth)
        }
    except Exception as error:  # noqa: BLE001  as the docstring says
        return {"calibration": {"error": f"{type(error).__name__}: {error}"[:300]}}
    kind = "predicted_against_observed" if schema.task == "regression" else "reliability"
    return {"calibration": {"kind": kind} | drawn} if any(drawn.values()) else {}


def reliability(truth: Array, scores: Array, hits: Array) -> dict[str, Any]:
    """Return a reliability curve: in each bin of scores, the mean score and the share that came true.

    Parameters
    ----------
    truth
        Labels; only counted.
    scores
        What was said to be the probability, shape (n_rows,).
    hits
        Whether it came true, shape (n_rows,).

    Returns
    -------
    dict
        `points`: ``{"said", "came", "low", "high", "n"}`` with Wilson's 95 % interval; `error`: the expected
        calibration error, the mean distance of the two weighted by rows.
    """
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, BINS - 1)
    points = []
    for one in range(BINS):
        own = place == one
        n = int(own.sum())
        if n:
            said, came = float(scores[own].mean()), float(hits[own].mean())
            low, high = _wilson(came, n)
            points.append({"said": said, "came": came, "low": low, "high": high, "n": n})
    error = sum(point["n"] * abs(point["said"] - point["came"]) for point in points) / len(truth)
    return {"points": points, "error": float(error), "n": len(truth)}


def predicted_against_observed(truth: Array, output: Array) -> dict[str, Any]:
    """Return bins of equally many rows by predicted value, and some of the rows themselves, spread evenly in time."""
    order = np.argsort(output, kind="stable")
    points = []
    for part in np.array_split(order, min(BINS, len(order))):
        low, high = np.quantile(truth[part], [0.1, 0.9])
        points.append(
            {
                "said": float(output[part].mean()), "came": float(truth[part].mean()), "low": float(low),
                "high": float(high), "n": len(part),
            }
        )  # fmt: skip
    some = np.unique(np.linspace(0, len(truth) - 1, min(POINTS, len(truth))).astype(int))
    rows = [[float(output[i]), float(truth[i])] for i in some]
    return {"points": points, "rows": rows, "bias": float((output - truth).mean()), "n": len(truth)}


def _drawn(schema: Schema, truth: Array, answers: Answers) -> dict[str, Any] | None:
    if schema.task == "regression":
        known = np.isfinite(answers.output)
        return predicted_against_observed(truth[known], answers.output[known]) if known.any() else None
    if answers.probabilities is None:
        return None
    if len(schema.classes) == 2:
        hits = truth == schema.classes[1]
        return reliability(truth, answers.probabilities[:, 1], hits) | {"of": str(schema.classes[1])[:80]}
    # Of many classes: how often the likeliest one is right, against how sure of it the version was.
    likeliest = np.asarray(schema.classes, dtype=truth.dtype)[answers.probabilities.argmax(axis=1)]
    return reliability(truth, answers.probabilities.max(axis=1), likeliest == truth) | {"of": "the likeliest class"}


def _wilson(share: float, n: int) -> tuple[float, float]:
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return max(middle - half, 0.0), min(middle + half, 1.0)
