"""What others do with the same windows: Evidently's defaults, KS with Bonferroni, mean plus three sigma.

Evidently sorts the whole reference for every window, which would take this bench hours; here a reference is sorted
once and the same numbers come out of it. `proof` recomputes a sample by Evidently itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats
from scipy.spatial.distance import jensenshannon

__all__ = ["NAMES", "Column", "Rivals", "proof"]

Array = NDArray[Any]
Kind = Literal["numeric", "categorical"]

NAMES = ("Evidently, any column", "Evidently, half of the columns", "KS + Bonferroni", "mean + 3 sigma")

_THRESHOLD = 0.1
"""Evidently's, for the Wasserstein and the Jensen-Shannon distance: its choice above 1,000 rows of reference."""
_SMALL_REFERENCE = 1_000
_FEW_VALUES = 5
_NORM_FLOOR = 0.001
_ALPHA = 0.05
_CHUNKS = 10
_SIGMAS = 3.0
_SURE = 40.0
"""Where a p-value falls below exp(-40), its leading term ranks as well and never underflows."""


class Column:
    """One column of a reference: distances of any window's values from it."""

    def __init__(self, values: Array, kind: Kind, *, pinned: bool = False) -> None:
        if len(values) <= _SMALL_REFERENCE:
            msg = f"Evidently takes another test for {len(values)} rows of reference; give it more"
            raise ValueError(msg)
        self._n = len(values)
        self._names, counts = np.unique(values, return_counts=True)
        self._counts = counts.astype(np.float64)
        self._numeric = kind == "numeric"
        self._pinned = pinned  # to its kind: Evidently left alone takes few numbers for categories
        if self._numeric:
            self._values = np.repeat(np.asarray(self._names, dtype=np.float64), counts)
            self._sums = np.concatenate([[0.0], np.cumsum(self._values)])
            self._scale = max(float(np.std(self._values)), _NORM_FLOOR)

    def measure(self, window: Array) -> tuple[float, float, float]:
        """Return Evidently's distance, -ln p of a two-sample test, and the distance that the sigma rule takes."""
        if self._numeric and not self._few_values(window):
            ordered = np.sort(np.asarray(window, dtype=np.float64))
            gap = self._gap(ordered)
            return self._wasserstein(ordered) / self._scale, _surprise(gap, self._n, len(ordered)), gap
        now = self._shares(window)
        before = np.concatenate([self._counts, [0.0] * (len(now) - len(self._counts))])
        distance = float(jensenshannon(before / before.sum(), now / now.sum()))
        # Equal shares: rounding may take the root of less than nothing.
        distance = distance if np.isfinite(distance) else 0.0
        return distance, _homogeneity(before, now), distance

    def _few_values(self, window: Array) -> bool:
        """Return whether Evidently would take these numbers for categories."""
        return (
            not self._pinned and len(self._names) <= _FEW_VALUES and len(np.union1d(self._names, window)) <= _FEW_VALUES
        )

    def _shares(self, window: Array) -> Array:
        places = np.searchsorted(self._names, window)
        places = np.minimum(places, len(self._names) - 1)
        known = self._names[places] == window
        counts = np.bincount(places[known], minlength=len(self._names)).astype(np.float64)
        _, unseen = np.unique(window[~known], return_counts=True)
        return np.concatenate([counts, unseen.astype(np.float64)])

    def _gap(self, ordered: Array) -> float:
        """Return the largest gap between the two distribution functions; it stands at a value of the window."""
        n = len(ordered)
        upper = np.searchsorted(self._values, ordered, side="right") / self._n
        lower = np.searchsorted(self._values, ordered, side="left") / self._n
        own = np.searchsorted(ordered, ordered, side="right") / n
        before = np.searchsorted(ordered, ordered, side="left") / n
        return max(float(np.max(own - upper)), float(np.max(lower - before)))

    def _wasserstein(self, ordered: Array) -> float:
        """Return the area between the two distribution functions, from running sums over the sorted reference."""
        n = len(ordered)
        first, last = min(ordered[0], self._values[0]), max(ordered[-1], self._values[-1])
        starts = np.concatenate([[first], ordered])
        ends = np.concatenate([ordered, [last]])
        level = np.arange(n + 1) / n
        # Between two values of the window its function is flat, and the reference's crosses it at this quantile.
        place = np.clip(np.ceil(level * self._n).astype(np.int64) - 1, 0, self._n - 1)
        cross = np.clip(np.where(level > 0, self._values[place], first), starts, ends)
        under = level * (cross - starts) - (self._area(cross) - self._area(starts))
        over = (self._area(ends) - self._area(cross)) - level * (ends - cross)
        return float(np.sum(under) + np.sum(over))

    def _area(self, x: Array) -> Array:
        """Return the area under the reference's distribution function up to `x`."""
        place = np.searchsorted(self._values, x, side="right")
        area: Array = (x * place - self._sums[place]) / self._n
        return area


