"""Batches as a worker would record them, for the tests of spool, committer and lake."""

from typing import Any

import numpy as np

from service.storage.ids import new_id
from service.storage.records import LabelBatch, PredictionBatch
from tests.ids import id_bytes

__all__ = ["label_batch", "prediction_batch"]

START_US = 1_600_000_000_000_000
STEP_US = 1_800_000_000


def prediction_batch(rows: int = 3, *, first: int = 0, **overrides: Any) -> PredictionBatch:
    """Return a batch of `rows` answers, half an hour apart, the first of them the `first`-th."""
    steps = np.arange(first, first + rows)
    numeric = np.column_stack([steps / 10, np.where(steps % 3, 1.5, np.nan), steps % 2, steps % 5]).astype(np.float64)
    return PredictionBatch(
        **{
            "model": "electricity",
            "version": 1,
            "generation": 1,
            "answered_at_us": START_US + int(steps[-1] if rows else 0) * STEP_US + 1_000_000,
            "ids": id_bytes([new_id() for _ in steps]),
            "event_time_us": START_US + steps * STEP_US,
            "numeric_names": ("price", "demand", "holiday", "zone"),
            "numeric_kinds": ("numeric", "numeric", "boolean", "integer"),
            "numeric": numeric,
            "text": {"day": [None if step % 4 == 0 else f"day {step % 7}" for step in steps.tolist()]},
            "output": ["UP" if step % 2 else "DOWN" for step in steps.tolist()],
            "probabilities": np.column_stack([steps % 2, 1 - steps % 2]).astype(np.float64),
            "classes": ("DOWN", "UP"),
            **overrides,
        }
    )


def label_batch(ids: list[str], labels: list[Any], **overrides: Any) -> LabelBatch:
    """Return a batch of labels, observed one after the other."""
    return LabelBatch(
        **{
            "model": "electricity",
            "kind": "string",
            "ids": ids,
            "labels": labels,
            "observed_at_us": [START_US + place for place in range(len(ids))],
            "received_at_us": START_US,
            **overrides,
        }
    )
