"""Metrics by their scikit-learn scorer name, computed on answers alone: no estimator is asked again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import get_scorer, get_scorer_names

from service.domain.errors import SpecInvalid
from service.domain.spec import Schema, Task

__all__ = ["Metric", "check_metric", "metric_of"]

Array = NDArray[Any]
_SMALLEST = np.finfo(np.float64).eps


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric for one schema.

    Attributes
    ----------
    name
        The scorer's name without ``neg_``: an error is shown as the positive number that people speak of.
    greater_is_better
        Whether a higher `value` is better.
    """

    name: str
    greater_is_better: bool
    classes: tuple[Any, ...]
    score: Callable[..., float]
    response: str
    options: dict[str, Any]

    def value(self, truth: Array, output: Array, probabilities: Array | None = None) -> float:
        """Return the metric's own value.

        Raises
        ------
        ValueError
            If the metric is not defined on these rows (one class only, no probabilities …).
        """
        if self.response == "predict":
            return float(self.score(truth, output, **self.options))
        if probabilities is None:
            msg = f"{self.name} needs probabilities, and this estimator has none"
            raise ValueError(msg)
        scores = probabilities[:, 1] if len(self.classes) == 2 and self.name != "log_loss" else probabilities
        return float(self.score(truth, scores, **self.options))

    def loss(self, truth: Array, output: Array, probabilities: Array | None = None) -> float:
        """Return the same as a loss: lower is better, 0 is perfect."""
        rows = self.row_losses(truth, output, probabilities)
        if rows is not None:
            return self.loss_of_mean(float(rows.mean()))
        return self.as_loss(self.value(truth, output, probabilities))

    def as_loss(self, value: float) -> float:
        """Return the loss that belongs to a value of the metric."""
        return 1.0 - value if self.greater_is_better else value

    def as_value(self, loss: float) -> float:
        """Return the metric's value that belongs to a loss."""
        return 1.0 - loss if self.greater_is_better else loss

    def row_losses(self, truth: Array, output: Array, probabilities: Array | None = None) -> Array | None:
        """Return each row's share of the loss, shape (n_rows,); None where the metric is no mean over rows.

        The loss is `loss_of_mean` of their mean, which makes a bootstrap a matter of sums.
        """
        losses: Array | None = None
        if self.name == "accuracy":
            losses = (np.asarray(output) != np.asarray(truth)).astype(np.float64)
        elif self.name == "log_loss" and probabilities is not None:
            place = {label: position for position, label in enumerate(self.classes)}
            column = np.array([place.get(label, -1) for label in truth])
            chosen = probabilities[np.arange(len(column)), column]
            # A class that the estimator never saw had no chance at all.
            losses = -np.log(np.clip(np.where(column < 0, 0.0, chosen), _SMALLEST, None))
        elif self.name == "mean_absolute_error":
            losses = np.abs(output - truth)
        elif self.name in {"mean_squared_error", "root_mean_squared_error"}:
            losses = np.square(output - truth)
        return losses

    def loss_of_mean(self, mean: float) -> float:
        """Return the loss that a mean of row losses stands for."""
        return float(np.sqrt(mean)) if self.name == "root_mean_squared_error" else mean

    @property
    def wants_median(self) -> bool:
        """Whether the best constant answer is the median (else: the mean)."""
        return self.name in {"mean_absolute_error", "median_absolute_error"}


def metric_of(name: str, schema: Schema) -> Metric:
    """Return the metric that the scorer `name` stands for.

    Parameters
    ----------
    name
        Any scikit-learn scorer name that works on predicted labels, probabilities or values.
    schema
        Gives the classes: positive is the second one of two, as in scikit-learn.

    Raises
    ------
    SpecInvalid
        If there is no such scorer.
    """
    if name not in get_scorer_names():
        remedy = "use a scikit-learn scorer name, such as accuracy, roc_auc, f1_macro or neg_mean_absolute_error"
        msg = f"metric {name!r} is unknown: {remedy}"
        raise SpecInvalid(msg, field="metric", remedy=remedy)
    scorer = get_scorer(name)
    options = dict(scorer._kwargs)
    response = scorer._response_method
    response = "predict" if response == "predict" else "predict_proba"
    if response == "predict_proba" and schema.classes and (len(schema.classes) > 2 or name == "neg_log_loss"):
        options["labels"] = list(schema.classes)
    takes_positive = options.get("average") == "binary" or name in {"average_precision", "neg_brier_score"}
    if takes_positive and len(schema.classes) == 2:
        options["pos_label"] = schema.classes[1]
    return Metric(
        name=name.removeprefix("neg_"),
        greater_is_better=scorer._sign > 0,
        classes=schema.classes,
        score=scorer._score_func,
        response=response,
        options=options,
    )


def check_metric(name: str, schema: Schema, task: Task) -> None:
    """Refuse a metric that cannot judge the task.

    Raises
    ------
    SpecInvalid
        Naming the metric and a remedy.
    """
    metric = metric_of(name, schema)
    try:
        if task == "regression":
            truth = np.array([1.0, 2.0, 3.0, 4.0])
            metric.value(truth, truth + 0.5)
        else:
            classes = schema.classes or (0, 1)
            truth = np.array([*classes, *classes], dtype=object if isinstance(classes[0], str) else np.int64)
            even = np.full((len(truth), len(classes)), 1.0 / len(classes))
            metric.value(truth, truth, even)
    except (ValueError, TypeError, IndexError) as error:
        words = str(error).splitlines()[0].rstrip(".")
        remedy = "accuracy, f1_macro or neg_log_loss judge any classes; neg_mean_absolute_error or r2 judge numbers"
        msg = f"metric {name!r} cannot judge this {task} ({words}): {remedy}"
        raise SpecInvalid(msg, field="metric", remedy=remedy) from error
