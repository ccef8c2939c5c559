"""Stretches of a reference that are as long as a window, and how much of a column it takes to tell its shape."""

from itertools import pairwise

import numpy as np
import pandas as pd

from service.learning.frames import EVENT_TIME

__all__ = ["FEWEST_STRETCHES", "FEWEST_VALUES", "LEVELS", "stretches"]

FEWEST_VALUES = 16
"""With fewer values than this, nothing is said about a column's shape."""

FEWEST_STRETCHES = 4
"""With fewer stretches of the window's length in the reference, nothing is known about what a column usually does."""

LEVELS = np.linspace(0.05, 0.95, 19)
"""Quantiles by which the shapes of two columns are compared."""


def stretches(reference: pd.DataFrame, window: pd.DataFrame) -> list[slice]:
    """Return the parts of the reference that are as long as the window, in event time; the last may be cut off."""
    if not len(reference) or len(window) < FEWEST_VALUES:
        return []
    length = window[EVENT_TIME].max() - window[EVENT_TIME].min()
    times = reference[EVENT_TIME]
    if length <= pd.Timedelta(0):
        return []
    places = ((times - times.min()) // length).to_numpy()
    edges = np.flatnonzero(np.diff(places)) + 1
    bounds = [0, *edges.tolist(), len(reference)]
    parts = [slice(low, high) for low, high in pairwise(bounds)]
    return [part for part in parts if part.stop - part.start >= FEWEST_VALUES]
