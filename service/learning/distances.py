"""How far one clean window lies from the rest of the reference: Evidently's numbers, many thousands a minute.

A calibration compares every column of hundreds of windows with the reference without them. Evidently sorts the whole
reference each time; here a column is sorted once, and a window is a mask over it. A test holds that the numbers are
Evidently's. Methods that are not pinned by default are left to Evidently itself, and take their time.
"""

from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import rel_entr

from service.domain.policy import Drift
from service.learning.blocks import Block
from service.learning.columns import FEWEST, NULL, Values, grouped, pair_of
from service.learning.statistic import as_distance, method_of, statistic_of

__all__ = ["Categories", "Distances", "Numbers", "distances_of", "is_fast"]

_SPARSE = 8
"""Where so many times fewer rows take part than there are, they are sorted afresh."""


class Distances(Protocol):
    """One column of the reference, made ready."""

    def distance(self, block: Block) -> float | None:
        """Return how far the block lies from the rest; None where it cannot be evaluated."""


def distances_of(values: Values, policy: Drift) -> Distances:
    """Return the column, made ready for the policy's methods."""
    if values.kind == "numeric" and policy.numeric == "wasserstein":
        still = policy.categorical == "jensenshannon"
        return Numbers(values.series.to_numpy(dtype=np.float64, na_value=np.nan), still=still)
    if values.kind == "categorical" and policy.categorical == "jensenshannon":
        return Categories(values.series)
    return _Evidently(values, policy)


def is_fast(numeric: str, categorical: str) -> bool:
    """Return whether no column of these methods has to be asked of Evidently."""
    return numeric == "wasserstein" and categorical in {"jensenshannon", "TVD"}


class Numbers:
    """A numeric column, sorted once: Wasserstein distances in deviations of what is compared with."""

    def __init__(self, values: NDArray[np.float64], *, still: bool = True) -> None:
        self._values, self._still = values, still
        finite = np.flatnonzero(np.isfinite(values))
        self._rows = finite[np.argsort(values[finite], kind="stable")]
        self._sorted = values[self._rows]
        self._steps = np.diff(self._sorted)
        self._finite = np.isfinite(values)

    def distance(self, block: Block) -> float | None:
        """Return how far the block lies from the rest; None where either side holds too few values."""
        if (int(block.own.sum()) + int(block.rest.sum())) * _SPARSE < len(self._values):
            rows = np.flatnonzero((block.own | block.rest) & self._finite)
            rows = rows[np.argsort(self._values[rows], kind="stable")]
            values = self._values[rows]
            steps = np.diff(values)
        else:
            rows, values, steps = self._rows, self._sorted, self._steps
        own, rest = block.own[rows], block.rest[rows]
        many, others = int(own.sum()), int(rest.sum())
        if min(many, others) < FEWEST:
            return None
        before = values[rest]
        if before[0] == before[-1]:
            # Against one value there are no deviations to measure by: it is compared as a category.
            return _jensen_shannon(np.array([1.0, 0.0]), _still(values[own], before[0])) if self._still else None
        apart = np.cumsum(own / many - rest / others)[:-1]
        return float(np.abs(apart) @ steps / np.std(before))


class Categories:
    """A categorical column as codes: Jensen-Shannon distances, rare and unseen categories as in a check."""

    def __init__(self, text: pd.Series) -> None:
        codes, names = pd.factorize(text, sort=True)
        self._codes, self._count = codes, len(names)
        self._null = np.asarray(names == NULL)

    def distance(self, block: Block) -> float | None:
        """Return how far the block lies from the rest; None where either side holds too few values."""
        own = np.bincount(self._codes[block.own], minlength=self._count).astype(np.float64)
        rest = np.bincount(self._codes[block.rest], minlength=self._count).astype(np.float64)
        many, others = own.sum(), rest.sum()
        if min(many, others) < FEWEST or own[~self._null].sum() == 0:
            return None
        unseen = rest == 0
        groups = grouped(rest / others, many, alone=self._null)
        itself = (groups < 0) & ~unseen
        joined = groups[groups >= 0]
        before = [*rest[itself], *np.bincount(joined, weights=rest[groups >= 0]), 0.0]
        now = [*own[itself], *np.bincount(joined, weights=own[groups >= 0]), own[unseen].sum()]
        return _jensen_shannon(np.array(before) / others, np.array(now) / many)


def _still(values: NDArray[np.float64], still: float) -> NDArray[np.float64]:
    moved = float(np.mean(values != still))
    return np.array([1 - moved, moved])


def _jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    middle = (p + q) / 2
    return float(np.sqrt(max(rel_entr(p, middle).sum() + rel_entr(q, middle).sum(), 0.0) / 2))


class _Evidently:
    """A column by any other method: Evidently is asked for every window."""

    def __init__(self, values: Values, policy: Drift) -> None:
        self._values, self._policy = values, policy

    def distance(self, block: Block) -> float | None:
        """Return how far the block lies from the rest; None where it cannot be evaluated."""
        pair = pair_of(self._values, self._values.series[block.rest], self._values.series[block.own])
        method = method_of(self._policy, pair)
        statistic = None if pair.obstacle or method == "TVD" else statistic_of(method, pair)
        return None if statistic is None else as_distance(method, statistic)
