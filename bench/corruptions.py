"""Sixteen ways in which data break, put into the newest share of a window; and what a world that moves looks like."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.spec import Schema
from service.learning.frames import EVENT_TIME, LABEL

__all__ = ["CORRUPTIONS", "DRIFTS", "Case", "label_corruptions"]

HOUR = pd.Timedelta("1h")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A window that is to be broken.

    Attributes
    ----------
    reference
        Rows before it, for corruptions that need to know what is usual (the end at which a range is clipped).
    share
        Of its newest rows.
    turn
        Counts the onsets: which column is broken goes by it.
    """

    schema: Schema
    reference: pd.DataFrame
    window: pd.DataFrame
    share: float
    turn: int

    def numeric(self) -> list[str]:
        """Return numeric columns that vary, the turn's first."""
        return self._turned([f.name for f in self.schema.features if f.kind == "numeric" and self._varies(f.name)])

    def categorical(self, least: int) -> list[str]:
        """Return categorical columns with at least so many values in the window, the turn's first."""
        names = [f.name for f in self.schema.features if f.kind == "categorical"]
        return self._turned([name for name in names if self.window[name].nunique() >= least])

    def start(self) -> int:
        """Return the first broken row."""
        return len(self.window) - max(1, round(self.share * len(self.window)))

    def put(self, values: dict[str, Any]) -> pd.DataFrame:
        """Return the window with `values` (of all rows) in its broken part."""
        out = self.window.copy()
        for name, column in values.items():
            kind = object if out[name].dtype.kind in "bO" else np.float64
            mixed: NDArray[Any] = out[name].to_numpy(dtype=kind, copy=True)
            mixed[self.start() :] = np.asarray(column, dtype=kind)[self.start() :]
            out[name] = mixed
        return out

    def _varies(self, name: str) -> bool:
        return self.window[name].nunique() >= 10 and self.reference[name].nunique() >= 10

    def _turned(self, names: list[str]) -> list[str]:
        turn = self.turn % max(len(names), 1)
        return names[turn:] + names[:turn]


Broken = tuple[pd.DataFrame, pd.DataFrame | None]
"""The window, and rows that came with it and lie before it."""


def _column(change: Callable[[Case, pd.Series], Any]) -> Callable[[Case], Broken]:
    def broken(case: Case) -> Broken:
        name = case.numeric()[0]
        return case.put({name: change(case, case.window[name])}), None

    return broken


def _sentinel(case: Case) -> Broken:
    name = case.numeric()[0]
    return case.put({name: np.full(len(case.window), 0.0 if case.turn % 2 else -999.0)}), None


def _swapped(case: Case) -> Broken:
    one, other = case.numeric()[:2]
    return case.put({one: case.window[other], other: case.window[one]}), None


def _recoded(case: Case) -> Broken | None:
    names = case.categorical(2)
    if not names:
        return None
    column = case.window[names[0]]
    text = column.dtype == object
    return case.put({names[0]: ("new_" + column.astype(str)) if text else column.astype(float) + 100}), None


def _permuted(case: Case) -> Broken | None:
    names = case.categorical(3)
    if not names:
        return None
    column = case.window[names[0]]
    values = column.value_counts().index.tolist()
    return case.put({names[0]: column.map(dict(zip(values, [*values[1:], values[0]], strict=True)))}), None


def _duplicates(case: Case) -> Broken:
    return pd.concat([case.window, case.window.iloc[case.start() :]]).sort_values(EVENT_TIME, kind="stable"), None


def _late(case: Case) -> Broken:
    """Send a batch of three weeks ago again at the window's end."""
    size = len(case.window) - case.start()
    old = case.reference.iloc[-4 * len(case.window) :].iloc[:size]
    end = case.window[EVENT_TIME].iloc[-1]
    came = pd.date_range(end + HOUR, periods=size, freq="1s")
    window = case.window.assign(answered_at=case.window[EVENT_TIME] + HOUR)
    return window, old.assign(answered_at=came)[[EVENT_TIME, "answered_at"]]


def _timezone(case: Case) -> Broken:
    """Local time is taken for UTC in what comes last; in order of what the times say, as the lake gives it."""
    out = case.window.copy()
    moved = out[EVENT_TIME].dt.tz_localize(None).to_numpy().copy()
    moved[case.start() :] += np.timedelta64((5, 8, -6, 10, -9)[case.turn % 5], "h")
    out[EVENT_TIME] = pd.to_datetime(moved, utc=True)
    return out.sort_values(EVENT_TIME, kind="stable"), None


def _truncated(case: Case) -> Broken | None:
    """All rows of one category stay out: one of the sources is gone."""
    # A category of the calendar is no source.
    names = [name for name in case.categorical(3) if (case.window[name] != case.window[name].shift()).mean() > 0.25]
    if not names:
        return None
    counts = case.window[names[0]].value_counts()
    lost = (case.window[names[0]] == counts.index[min(1, len(counts) - 1)]).to_numpy()
    lost[: case.start()] = False
    return case.window.loc[~lost], None


