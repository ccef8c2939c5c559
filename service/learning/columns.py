"""What is compared with what: one pair of clean columns per feature and for the output, as Evidently can take them.

Evidently drops nulls and infinities, guesses types, chokes on empty columns, scales by a fixed floor and takes a
constant reference for the whole truth; here each of these is settled beforehand, so that verdict and report see the
same values.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.policy import Drift
from service.domain.spec import Feature, Schema
from service.learning.frames import OUTPUT, require

__all__ = ["PREDICTION", "Pair", "pairs_of", "thinned"]

PREDICTION = "prediction"

_FEWEST = 20
"""Values a side below which a column is not evaluated."""

_EXPECTED = 5
"""Categories that the window would hold less often than this, going by the reference, are compared as one."""

_PERMUTED = 1_000
"""Rows a side with TVD: Evidently permutes all rows a thousand times in Python."""

_NORM_FLOOR = 0.001
"""Evidently scales the Wasserstein distance by the reference's deviation, but never by less than this."""


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
    pairs = [_feature_pair(schema, feature, reference, window) for feature in schema.features]
    if OUTPUT in reference.columns and OUTPUT in window.columns:
        sides = reference[OUTPUT], window[OUTPUT]
        if schema.task == "regression":
            pairs.append(_numeric(PREDICTION, "prediction", *sides))
        else:
            pairs.append(_categorical(PREDICTION, "prediction", *(_as_text(side) for side in sides)))
    return tuple(pairs)


def thinned(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most `most` rows, spread evenly: the same rows every time, and every season among them."""
    if len(frame) <= most:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, most).astype(np.int64)]


def _feature_pair(schema: Schema, feature: Feature, reference: pd.DataFrame, window: pd.DataFrame) -> Pair:
    sides = reference[feature.name], window[feature.name]
    if feature.kind == "numeric":
        return _numeric(feature.name, "feature", *sides)
    if feature.kind == "categorical" and not schema.is_text(feature):
        return _categorical(feature.name, "feature", *(_as_integer_text(side) for side in sides))
    return _categorical(feature.name, "feature", *(_as_text(side) for side in sides))


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
    if len(reference) < _FEWEST or len(window) < _FEWEST or (window == "(null)").all():
        obstacle = _obstacle((reference[reference != "(null)"]).to_numpy(), (window[window != "(null)"]).to_numpy())
        return Pair(column=column, role=role, kind="categorical", reference=reference, window=window, obstacle=obstacle)
    expected = reference.value_counts(normalize=True) * len(window)
    rare = set(expected.index[expected < _EXPECTED]) - {"(null)"}
    known = set(expected.index)
    names = {value: "(rare)" if value in rare else value for value in known}
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
        if len(values) < _FEWEST:
            return f"not evaluated: the {side} holds only {len(values)} values, {_FEWEST} are needed"
    return ""


def _finite(column: pd.Series) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite


def _as_text(column: pd.Series) -> pd.Series:
    null = column.isna().to_numpy()
    # One spelling for True and 1.0: a nullable boolean arrives as either.
    text = np.array([_spelled(value) for value in column], dtype=object)
    text[null] = "(null)"
    return pd.Series(text, dtype=object)


def _spelled(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return str(value)


def _as_integer_text(column: pd.Series) -> pd.Series:
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return pd.Series(["(null)" if np.isnan(value) else str(int(value)) for value in values], dtype=object)