def _surprise(gap: float, n: int, m: int) -> float:
    """Return -ln p of the two-sample test: Kolmogorov's limit with Stephens' correction for few rows."""
    root = np.sqrt(n * m / (n + m))
    reach = float((root + 0.12 + 0.11 / root) * gap)
    leading = 2.0 * reach**2 - float(np.log(2.0))
    return leading if leading > _SURE else -float(np.log(special.kolmogorov(reach)))


def _homogeneity(before: Array, now: Array) -> float:
    """Return -ln p of the chi-square test that both sides hold the categories alike."""
    held = before + now > 0
    if held.sum() < 2:
        return 0.0
    table = np.vstack([before[held], now[held]])
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return -float(stats.chi2.logsf(((table - expected) ** 2 / expected).sum(), held.sum() - 1))


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """Four ways of making one number of a window's columns; the alarm stands at 1 in each.

    Attributes
    ----------
    mean, deviation
        Of each column's distance over ten chunks of the reference.
    """

    columns: tuple[Column, ...]
    mean: Array
    deviation: Array

    @staticmethod
    def of(reference: pd.DataFrame, kinds: dict[str, Kind], *, rows: int) -> "Rivals":
        """Return the rivals for a reference; `rows` is a window's length, and that of the sigma rule's chunks."""
        columns = tuple(Column(reference[name].to_numpy(), kind) for name, kind in kinds.items())
        # The newest ten windows of the reference, compared with the reference that holds them: as NannyML does it.
        end = len(reference)
        parts = [reference.iloc[end - (place + 1) * rows : end - place * rows] for place in range(_CHUNKS)]
        chunks = np.array([_measured(columns, part, tuple(kinds))[:, 2] for part in parts])
        return Rivals(columns=columns, mean=chunks.mean(axis=0), deviation=chunks.std(axis=0))

    def measured(self, window: pd.DataFrame, names: Sequence[str]) -> Array:
        """Return the three numbers of each column, shape (n_columns, 3)."""
        return _measured(self.columns, window, names)

    def family(self, measured: Array) -> Array:
        """Return one number per rival, in the order of `NAMES`.

        Parameters
        ----------
        measured
            Shape (..., n_columns, 3).

        Returns
        -------
        numpy.ndarray
            Shape (..., 4); at 1 or more that rival calls the window drifted, by its own defaults.
        """
        distance, surprise, chunked = (measured[..., place] for place in range(3))
        count = distance.shape[-1]
        half = int(np.ceil(0.5 * count))
        ratios = np.sort(distance / _THRESHOLD, axis=-1)[..., ::-1]
        bonferroni = surprise.max(axis=-1) / -np.log(_ALPHA / count)
        room = _SIGMAS * np.maximum(self.deviation, 1e-12)
        sigma = ((chunked - self.mean) / room).max(axis=-1)
        return np.stack([ratios[..., 0], ratios[..., half - 1], bonferroni, sigma], axis=-1)


def _measured(columns: tuple[Column, ...], window: pd.DataFrame, names: Sequence[str]) -> Array:
    pairs = zip(columns, names, strict=True)
    return np.array([column.measure(window[name].to_numpy()) for column, name in pairs])


def proof(reference: pd.DataFrame, window: pd.DataFrame, kinds: dict[str, Kind]) -> float:
    """Return the largest difference between this file's distances and Evidently's, by its own choice of method.

    Raises
    ------
    ValueError
        If Evidently chose another method than the ones this file computes.
    """
    # Evidently takes seconds to be imported, and only this function needs it; `foreign` keeps that quiet.
    from service.learning.foreign import ColumnType
    from service.learning.statistic import quiet_evidently

    from evidently.legacy.calculations.stattests import get_stattest  # isort: skip

    worst = 0.0
    for name, kind in kinds.items():
        sides = reference[name].reset_index(drop=True), window[name].reset_index(drop=True)
        sort = ColumnType.Numerical if kind == "numeric" else ColumnType.Categorical
        test = get_stattest(*sides, sort, None)
        if test.name not in {"wasserstein", "jensenshannon"}:
            msg = f"Evidently judges {name} by {test.display_name}"
            raise ValueError(msg)
        with quiet_evidently():
            theirs = float(test(*sides, sort, None).drift_score)
        worst = max(worst, abs(Column(reference[name].to_numpy(), kind).measure(window[name].to_numpy())[0] - theirs))
    return worst
