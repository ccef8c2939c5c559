"""Quality on the two real streams: no sound week is called broken, and what breaks them is found."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.domain.spec import ModelSpec, Schema
from service.learning.frames import EVENT_TIME, between, canonical
from service.learning.quality import look
from service.learning.schema import infer

ROOT = Path(__file__).parents[3]
WEEK = pd.Timedelta("7d")
FAULTS = {pd.Timestamp("2012-08-18", tz="UTC"): {"sentinel"}}
"""The source's own: all day on 17 August 2012 its felt temperature stands at 0.2424, beside one of 0.62 to 0.86."""


@dataclass(frozen=True)
class Real:
    """A real stream as it is replayed: in order, years later."""

    spec: ModelSpec
    schema: Schema
    rows: pd.DataFrame

    def weeks(self, *, every: int = 1) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        """Yield the rows before each week, as many as a version may have learned from, and the week."""
        first = self.rows[EVENT_TIME].iloc[0]
        for end in pd.date_range(first + 9 * WEEK, self.rows[EVENT_TIME].iloc[-1], freq=every * WEEK):
            yield (
                between(self.rows, after=end - 9 * WEEK, until=end - WEEK).drop(columns="answered_at"),
                between(self.rows, after=end - WEEK, until=end),
            )

    def found(self, reference: pd.DataFrame, window: pd.DataFrame) -> set[str]:
        """Return the names of what is broken."""
        return {finding.check for finding in look(self.schema, self.spec.quality, reference=reference, window=window)}


@pytest.fixture(scope="module", params=["electricity", "bikes"])
def real(request: pytest.FixtureRequest) -> Real:
    spec: ModelSpec = importlib.import_module(f"models.{request.param}").spec
    source = pd.read_parquet(ROOT / spec.source)
    schema = infer(spec, source)
    rows = canonical(spec, schema, source)
    came = pd.date_range("2030-01-01", periods=len(rows), freq="1ms", tz="UTC")
    return Real(spec, schema, rows.assign(answered_at=came))


def test_no_sound_week_is_called_broken(real: Real) -> None:
    judged = [(window[EVENT_TIME].iloc[-1], real.found(before, window)) for before, window in real.weeks()]
    assert len(judged) > 90
    assert {end: found for end, found in judged if found} == {end: FAULTS[end] for end, _ in judged if end in FAULTS}


def _shifted(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return rows.assign(**{name: rows[names[place - 1]].to_numpy() for place, name in enumerate(names)})


BREAKAGES: dict[str, Callable[[pd.DataFrame, list[str]], pd.DataFrame]] = {
    "nulls": lambda rows, names: rows.assign(**{names[0]: np.nan}),
    "unit": lambda rows, names: rows.assign(**{names[0]: rows[names[0]] * 100}),
    "moved by one column": _shifted,
    "sent twice": lambda rows, _: pd.concat([rows, rows]).sort_values(EVENT_TIME),
    "from the future": lambda rows, _: rows.assign(answered_at=rows[EVENT_TIME] - pd.Timedelta("10h")),
    "days are counted from another number": lambda rows, _: rows.assign(
        **{name: rows[name] + 1 for name in ("day", "weekday") if name in rows}
    ),
}


MISSED = {"moved by one column": 0.2}
"""Share of the weeks in which it can't be told: columns that lie alike can't be told apart by their shape."""


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_breaks_a_week_is_found_in_every_season(real: Real, name: str) -> None:
    names = [feature.name for feature in real.schema.features if feature.kind == "numeric" and feature.name != "yr"]
    found = {
        window[EVENT_TIME].iloc[-1]: bool(real.found(before, BREAKAGES[name](window, names)))
        for before, window in real.weeks(every=8)
    }
    assert len(found) > 10
    assert sum(found.values()) >= (1 - MISSED.get(name, 0.0)) * len(found), found
