"""A compiled version: an ONNX graph that answers as an estimator does. One code proves it and serves it.

It imports neither scikit-learn nor pandas, for a worker that serves compiled versions alone shall load neither.
"""

import contextlib
import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["INPUT", "PROBABILITIES", "VALUE", "Classifier", "Graph", "Regressor", "open_graph"]

INPUT, PROBABILITIES, VALUE = "x", "answer_probabilities", "answer_value"
"""Names in the graph, which no converter gives. It has one output: the classes' probabilities, or the value."""

LARGE_BYTES = 1 << 20
"""Opening a graph of trees takes three times the memory that it needs afterwards, and the allocator keeps that."""
MOST_ROWS = 4096
"""Rows of one run: a graph of a forest holds every tree's shares of a block's rows at once."""


class Graph:
    """Answers like a fitted estimator.

    Parameters
    ----------
    session
        Of ONNX Runtime.
    """

    def __init__(self, session: Any) -> None:
        self._run = session.run
        self._names = [output.name for output in session.get_outputs()]
        self.n_features_in_ = int(session.get_inputs()[0].shape[1])

    def _ask(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        if len(X) <= MOST_ROWS:
            found: NDArray[np.float64] = self._run(self._names, {INPUT: X})[0]
            return found
        parts = [self._run(self._names, {INPUT: X[at : at + MOST_ROWS]})[0] for at in range(0, len(X), MOST_ROWS)]
        return np.concatenate(parts)


class Classifier(Graph):
    """Answers with probabilities, of which the highest decides."""

    def predict_proba(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the classes' probabilities."""
        return self._ask(X)


class Regressor(Graph):
    """Answers with values."""

    def predict(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values."""
        return self._ask(X).reshape(-1)


def open_graph(content: bytes) -> Classifier | Regressor:
    """Return the graph in `content`, ready to answer on one thread.

    Raises
    ------
    Exception
        If ONNX Runtime is not installed, or does not take `content`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False  # blocks differ in size, and nothing is gained
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    if len(content) > LARGE_BYTES:
        _give_back_memory()
    is_classifier = session.get_outputs()[0].name == PROBABILITIES
    return Classifier(session) if is_classifier else Regressor(session)


def _give_back_memory() -> None:
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
