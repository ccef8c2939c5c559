"""Streams to break: the two shipped ones, and two made up, so that nothing is tuned to real ones alone."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import lfilter
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from service.domain.spec import ModelSpec, Schema
from service.learning.frames import EVENT_TIME, between, canonical
from service.learning.schema import infer
from service.spec import Feature, Training

__all__ = ["NAMES", "Source", "source_of"]

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("electricity", "bikes", "plant", "shop")
WEEKS = 60
HISTORY = timedelta(days=56)
WEEK = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A stream with its model."""

    spec: ModelSpec
    schema: Schema
    rows: pd.DataFrame

    def split(self, until: pd.Timestamp) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return eight weeks of reference and the week after them, which ends at `until`."""
        middle = until - WEEK
        return between(self.rows, after=middle - HISTORY, until=middle), between(self.rows, after=middle, until=until)

    def ends(self, count: int) -> list[pd.Timestamp]:
        """Return the ends of `count` windows, spread evenly over all that have a reference."""
        first = self.rows[EVENT_TIME].iloc[0] + HISTORY + WEEK
        last = self.rows[EVENT_TIME].iloc[-1]
        return [first + (last - first) * place / max(count - 1, 1) for place in range(count)]


def source_of(name: str) -> Source:
    """Return the stream of that name."""
    if name in {"electricity", "bikes"}:
        spec = importlib.import_module(f"models.{name}").spec
        frame = pd.read_parquet(ROOT / spec.source)
    else:
        spec, frame = {"plant": _plant, "shop": _shop}[name]()
    schema = infer(spec, frame)
    return Source(spec=spec, schema=schema, rows=canonical(spec, schema, frame))


def _plant() -> tuple[ModelSpec, pd.DataFrame]:
    """Return a plant: sensors by the quarter of an hour, with a daily course, memory, spikes and a slow season."""
    random = np.random.default_rng(11)
    n = WEEKS * 7 * 96
    times = pd.date_range("2025-01-06", periods=n, freq="15min", tz="UTC")
    day, year = np.arange(n) / 96 * 2 * np.pi, np.arange(n) / (96 * 365) * 2 * np.pi
    temperature = 12 - 9 * np.cos(year) - 4 * np.cos(day) + _memory(random, n, 0.98, 1.5)
    load = np.exp(0.3 * np.sin(day - 1) + 0.2 * np.sin(year) + _memory(random, n, 0.9, 0.15)) * 140
    vibration = random.lognormal(0.0, 0.8, n) * (1 + 0.3 * (load > 160))
    pressure = 1013 + _memory(random, n, 0.99, 6.0)
    shift = np.array(["early", "late", "night"], dtype=object)[(times.hour.to_numpy() + 2) // 8 % 3]
    product = random.choice(np.array(["A", "B", "C", "D"], dtype=object), n, p=[0.5, 0.25, 0.15, 0.1])
    quality = 0.5 * temperature + 0.05 * load + 3 * (product == "B") + vibration + random.normal(0, 1, n)
    spec = ModelSpec(
        name="plant",
        task="regression",
        target="y",
        timestamp="at",
        metric="neg_mean_absolute_error",
        source="plant.parquet",
        features=[
            Feature("temperature", nullable=True),
            Feature("load", nullable=True),
            Feature("vibration", nullable=True),
            Feature("pressure", nullable=True),
            Feature("line", kind="categorical"),
            Feature("product", kind="categorical"),
        ],
        build=_coded(HistGradientBoostingRegressor),
        training=Training(initial="56d"),
    )
    frame = {
        "at": times,
        "temperature": temperature,
        "load": load,
        "vibration": vibration,
        "pressure": pressure,
        "line": pd.Series(shift).map({"early": 1, "late": 2, "night": 3}).to_numpy(),
        "product": pd.Series(product).map({"A": 1, "B": 2, "C": 3, "D": 4}).to_numpy(),
        "y": quality,
    }
    return spec, pd.DataFrame(frame)


def _shop() -> tuple[ModelSpec, pd.DataFrame]:
    """Return a shop: visits at odd moments, more by day and on some days, prices with cents, skewed amounts."""
    random = np.random.default_rng(12)
    hours = WEEKS * 7 * 24
    clock = np.arange(hours) % 24
    rate = 5 * (1 + np.cos((clock - 15) / 24 * 2 * np.pi)) * np.where(np.arange(hours) // 24 % 7 >= 5, 1.5, 1.0)
    counts = random.poisson(rate)
    hour = np.repeat(np.arange(hours), counts)
    n = len(hour)
    times = pd.Timestamp("2025-01-06", tz="UTC") + pd.to_timedelta(hour * 3600 + random.random(n) * 3600, unit="s")
    times = times.sort_values()
    basket = np.round(random.lognormal(3.2 + 0.1 * np.sin(hour / 24 / 60), 0.7, n), 2)
    age = np.clip(random.normal(41, 13, n), 16, 95).round()
    dwell = random.gamma(2.0, 90.0, n)
    speed = random.normal(0, 1, n)
    channel = random.choice([1, 2, 3, 4, 5], n, p=[0.4, 0.25, 0.15, 0.12, 0.08])
    country = random.choice([10, 20, 30, 40], n, p=[0.5, 0.3, 0.15, 0.05])
    odds = 0.02 * (basket - 25) - 0.004 * (dwell - 180) + 0.6 * speed + 0.8 * (channel == 2) - 0.5 * (country == 20)
    spec = ModelSpec(
        name="shop",
        task="classification",
        target="y",
        timestamp="at",
        metric="accuracy",
        source="shop.parquet",
        features=[
            Feature("basket", low=0),
            Feature("age", low=0, high=120),
            Feature("dwell"),
            Feature("speed"),
            Feature("channel", kind="categorical"),
            Feature("country", kind="categorical"),
            Feature("member", kind="boolean"),
        ],
        build=_coded(HistGradientBoostingClassifier),
        training=Training(initial="56d"),
    )
    frame = {
        "at": times,
        "basket": basket,
        "age": age,
        "dwell": dwell,
        "speed": speed,
        "channel": channel,
        "country": country,
        "member": random.random(n) < 0.3,
        "y": np.where(random.random(n) < 1 / (1 + np.exp(-odds)), "buys", "leaves"),
    }
    return spec, pd.DataFrame(frame)


def _coded(kind: Any) -> Callable[[], Any]:
    return lambda: kind(random_state=0, max_iter=60)


def _memory(random: np.random.Generator, n: int, rho: float, spread: float) -> NDArray[np.float64]:
    shocks = random.normal(0, spread * np.sqrt(1 - rho**2), n)
    values: NDArray[np.float64] = lfilter([1], [1, -rho], shocks)
    return values
