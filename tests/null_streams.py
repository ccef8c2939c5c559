"""Streams in which nothing changes, and how often the drift test says otherwise."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import signal, stats

from service.domain.spec import Feature, Schema
from service.learning.calibration import bar_of, calibrate
from service.learning.drift import compare
from service.spec import Drift

__all__ = ["KINDS", "Tally", "columns_of", "false_alarms", "schema_of", "stamped"]

KINDS = ("iid", "AR 0.5", "AR 0.9", "weekly season", "heavy tail", "50 categories")
FEATURES = 4
AHEAD = 5
"""Windows of each stream that are judged: more of them would share one threshold, and not be independent."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """False alarms of single windows, and what was promised."""

    kind: str
    alarms: int
    windows: int
    level: float

    @property
    def bounds(self) -> tuple[int, int]:
        """99 % of a binomial count."""
        low, high = stats.binom.interval(0.99, self.windows, self.level)
        return int(low), int(high)


def schema_of(kind: str) -> Schema:
    """Return four features of the kind."""
    of = "categorical" if kind == "50 categories" else "numeric"
    return Schema(
        model="null",
        task="regression",
        timestamp="at",
        label="number",
        features=tuple(Feature(f"f{place}", kind=of) for place in range(FEATURES)),  # type: ignore[arg-type]
    )


def columns_of(kind: str, random: np.random.Generator, rows: int) -> NDArray[np.float64]:
    """Return the values of a stream."""
    if kind == "heavy tail":
        return random.standard_t(1.5, size=(rows, FEATURES))
    noise = random.normal(size=(rows + 200, FEATURES))
    memory = {"AR 0.5": 0.5, "AR 0.9": 0.9}.get(kind, 0.0)
    values: NDArray[np.float64] = signal.lfilter([np.sqrt(1 - memory**2)], [1, -memory], noise, axis=0)[200:]
    if kind == "weekly season":
        values += (
            2 * np.sin(2 * np.pi * np.arange(rows) / 168)[:, None] + np.sin(2 * np.pi * np.arange(rows) / 24)[:, None]
        )
    return values


def stamped(kind: str, values: NDArray[np.float64], random: np.random.Generator) -> pd.DataFrame:
    """Return the stream as rows, one an hour."""
    frame = pd.DataFrame(values, columns=[f"f{place}" for place in range(values.shape[1])])
    if kind == "50 categories":
        frame = (
            pd.DataFrame(random.integers(0, 50, size=values.shape), columns=frame.columns).astype(str).astype(object)
        )
    times = pd.date_range("2026-01-05", periods=len(frame), freq="1h", tz="UTC").astype("datetime64[us, UTC]")
    return frame.assign(event_time=times, output=values[:, 0])


def false_alarms(kind: str, *, streams: int, window: int = 100, blocks: int = 60, seed: int = 0) -> Tally:
    """Return how often windows of unchanged streams are called drifted."""
    schema, policy = schema_of(kind), Drift(window=f"{window} rows", min_rows=20)
    alarms, level = 0, 0.0
    for number in range(streams):
        random = np.random.default_rng((seed, KINDS.index(kind), number))
        rows = stamped(kind, columns_of(kind, random, (blocks + AHEAD) * window), random)
        reference = rows.head(blocks * window)
        calibration = calibrate(schema, policy, reference)
        limit = bar_of(calibration, policy).limit
        level += 0.0 if limit is None else limit.level
        for place in range(AHEAD):
            start = (blocks + place) * window
            newest = rows.iloc[start : start + window]
            test = compare(schema, policy, reference=reference, window=newest, calibration=calibration)[1]
            alarms += bool(test.culprits)
    return Tally(kind=kind, alarms=alarms, windows=streams * AHEAD, level=level / streams)
