"""Drift-free rows of six kinds, and shifts that are put into rows: what the benches of drift detection feed on."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import lfilter

from bench.decisions_rivals import Kind
from service.domain.spec import Feature, Schema
from service.learning.frames import EVENT_TIME, OUTPUT

__all__ = ["KINDS", "Shift", "answer", "columns_of", "rows_of", "schema_of", "shifted", "weights"]

Array = NDArray[np.float64]

KINDS = ("iid", "AR 0.5", "AR 0.9", "weekly season", "heavy tail", "50 categories")
NUMBERS = 4
START = pd.Timestamp("2025-01-06T00:00Z")
"""A Monday, so that a week of seven windows is a week."""
DAY = pd.Timedelta(days=1)
_WEIGHTS = np.array([1.0, 0.6, 0.3, 0.0])
"""Of the numbers in what the model answers: the first matters most, the last not at all."""
_GROUP, _SIDE = "group", "side"
"""Two categories; the answer leans on the first alone."""
_MANY = 50


def schema_of(kind: str) -> Schema:
    """Return the schema of the rows of a kind."""
    numbers = tuple(Feature(name) for name in _names())
    categories = tuple(
        Feature(name, kind="categorical", categories=tuple(range(_categories(kind)))) for name in (_GROUP, _SIDE)
    )
    return Schema(
        model="bench",
        task="classification",
        timestamp="at",
        features=(*numbers, *categories),
        integer_categories=(_GROUP, _SIDE),
        label="integer",
        classes=(0, 1),
    )


def columns_of(schema: Schema) -> dict[str, Kind]:
    """Return the columns that are compared, the answer included, with their kinds."""
    kinds: dict[str, Kind] = {
        feature.name: "numeric" if feature.kind == "numeric" else "categorical" for feature in schema.features
    }
    return kinds | {OUTPUT: "numeric" if schema.task == "regression" else "categorical"}


def weights() -> dict[str, float]:
    """Return each feature's importance: the share of the answer's variance that it makes."""
    parts = {name: float(weight**2) for name, weight in zip(_names(), _WEIGHTS, strict=True)} | {_GROUP: 0.25, _SIDE: 0}
    return {name: value / sum(parts.values()) for name, value in parts.items()}


def rows_of(
    kind: str, windows: int, *, rows: int, random: np.random.Generator, length: pd.Timedelta = DAY
) -> pd.DataFrame:
    """Return `windows` windows of `rows` rows each, one concept throughout, with what a model answers.

    Parameters
    ----------
    kind
        One of `KINDS`.
    windows, rows
        How many windows, and how many rows in each.
    random
        Makes the rows.
    length
        Of a window.
    """
    n = windows * rows
    numbers = np.column_stack([_series(kind, n, random) for _ in range(NUMBERS)])
    if kind == "weekly season":
        numbers = numbers + _season(windows, rows)[:, None] * np.array([1.0, 0.5, 1.0, 0.0])
    count = _categories(kind)
    chances = 1 / np.arange(1, count + 1) if kind == "50 categories" else np.ones(count)
    groups = random.choice(count, size=(n, 2), p=chances / chances.sum())
    frame = pd.DataFrame(numbers, columns=_names())
    frame[_GROUP], frame[_SIDE] = groups[:, 0], groups[:, 1]
    since = pd.to_timedelta(np.arange(1, n + 1) * (length.total_seconds() / rows), unit="s")
    frame.insert(0, EVENT_TIME, (START + since).astype("datetime64[us, UTC]"))
    return frame.assign(**{OUTPUT: answer(frame)})


def answer(frame: pd.DataFrame) -> NDArray[np.int64]:
    """Return what the model of these rows answers: a weighted sum above nought."""
    score = np.clip(frame[_names()].to_numpy(), -5, 5) @ _WEIGHTS + frame[_GROUP].to_numpy() % 2 - 0.5
    answers: NDArray[np.int64] = (score > 0).astype(np.int64)
    return answers


def _names() -> list[str]:
    return [f"x{place}" for place in range(NUMBERS)]


def _categories(kind: str) -> int:
    return _MANY if kind == "50 categories" else 4


def _series(kind: str, n: int, random: np.random.Generator) -> Array:
    if kind == "heavy tail":
        tail: Array = random.standard_t(2, n)
        return tail
    rho = {"AR 0.5": 0.5, "AR 0.9": 0.9}.get(kind, 0.0)
    noise = random.standard_normal(n + 200) * np.sqrt(1 - rho**2)
    # The first rows of a filter that starts at nought are not yet what the later ones are.
    series: Array = lfilter([1.0], [1.0, -rho], noise)[200:] if rho else noise[200:]
    return series


def _season(windows: int, rows: int) -> Array:
    """Return a daily cycle whose level and height depend on the day of the week; the weekend is another world."""
    hour = np.tile((np.arange(rows) + 0.5) / rows, windows)
    day = np.repeat(np.arange(windows) % 7, rows)
    weekend = day >= 5
    season: Array = np.where(weekend, -0.8, 0.3) + np.where(weekend, 0.4, 1.0) * np.sin(2 * np.pi * hour)
    return season


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One way in which a column moves after its onset."""

    column: str
    role: Literal["important", "unimportant"]
    what: Literal["mean", "variance", "category"]
    share: float
    """Of the rows that are touched."""
    shape: Literal["abrupt", "gradual"]

    @property
    def words(self) -> str:
        """What a table calls it."""
        return f"{self.what} of an {self.role} column, {self.share:.0%} of rows, {self.shape}"

    def share_in(self, step: int, *, ramp: int) -> float:
        """Return the share that is touched in the window `step` (0 is the first after the onset)."""
        return self.share if self.shape == "abrupt" else self.share * min((step + 0.5) / ramp, 1.0)


def shifted(
    values: NDArray[np.float64] | NDArray[np.int64],
    shift: Shift,
    *,
    touched: NDArray[np.bool_],
    centre: float,
    deviation: float,
) -> NDArray[np.float64] | NDArray[np.int64]:
    """Return a window's values with the touched rows moved.

    Parameters
    ----------
    values
        Of the shifted column.
    shift
        Mean: by one deviation. Variance: twice as far from the centre. Category: `centre` takes the value's place.
    touched
        Which rows move.
    centre, deviation
        The reference's mean and deviation, or the category that spreads.
    """
    if shift.what == "category":
        return np.where(touched, np.asarray(centre, dtype=values.dtype), values)
    moved = values + deviation if shift.what == "mean" else centre + 2 * (values - centre)
    return np.where(touched, moved, values)