def _join(case: Case) -> Broken:
    names = [f.name for f in case.schema.features if f.kind == "numeric"]
    half = names[: max(2, len(case.schema.features) // 2)]
    value = np.nan if case.turn % 2 else 0.0
    return case.put({name: np.full(len(case.window), value) for name in half}), None


def _clipped(case: Case) -> Broken:
    name = case.numeric()[0]
    return case.put({name: case.window[name].clip(upper=float(case.reference[name].quantile(0.6)))}), None


CORRUPTIONS: dict[str, Callable[[Case], Broken | None]] = {
    "unit (x 1000)": _column(lambda _, c: c * 1000),
    "affine unit (x 1.8 + 32)": _column(lambda _, c: c * 1.8 + 32),
    "wrong decimal (/ 10)": _column(lambda _, c: c / 10),
    "nulls": _column(lambda _, c: np.full(len(c), np.nan)),
    "sentinel (0, -999)": _sentinel,
    "frozen": _column(lambda case, c: np.full(len(c), c.iloc[max(case.start() - 1, 0)])),
    "swapped columns": _swapped,
    "new codes": _recoded,
    "permuted codes": _permuted,
    "duplicate batch": _duplicates,
    "old batch again": _late,
    "time zone": _timezone,
    "source missing": _truncated,
    "join miss": _join,
    "clipped": _clipped,
}
"""A corruption gives None where the stream has no column for it."""


def _tilted(frame: pd.DataFrame, name: str, random: np.random.Generator) -> pd.DataFrame:
    """Return rows drawn again so that large values of a column are more frequent: a covariate shift."""
    ranks = frame[name].rank(pct=True).to_numpy()
    keep = random.random(len(frame)) < 0.25 + 0.75 * ranks
    return frame.loc[keep]


def _movable(case: Case) -> str:
    """Return the turn's numeric column among those that do not follow the clock: 25 o'clock is no drift."""
    times = case.reference[EVENT_TIME].dt
    slots = (times.hour * 60 + times.minute).to_numpy()
    free = [name for name in case.numeric() if (case.reference.groupby(slots)[name].nunique() > 1).any()]
    return free[0]


def _within(case: Case, name: str, column: pd.Series) -> pd.DataFrame:
    """Return the window with the moved column, inside its declared bounds: no world leaves them.

    What would leave them is drawn towards the bound, rank by rank: cut off, it would all sit at one value.
    """
    feature = next(f for f in case.schema.features if f.name == name)
    if feature.high is not None and float(column.max()) > feature.high:
        old = case.window[name]
        low, high = float(old.min()), float(feature.high)
        column = low + (high - low) * ((old - low) / max(high - low, 1e-12)) ** 0.6
    return case.window.assign(**{name: column})


def _gradual(case: Case, random: np.random.Generator) -> pd.DataFrame:
    del random
    name = _movable(case)
    spread = float(case.reference[name].quantile(0.75) - case.reference[name].quantile(0.25))
    return _within(case, name, case.window[name] + np.linspace(0, 1, len(case.window)) * spread)


def _grown(case: Case, random: np.random.Generator) -> pd.DataFrame:
    del random
    name = _movable(case)
    return _within(case, name, case.window[name] * 1.6)


def _mixed(case: Case, random: np.random.Generator) -> pd.DataFrame:
    """One category takes a third of the others' rows: a new mix of customers."""
    names = case.categorical(3)
    if not names:
        return case.window
    counts = case.window[names[0]].value_counts()
    keep = (case.window[names[0]] == counts.index[0]).to_numpy() | (random.random(len(case.window)) < 0.66)
    kept: pd.DataFrame = case.window.loc[keep]
    return kept


DRIFTS: dict[str, Callable[[Case, np.random.Generator], pd.DataFrame]] = {
    "as it came": lambda case, _: case.window,
    "tilted towards large values": lambda case, random: _tilted(case.window, case.numeric()[0], random),
    "gradual shift by the quartiles' distance": _gradual,
    "level x 1.6": _grown,
    "new mix of categories": _mixed,
}


def label_corruptions(answered: pd.DataFrame, share: float) -> dict[str, pd.DataFrame]:
    """Return rows whose labels are broken in the newest share: exchanged (classes) or in another unit, and slipped."""
    start = len(answered) - round(share * len(answered))
    truth = answered[LABEL]
    if truth.dtype.kind in "fi" and truth.nunique() > 10:
        exchanged = truth.astype(np.float64) * 100
    else:
        values = sorted(truth.dropna().unique().tolist())
        exchanged = truth.map(dict(zip(values, [*values[1:], values[0]], strict=True)))
    out = {}
    for name, column in (("labels exchanged", exchanged), ("labels slipped", truth.shift(12).bfill())):
        mixed = truth.astype(column.dtype).copy()
        mixed.iloc[start:] = column.iloc[start:]
        out[name] = answered.assign(**{LABEL: mixed})
    return out
