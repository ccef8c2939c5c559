"""What is compared with what: one pair of clean columns per feature and for the output, as Evidently can take them.

Evidently drops nulls and infinities, guesses types, chokes on empty columns, scales by a fixed floor and takes a
constant reference for the whole truth; here each of these is settled beforehand, so that verdict and report see the
same values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.policy import Drift
from service.domain.spec import Schema
from service.learning.frames import OUTPUT, require

__all__ = ["FEWEST", "NULL", "PREDICTION", "Pair", "Values", "grouped", "pair_of", "pairs_of", "thinned", "values_of"]

PREDICTION = "prediction"
NULL = "(null)"

FEWEST = 20
"""Values a side below which a column is not evaluated."""

_EXPECTED = 5
"""Categories that the window would hold less often than this, going by the reference, are compared in groups."""

_PERMUTED = 1_000
"""Rows a side with TVD: Evidently permutes all rows a thousand times in Python."""

_NORM_FLOOR = 0.001
"""Evidently scales the Wasserstein distance by the reference's deviation, but never by less than this."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """One column of one side, as it is compared: numbers, or categories spelled out with nulls among them."""

    column: str
    role: Literal["feature", "prediction"]
    kind: Literal["numeric", "categorical"]
    series: pd.Series


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One column of the reference and of the window, without nulls, ready to be compared."""

    column: str
    role: Literal["feature", "prediction"]
    kind: Literal["numeric", "categorical"]
    reference: pd.Series
    window: pd.Series
    obstacle: str = ""
    """Why it cannot be compared; empty when it can."""
    note: str = ""
    """What a reader of the statistic should know."""


def pairs_of(schema: Schema, policy: Drift, *, reference: pd.DataFrame, window: pd.DataFrame) -> tuple[Pair, ...]:
    """Return one pair per feature, in the schema's order, and one for the output where both sides have it.

    Raises
    ------
    CheckFailed
        If a feature's column is missing: silence would look like health.
    """
    require(schema, reference)
    require(schema, window)
    most = min(policy.sample, _PERMUTED) if policy.categorical == "TVD" else policy.sample
    reference, window = thinned(reference, most), thinned(window, most)
    before = {values.column: values for values in values_of(schema, reference)}
    return tuple(
        pair_of(now, before[now.column].series, now.series) for now in values_of(schema, window) if now.column in before
    )


def pair_of(values: Values, reference: pd.Series, window: pd.Series) -> Pair:
    """Return one column of both sides, ready to be compared."""
    pair = _numeric if values.kind == "numeric" else _categorical
    return pair(values.column, values.role, reference, window)


def values_of(schema: Schema, frame: pd.DataFrame) -> Iterator[Values]:
    """Yield each feature's values in the schema's order, then the output's where `frame` has it."""
    for feature in schema.features:
        column = frame[feature.name]
        if feature.kind == "numeric":
            yield Values(column=feature.name, role="feature", kind="numeric", series=column)
        elif feature.kind == "categorical" and not schema.is_text(feature):
            yield Values(column=feature.name, role="feature", kind="categorical", series=_as_integer_text(column))
        else:
            yield Values(column=feature.name, role="feature", kind="categorical", series=_as_text(column))
    if OUTPUT in frame.columns:
        column = frame[OUTPUT]
        if schema.task == "regression":
            yield Values(column=PREDICTION, role="prediction", kind="numeric", series=column)
        else:
            yield Values(column=PREDICTION, role="prediction", kind="categorical", series=_as_text(column))


def grouped(shares: NDArray[np.float64], rows: float, *, alone: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each category the group that it is compared in, or -1 where it stands for itself.

    Parameters
    ----------
    shares
        Of the categories in the reference, in the order of their names.
    rows
        Of the window. A category that it would hold too seldom is joined with others that are as rare, until it would
        hold their group often enough.
    alone
        Which are never joined.
    """
    groups = np.full(len(shares), -1, dtype=np.int64)
    expected = shares * rows
    rare = np.flatnonzero((expected < _EXPECTED) & (expected > 0) & ~alone)
    rare = rare[np.argsort(-expected[rare], kind="stable")]
    if len(rare):
        # A last group that came out too small goes to the one before it.
        place = ((np.cumsum(expected[rare]) - expected[rare] / 2) // _EXPECTED).astype(np.int64)
        most = max(int(expected[rare].sum() // _EXPECTED) - 1, 0)
        groups[rare] = np.minimum(place, most)
    return groups


def thinned(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most `most` rows, spread evenly: the same rows every time, and every season among them."""
    if len(frame) <= most:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, most).astype(np.int64)]


