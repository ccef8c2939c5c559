"""How an estimator answers: the one definition that training, evaluation and serving share."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["OutputMode", "answers"]

OutputMode = Literal["argmax", "predict"]


def answers(
    estimator: Any, output_mode: OutputMode, classes: Sequence[str] | Sequence[int], X: Any
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Return what `estimator` answers to the rows of `X`: outputs, and probabilities where it has them.

    Parameters
    ----------
    estimator
        A fitted estimator or Pipeline.
    output_mode
        ``argmax`` takes the class with the highest probability, which saves a second pass through the pipeline;
        ``predict`` asks `estimator.predict` (always for regression). A version's manifest says which is proved.
    classes
        Known classes in the estimator's own order; empty for regression.
    X
        A float64 array, or a DataFrame where the estimator wants one.

    Returns
    -------
    outputs, probabilities
        Outputs are float64 for regression, int64 for integer classes and an object array of `str` for string
        classes. Probabilities have shape (n_rows, n_classes).
    """
    if not classes:
        return np.asarray(estimator.predict(X), dtype=np.float64).reshape(-1), None
    names = _names(tuple(classes))
    probabilities = None
    if hasattr(estimator, "predict_proba"):
        probabilities = np.ascontiguousarray(estimator.predict_proba(X), dtype=np.float64)
        if output_mode == "argmax":
            return names[probabilities.argmax(axis=1)], probabilities
    return np.asarray(estimator.predict(X)).reshape(-1).astype(names.dtype), probabilities


@lru_cache(maxsize=256)
def _names(classes: tuple[str, ...] | tuple[int, ...]) -> NDArray[Any]:
    names = np.asarray(classes, dtype=object if isinstance(classes[0], str) else np.int64)
    names.setflags(write=False)  # every answer is taken out of it
    return names
