"""Support: does a window lie where the reference has rows? Where it does not, no estimate from it holds."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from service.domain.spec import Schema
from service.learning.columns import thinned

__all__ = ["Support", "support"]

Floats = NDArray[np.float64]

_MOST = 5_000
"""Rows a side at most."""


@dataclass(frozen=True, kw_only=True)
class Support:
    """How far the reference covers a window.

    Attributes
    ----------
    effective
        Effective sample size of the density ratio, as a share of the reference's rows: how many of them count when
        they are weighted to look like the window.
    covered
        Share of the window that lies where the reference has rows at all.
    """

    effective: float
    covered: float


def support(schema: Schema, *, reference: pd.DataFrame, window: pd.DataFrame, seed: int) -> Support:
    """Return how far the reference covers the window, by a classifier that tells the two apart.

    Notes
    -----
    The mean weight of the reference is the window's share on the reference's ground. It belongs beside the effective
    sample size: a window somewhere else altogether gives all reference rows the same weight, nearly nought, and with
    equal weights alone every row would seem to count.
    """
    before, now = thinned(reference, _MOST), thinned(window, _MOST)
    X = np.vstack(_numbers(schema, before, now))
    y = np.concatenate([np.zeros(len(before)), np.ones(len(now))])
    # Whoever answers for a row must not have learned it; neighbours go to the same side, for they are nearly one row.
    fold = np.concatenate([_folds(len(before)), _folds(len(now))])
    chances = np.empty(len(y))
    for held in (0, 1):
        teller = HistGradientBoostingClassifier(
            max_iter=40, max_leaf_nodes=8, min_samples_leaf=20, early_stopping=False, random_state=seed
        )
        teller.fit(X[fold != held], y[fold != held])
        chances[fold == held] = teller.predict_proba(X[fold == held])[:, 1]
    odds = chances / np.maximum(1 - chances, 1e-9)
    weights = odds[: len(before)] * len(before) / len(now)
    effective = float(weights.sum() ** 2 / (len(weights) * np.square(weights).sum()))
    return Support(effective=effective, covered=min(1.0, float(weights.mean())))


def _folds(n: int) -> NDArray[np.int64]:
    return np.arange(n) * 20 // max(n, 1) % 2


def _numbers(schema: Schema, before: pd.DataFrame, now: pd.DataFrame) -> tuple[Floats, Floats]:
    columns: list[tuple[Floats, Floats]] = []
    for feature in schema.features:
        one, other = before[feature.name], now[feature.name]
        if schema.is_text(feature):
            known = {value: float(code) for code, value in enumerate(pd.unique(one.dropna()))}
            one, other = one.map(known).fillna(-1.0), other.map(known).fillna(-1.0)
        columns.append((_floats(one), _floats(other)))
    return np.column_stack([one for one, _ in columns]), np.column_stack([other for _, other in columns])


def _floats(column: pd.Series) -> Floats:
    # Booleans with None in between come as objects.
    return pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
