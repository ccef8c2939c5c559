"""Losses by contiguous blocks: what a version showed on its holdout, and what it shows now, cut alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.duration import Window, format_duration

__all__ = ["Blocks", "blocks_of", "by_words"]

Floats = NDArray[np.float64]

_DAY = timedelta(days=1)
_BLOCKS = 8
"""Blocks in a window that is too short for days or counts rows."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Mean losses of blocks that follow one another, oldest first.

    Attributes
    ----------
    by
        How long a block is, in words: only blocks that were cut alike are comparable.
    means, rows
        Shape (n_blocks,).
    """

    by: str
    means: Floats
    rows: Floats

    @property
    def pitch(self) -> str:
        """How long a block is, for people.

        Examples
        --------
        >>> Blocks(by="86400 s", means=np.empty(0), rows=np.empty(0)).pitch
        '1d'
        """
        count, _, unit = self.by.partition(" ")
        return format_duration(timedelta(seconds=int(count))) if unit == "s" else self.by

    @property
    def mean(self) -> float:
        """Loss of all rows."""
        return float(self.means @ self.rows / self.rows.sum())

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        means = [float(f"{mean:.6g}") for mean in self.means]
        return {"by": self.by, "means": means, "rows": [int(count) for count in self.rows]}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "Blocks":
        """Return what `to_json` wrote."""
        return Blocks(
            by=stored["by"],
            means=np.asarray(stored["means"], dtype=np.float64),
            rows=np.asarray(stored["rows"], dtype=np.float64),
        )


def by_words(window: Window) -> str:
    """Return how a window's losses are cut: by the day, so that day and night weigh the same, or into eighths.

    Examples
    --------
    >>> by_words(Window(duration=timedelta(days=7))), by_words(Window(rows=800))
    ('86400 s', '100 rows')
    """
    if window.duration is None:
        return f"{max((window.rows or 0) // _BLOCKS, 1)} rows"
    span = _DAY if window.duration >= _BLOCKS / 2 * _DAY else window.duration / _BLOCKS
    return f"{max(round(span.total_seconds()), 1)} s"


def blocks_of(times: pd.Series, losses: Floats, *, by: str) -> Blocks:
    """Return the losses of rows in time order as blocks, counted back from the newest row.

    The oldest block is left out where it is cut off: less than half a block of rows is no block.
    """
    size, unit = int(by.split()[0]), by.split()[1]
    if not len(losses):
        return Blocks(by=by, means=np.empty(0), rows=np.empty(0))
    if unit == "rows":
        place = np.arange(len(losses) - 1, -1, -1) // size
    else:
        ages = (times.iloc[-1] - times).dt.total_seconds().to_numpy()
        place = (ages // size).astype(np.int64)
    kept, inside = np.unique(place, return_inverse=True)  # nought is the newest
    counts = np.bincount(inside).astype(np.float64)
    means = np.bincount(inside, weights=losses) / counts
    if len(kept) > 1 and counts[-1] < np.median(counts) / 2:
        means, counts = means[:-1], counts[:-1]
    return Blocks(by=by, means=means[::-1], rows=counts[::-1])
