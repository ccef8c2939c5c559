"""A fitted estimator with what it needs to answer: the same definition of an answer as in serving."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.answer import OutputMode, answers
from service.domain.spec import Schema
from service.learning.frames import design

__all__ = ["Predictor", "output_mode_of"]


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A version, or a challenger that has no number yet, as something that answers frames.

    Attributes
    ----------
    schema
        With classes in the estimator's order.
    output_mode
        See `service.domain.answer.answers`.
    learned_until
        Newest event time among the rows it learned from: on older rows it cannot be judged.
    """

    estimator: Any
    schema: Schema
    output_mode: OutputMode
    version: int | None = None
    learned_until: datetime | None = None

    def answer(self, frame: pd.DataFrame) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """Return outputs and probabilities (None where the estimator has none) for the rows of `frame`."""
        return answers(self.estimator, self.output_mode, self.schema.classes, design(self.schema, frame))


def output_mode_of(estimator: Any, schema: Schema, frame: pd.DataFrame) -> OutputMode:
    """Return ``argmax`` where the likeliest class is what `predict` says on every row of `frame`, else ``predict``.

    Support vector machines are the known case in which the two differ.
    """
    if not schema.classes or not hasattr(estimator, "predict_proba"):
        return "predict"
    X = design(schema, frame)
    likeliest, _ = answers(estimator, "argmax", schema.classes, X)
    predicted, _ = answers(estimator, "predict", schema.classes, X)
    return "argmax" if np.array_equal(likeliest, predicted) else "predict"