def _numeric(column: str, role: Any, reference: pd.Series, window: pd.Series) -> Pair:
    nulls = float(reference.isna().mean()), float(window.isna().mean())
    before, now = _finite(reference), _finite(window)
    note = f"nulls {nulls[0]:.1%} before, {nulls[1]:.1%} now" if max(nulls) > 0 else ""
    obstacle = _obstacle(before, now)
    if obstacle:
        return Pair(
            column=column,
            role=role,
            kind="numeric",
            reference=pd.Series(before),
            window=pd.Series(now),
            obstacle=obstacle,
            note=note,
        )
    if before.min() == before.max():
        return _stood_still(column, role, before, now)
    deviation = float(np.std(before))
    if deviation < _NORM_FLOOR:
        before, now = before / deviation, now / deviation
    return Pair(column=column, role=role, kind="numeric", reference=pd.Series(before), window=pd.Series(now), note=note)


def _stood_still(column: str, role: Any, before: NDArray[np.float64], now: NDArray[np.float64]) -> Pair:
    """Compare a reference of one value by whether the window still holds it: it has no deviation to measure by."""
    still = float(before[0])
    same, other = f"{still:.6g}", "another value"
    share = float((now != still).mean())
    note = f"the reference stood still at {still:.4g}; {share:.1%} of the window holds other values"
    return Pair(
        column=column,
        role=role,
        kind="categorical",
        reference=pd.Series([same] * len(before), dtype=object),
        window=pd.Series(np.where(now == still, same, other).astype(object)),
        note=note if share else "",
    )


def _categorical(column: str, role: Any, reference: pd.Series, window: pd.Series) -> Pair:
    if len(reference) < FEWEST or len(window) < FEWEST or (window == NULL).all():
        obstacle = _obstacle((reference[reference != NULL]).to_numpy(), (window[window != NULL]).to_numpy())
        return Pair(column=column, role=role, kind="categorical", reference=reference, window=window, obstacle=obstacle)
    shares = reference.value_counts(normalize=True).sort_index()
    groups = grouped(np.asarray(shares, dtype=np.float64), len(window), alone=(shares.index == NULL))
    names = {
        value: value if group < 0 else f"(rare {group + 1})" for value, group in zip(shares.index, groups, strict=True)
    }
    now = window.map(lambda value: names.get(value, "(unseen)"))
    unseen = float((now == "(unseen)").mean())
    return Pair(
        column=column,
        role=role,
        kind="categorical",
        reference=reference.map(lambda value: names[value]),
        window=now,
        note=f"{unseen:.1%} of the window holds categories that the reference has not" if unseen else "",
    )


def _obstacle(before: NDArray[Any], now: NDArray[Any]) -> str:
    for side, values in (("reference", before), ("window", now)):
        if not len(values):
            return f"not evaluated: the {side} holds no value"
        if len(values) < FEWEST:
            return f"not evaluated: the {side} holds only {len(values)} values, {FEWEST} are needed"
    return ""


def _finite(column: pd.Series) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite


def _as_text(column: pd.Series) -> pd.Series:
    # Spelled once per category: a million rows have fifty of them. To factorize True and 1.0 are one category, as a
    # nullable boolean wants it, which arrives as either.
    codes, categories = pd.factorize(column, use_na_sentinel=True)
    spelled = np.array([*(_spelled(value) for value in categories), NULL], dtype=object)  # code -1 is the last
    return pd.Series(spelled[codes], dtype=object)


def _spelled(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return str(value)


def _as_integer_text(column: pd.Series) -> pd.Series:
    codes, categories = pd.factorize(column.to_numpy(dtype=np.float64, na_value=np.nan), use_na_sentinel=True)
    spelled = np.array([*(str(int(value)) for value in categories), NULL], dtype=object)
    return pd.Series(spelled[codes], dtype=object)
