"""Small labelled streams of every kind that a model file may declare."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from service.domain.spec import Schema
from service.learning.frames import canonical
from service.learning.schema import infer
from service.learning.train import Challenge, challenge
from service.spec import Feature, Gate, ModelSpec, Training

ROWS = 600


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A spec with a source that fits it."""

    spec: ModelSpec
    source: pd.DataFrame = field(repr=False)


def _times(n: int) -> pd.DatetimeIndex:
    return pd.date_range("2026-01-01", periods=n, freq="30min", tz="UTC")


def _spec(task: str, metric: str, build: Callable[[], Any], *, resamples: int = 200, **options: Any) -> ModelSpec:
    """Return the spec; a metric that is no mean over rows is asked anew for each resample, which takes milliseconds."""
    return ModelSpec(
        name="small",
        task=task,  # type: ignore[arg-type]  # parametrised
        target="y",
        timestamp="at",
        build=build,
        metric=metric,
        source="small.parquet",
        training=Training(windows=("4d", "all"), holdout="3d", min_rows=50),
        gate=Gate(min_rows=50, resamples=resamples),
        **options,
    )


def _source(seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=ROWS), random.normal(size=ROWS)
    with_null = random.normal(size=ROWS)
    with_null[::7] = np.nan
    flag = random.random(ROWS) < 0.4
    maybe = pd.array(
        [None if i % 11 == 0 else bool(x) for i, x in enumerate(random.random(ROWS) < 0.5)], dtype="boolean"
    )
    colour = random.choice(["red", "green", "blue"], ROWS).astype(object)
    with_gap = colour.copy()
    with_gap[::13] = None
    level = random.integers(1, 5, ROWS)
    return pd.DataFrame(
        {
            "at": _times(ROWS),
            "a": a,
            "b": b,
            "with_null": with_null,
            "flag": flag,
            "maybe": maybe,
            "colour": colour,
            "with_gap": with_gap,
            "level": level,
            "score": a + 0.5 * b + flag + 0.1 * random.normal(size=ROWS),
        }
    )


def _classes(source: pd.DataFrame, names: list[Any]) -> pd.Series:
    edges = source["score"].quantile(np.linspace(0, 1, len(names) + 1)[1:-1]).to_numpy()
    return pd.Series([names[i] for i in np.searchsorted(edges, source["score"].to_numpy())])


def _mixed_pipeline(last: Any) -> Any:
    text = ["colour", "with_gap", "level"]
    columns = ColumnTransformer(
        [("text", OneHotEncoder(handle_unknown="ignore"), text), ("rest", StandardScaler(), ["a", "b", "flag"])]
    )
    return make_pipeline(columns, last)


NUMBERS = ["at", "a", "b", "y"]


def _binary_text() -> Kind:
    source = _source()
    source["y"] = _classes(source, ["DOWN", "UP"])
    return Kind(spec=_spec("classification", "accuracy", LogisticRegression), source=source[NUMBERS])


def _multi_text() -> Kind:
    source = _source(1)
    source["y"] = _classes(source, ["low", "mid", "top"])
    build = lambda: RandomForestClassifier(10, min_samples_leaf=3)  # noqa: E731
    return Kind(
        spec=_spec("classification", "f1_macro", build, resamples=100), source=source[[*NUMBERS, "flag", "level"]]
    )


def _multi_integer() -> Kind:
    source = _source(2)
    source["y"] = _classes(source, [3, 5, 8])
    features = (
        Feature("level", kind="categorical", categories=(1, 2, 3, 4)),
        Feature("a"),
        Feature("flag", kind="boolean"),
    )
    build = lambda: DecisionTreeClassifier(max_depth=4)  # noqa: E731
    spec = _spec("classification", "neg_log_loss", build, features=features)
    return Kind(spec=spec, source=source)


def _probabilities_that_differ() -> Kind:
    source = _source(3)
    source["y"] = _classes(source, ["n", "y"])
    return Kind(spec=_spec("classification", "f1", lambda: SVC(C=0.1), resamples=100), source=source[NUMBERS])


def _regression_with_nulls() -> Kind:
    source = _source(4).assign(y=lambda frame: frame["score"] * 10)
    features = (
        Feature("a"),
        Feature("with_null", nullable=True),
        Feature("flag", kind="boolean"),
        Feature("maybe", kind="boolean", nullable=True),
    )
    build = lambda: HistGradientBoostingRegressor(max_iter=10)  # noqa: E731
    return Kind(spec=_spec("regression", "neg_mean_absolute_error", build, features=features), source=source)


def _regression_linear() -> Kind:
    source = _source(5).assign(y=lambda frame: frame["score"])
    return Kind(spec=_spec("regression", "neg_root_mean_squared_error", LinearRegression), source=source[NUMBERS])


def _pipeline_of_names() -> Kind:
    source = _source(6)
    source["y"] = _classes(source, ["no", "yes"])
    features = (
        Feature("colour", kind="categorical"),
        Feature("with_gap", kind="categorical", nullable=True),
        Feature("level", kind="categorical"),
        Feature("a"),
        Feature("b"),
        Feature("flag", kind="boolean"),
    )
    build = lambda: _mixed_pipeline(LogisticRegression())  # noqa: E731
    spec = _spec("classification", "roc_auc", build, resamples=100, features=features)
    return Kind(spec=spec, source=source)


KINDS: dict[str, Callable[[], Kind]] = {
    make.__name__.strip("_"): make
    for make in (
        _binary_text,
        _multi_text,
        _multi_integer,
        _probabilities_that_differ,
        _regression_with_nulls,
        _regression_linear,
        _pipeline_of_names,
    )
}


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A kind with its first challenger, fitted once for all tests: none of them may change it."""

    kind: Kind
    schema: Schema
    rows: pd.DataFrame = field(repr=False)
    challenger: Challenge = field(repr=False)

    def again(self, rows: pd.DataFrame) -> Challenge:
        """Return another challenger from the same spec and seed."""
        return _challenge(self.kind, self.schema, rows)


def _challenge(kind: Kind, schema: Schema, rows: pd.DataFrame) -> Challenge:
    until = rows["event_time"].max().to_pydatetime()
    return challenge(kind.spec, schema, rows, champion=None, until=until, seed=7)


@pytest.fixture(scope="session", params=sorted(KINDS))
def learned(request: pytest.FixtureRequest) -> Learned:
    """Return each kind in turn."""
    return _learned(request.param)


@functools.cache
def _learned(name: str) -> Learned:
    """Fit a kind once, in whatever order the tests of several modules ask for it."""
    kind = KINDS[name]()
    schema = infer(kind.spec, kind.source)
    rows = canonical(kind.spec, schema, kind.source)
    return Learned(kind=kind, schema=schema, rows=rows, challenger=_challenge(kind, schema, rows))


@pytest.fixture
def numbers() -> Kind:
    """Return the plainest kind: two numbers, two classes of text."""
    return _binary_text()
