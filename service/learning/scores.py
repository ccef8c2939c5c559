"""From scores to an expected loss: calibration learned on a holdout, and what a metric is expected to say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

__all__ = ["ESTIMABLE", "Calibration", "calibrated", "expected_loss", "expected_rows"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

ESTIMABLE = frozenset({"accuracy", "log_loss", "roc_auc", "brier_score"})
"""Metrics of classification whose expectation follows from calibrated scores. That of F1 and its kind does not."""

_EDGE = 1e-6
"""Scores nearer to nought or one than this count as so near: a logarithm of nought says nothing."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """One logistic curve per class, from the score's log-odds to how often the class was true (Platt).

    Two figures a class: what a fortnight's holdout can bear. A curve with steps would learn its noise by heart.
    """

    classes: tuple[Any, ...]
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]

    def chances(self, probabilities: Floats) -> Floats:
        """Return how likely each class is, given the scores; shape as `probabilities`."""
        raised = _logit(probabilities) * np.array(self.slopes) + np.array(self.intercepts)
        chances = 1 / (1 + np.exp(-np.clip(raised, -30, 30)))
        out: Floats = chances / np.maximum(chances.sum(axis=1, keepdims=True), _EDGE)
        return out

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"classes": list(self.classes), "slopes": list(self.slopes), "intercepts": list(self.intercepts)}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "Calibration":
        """Return what `to_json` wrote."""
        return Calibration(
            classes=tuple(stored["classes"]),
            slopes=tuple(stored["slopes"]),
            intercepts=tuple(stored["intercepts"]),
        )


def calibrated(classes: tuple[Any, ...], truth: Array, probabilities: Floats) -> Calibration:
    """Return the calibration that fits; a class that was never or always true keeps its scores."""
    slopes, intercepts = [], []
    odds = _logit(probabilities)
    for column, label in enumerate(classes):
        hit = np.asarray(truth == label)
        if hit.all() or not hit.any():
            slopes.append(1.0)
            intercepts.append(0.0)
            continue
        curve = LogisticRegression(C=100.0).fit(odds[:, [column]], hit)
        slopes.append(float(f"{curve.coef_[0, 0]:.6g}"))
        intercepts.append(float(f"{curve.intercept_[0]:.6g}"))
    return Calibration(classes=classes, slopes=tuple(slopes), intercepts=tuple(intercepts))


def expected_rows(metric: str, classes: tuple[Any, ...], output: Array, scores: Floats, chances: Floats) -> Floats:
    """Return each row's expected loss; of ROC AUC, which has none, how likely the answer is wrong."""
    if metric == "log_loss":
        return np.asarray(-(chances * np.log(np.clip(scores, _EDGE, None))).sum(axis=1))
    if metric == "brier_score":
        top, score = chances[:, 1], scores[:, 1]
        return np.asarray(top * (1 - score) ** 2 + (1 - top) * score**2)
    place = {label: column for column, label in enumerate(classes)}
    columns = np.array([place[label] for label in output], dtype=np.int64)
    return np.asarray(1 - chances[np.arange(len(columns)), columns])


def expected_loss(metric: str, rows: Floats, scores: Floats, chances: Floats) -> float:
    """Return the loss that is expected of all rows together; `rows` as `expected_rows` gave them."""
    if metric != "roc_auc":
        return float(rows.mean())
    order = np.argsort(scores[:, 1], kind="stable")
    score, hit = scores[order, 1], chances[order, 1]
    miss = 1 - hit
    _, tie = np.unique(score, return_inverse=True)
    per_tie = np.bincount(tie, weights=miss)
    below = np.cumsum(per_tie) - per_tie / 2  # an equal score is half a win
    pairs = float(hit.sum() * miss.sum())
    return 1 - float(hit @ below[tie]) / pairs if pairs > 0 else 0.5


def _logit(probabilities: Floats) -> Floats:
    clipped = np.clip(probabilities, _EDGE, 1 - _EDGE)
    out: Floats = np.log(clipped) - np.log1p(-clipped)
    return out
