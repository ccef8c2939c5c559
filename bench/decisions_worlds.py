"""Labelled streams that nobody could tune on: generated here, with change points that are known.

Hourly rows of six features, of which four matter: weather-like (autocorrelated), a daily cycle, a category. What makes
the label is drawn from the seed, so another seed is another world.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import lfilter
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from service.spec import Feature, ModelSpec, Training

__all__ = ["KINDS", "World", "world"]

START = "2025-01-06T00:00Z"
HOURS = 168
INITIAL_WEEKS = 8
WEEKS = 56
"""Answered weeks after the stretch that version 1 learns from."""
NOISE = 0.35
"""Of the label, in standard deviations of what makes it."""
SHOPS = 6

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class World:
    """A stream with what is known about it."""

    kind: str
    spec: ModelSpec
    source: pd.DataFrame
    changes: tuple[float, ...]
    """Weeks after the start of answering at which the concept changes, or begins to."""


def _stationary(week: Array, random: np.random.Generator) -> tuple[Array, tuple[float, ...]]:  # noqa: ARG001
    return np.zeros_like(week), ()


def _abrupt(week: Array, random: np.random.Generator) -> tuple[Array, tuple[float, ...]]:
    at = (float(random.integers(8, 20)), float(random.integers(28, 44)))
    return (week >= at[0]).astype(float) + (week >= at[1]), at


def _gradual(week: Array, random: np.random.Generator) -> tuple[Array, tuple[float, ...]]:
    at = float(random.integers(6, 14))
    return np.clip((week - at) / 30, 0, 1), (at,)


def _recurring(week: Array, random: np.random.Generator) -> tuple[Array, tuple[float, ...]]:
    every = float(random.integers(9, 14))
    turns = np.floor(np.clip(week, 0, None) / every)
    return turns % 2, tuple(every * turn for turn in range(1, int(WEEKS // every) + 1))


_PATHS: dict[str, Callable[[Array, np.random.Generator], tuple[Array, tuple[float, ...]]]] = {
    "stationary": _stationary,
    "abrupt": _abrupt,
    "gradual": _gradual,
    "recurring": _recurring,
    "growth": _gradual,
}
KINDS = tuple(_PATHS)
"""``growth`` is a regression whose level and slopes move by and by; the others are classifications."""


def world(kind: str, *, seed: int, weeks: int = WEEKS) -> World:
    """Return the world of that kind and seed; `weeks` is how many are answered."""
    random = np.random.default_rng([seed, list(_PATHS).index(kind)])
    n = (INITIAL_WEEKS + weeks) * HOURS
    hour = np.arange(n)
    week = hour / HOURS - INITIAL_WEEKS
    path, changes = _PATHS[kind](week, random)
    features = _features(hour, random)
    signal = _signal(features, path, random)
    signal = signal + NOISE * random.standard_normal(n)
    regression = kind == "growth"
    target = 50 + 10 * signal + 15 * path if regression else np.where(signal > 0, "yes", "no")
    moment = pd.date_range(START, periods=n, freq="h")
    source = pd.DataFrame({"timestamp": moment, **features, "target": target})
    return World(kind=kind, spec=_spec(kind, regression=regression), source=source, changes=changes)


def _features(hour: NDArray[np.int64], random: np.random.Generator) -> dict[str, Array]:
    n = len(hour)
    return {
        "slow": _wandering(n, 0.95, random),
        "fast": _wandering(n, 0.5, random),
        "free": random.standard_normal(n),
        "idle": _wandering(n, 0.9, random),
        "hour": (hour % 24).astype(float),
        "shop": random.integers(0, SHOPS, n).astype(float),
    }


def _wandering(n: int, rho: float, random: np.random.Generator) -> Array:
    """Return an autoregressive series of unit variance."""
    steps = random.standard_normal(n) * np.sqrt(1 - rho**2)
    steps[0] = random.standard_normal()
    values: Array = lfilter([1.0], [1.0, -rho], steps)
    return values


def _signal(features: dict[str, Array], path: Array, random: np.random.Generator) -> Array:
    """Return what makes the label: three concepts, and `path` leads from each to the next."""
    concepts = [_concept(features, random) for _ in range(3)]
    share = path % 1
    here = np.clip(np.floor(path).astype(int), 0, 2)
    later = np.minimum(here + 1, 2)
    stacked = np.array(concepts)
    rows = np.arange(len(path))
    mixed: Array = (1 - share) * stacked[here, rows] + share * stacked[later, rows]
    return mixed


def _concept(features: dict[str, Array], random: np.random.Generator) -> Array:
    weights = random.normal(size=3)
    weights /= np.linalg.norm(weights)
    by_shop = 0.6 * random.standard_normal(SHOPS)
    phase = random.uniform(0, 24)
    line = weights[0] * features["slow"] + weights[1] * features["fast"] + weights[2] * features["free"]
    bend = 0.5 * features["slow"] * features["free"] * random.choice([-1, 1])
    cycle = 0.5 * np.sin(2 * np.pi * (features["hour"] - phase) / 24)
    signal: Array = line + bend + cycle + by_shop[features["shop"].astype(int)]
    return signal


def _spec(kind: str, *, regression: bool) -> ModelSpec:
    return ModelSpec(
        name=kind,
        task="regression" if regression else "classification",
        target="target",
        timestamp="timestamp",
        features=[
            Feature("slow"),
            Feature("fast"),
            Feature("free"),
            Feature("idle"),
            Feature("hour", low=0, high=23),
            Feature("shop", kind="categorical", categories=tuple(range(SHOPS))),
        ],
        build=(lambda: HistGradientBoostingRegressor(random_state=0))
        if regression
        else (lambda: HistGradientBoostingClassifier(random_state=0)),
        metric="neg_mean_absolute_error" if regression else "accuracy",
        source="generated",
        training=Training(initial=f"{7 * INITIAL_WEEKS}d"),
    )
