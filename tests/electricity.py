"""The model of the documents' examples, quickly trained on made-up rows."""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from models.electricity import spec
from service.domain.spec import Schema

__all__ = ["ELECTRICITY", "ROWS", "electricity"]

ELECTRICITY = Schema(
    model="electricity",
    task="classification",
    timestamp="timestamp",
    features=tuple(spec.features or ()),
    integer_categories=("day",),
    label="string",
    classes=("DOWN", "UP"),
)
ROWS = [
    dict(zip(ELECTRICITY.names, row, strict=True))
    for row in ([2, 0.5, 0.06, 0.44, 0.003, 0.42, 0.41], [3, 0.52, 0.07, 0.45, 0.003, 0.42, 0.41])
]


def electricity() -> Any:
    """Return a fitted classifier."""
    X = np.random.default_rng(0).random((200, len(ELECTRICITY.features)))
    return LogisticRegression().fit(X, np.where(X[:, 2] > X[:, 4], "UP", "DOWN"))
