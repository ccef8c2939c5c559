"""Compiled models: the graph answers as the original does, or it is refused with a reason and nothing breaks."""

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from service.domain.answer import answers
from service.domain.spec import Feature, Schema
from service.learning import compiled as subject
from service.learning import trees
from service.learning.compiled import ATOL, RTOL, Compiled, compile_, compiled, prove
from service.learning.graph import MOST_ROWS, open_graph
from service.learning.predictor import Predictor

FEATURES = (
    Feature("a"),
    Feature("b"),
    Feature("gap", nullable=True),
    Feature("zone", kind="categorical", nullable=True),
)
ROWS = 400
NULL = 2
"""Column that is null in every seventh row."""
ZONE = 3

LABELS: dict[str, Any] = {
    "two": np.array(["DOWN", "UP"]),
    "three": np.array(["high", "low", "mid"]),
    "integers": np.array([-3, 5, 8]),
    "values": None,
}
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    "imputed with flags": lambda: make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()),
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "forest": lambda: RandomForestClassifier(12, random_state=0),
    "forest of large leaves": lambda: RandomForestClassifier(7, min_samples_leaf=9, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(8, max_depth=6, random_state=0),
    "stump": lambda: RandomForestClassifier(3, max_depth=1, random_state=0),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=12, random_state=0),
    "boosting with categories": lambda: HistGradientBoostingClassifier(
        max_iter=12, categorical_features=[ZONE], random_state=0
    ),
    "old boosting": lambda: make_pipeline(SimpleImputer(), GradientBoostingClassifier(n_estimators=8, random_state=0)),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "linear": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LinearRegression()),
    "imputed with flags": lambda: make_pipeline(SimpleImputer(strategy="median", add_indicator=True), Ridge()),
    "tree": lambda: DecisionTreeRegressor(random_state=0),
    "forest": lambda: RandomForestRegressor(12, random_state=0),
    "extra trees": lambda: ExtraTreesRegressor(8, max_depth=6, random_state=0),
    "boosting": lambda: HistGradientBoostingRegressor(max_iter=12, random_state=0),
    "boosting with categories": lambda: HistGradientBoostingRegressor(
        max_iter=12, categorical_features=[ZONE], random_state=0
    ),
    "boosting of counts": lambda: HistGradientBoostingRegressor(loss="poisson", max_iter=12, random_state=0),
    "boosted median": lambda: HistGradientBoostingRegressor(loss="absolute_error", max_iter=12, random_state=0),
    "old boosting": lambda: make_pipeline(SimpleImputer(), GradientBoostingRegressor(n_estimators=8, random_state=0)),
}
KINDS = [(kind, labels) for kind in CLASSIFIERS for labels in LABELS if labels != "values"] + [
    (kind, "values") for kind in REGRESSORS
]
WITH_TREES = [(kind, labels) for kind, labels in KINDS if kind not in {"linear", "imputed with flags"}]


@dataclass(frozen=True)
class Case:
    predictor: Predictor
    frame: pd.DataFrame
    graph: Any
    splits: NDArray[np.float64]
    """Every threshold in the estimator."""


@cache
def case(kind: str, labels: str) -> Case:
    X = _numbers()
    score = X[:, 0] + 0.5 * X[:, 1] + np.nan_to_num(X[:, NULL]) + (np.nan_to_num(X[:, ZONE]) == 2)
    names = LABELS[labels]
    if names is None:
        estimator = REGRESSORS[kind]().fit(X, np.abs(score) * 10)
        classes: tuple[Any, ...] = ()
    else:
        edges = np.quantile(score, np.linspace(0, 1, len(names) + 1)[1:-1])
        estimator = CLASSIFIERS[kind]().fit(X, names[np.searchsorted(edges, score)])
        classes = tuple(estimator.classes_.tolist())
    predictor = Predictor(estimator=estimator, schema=_schema(classes), output_mode="argmax" if classes else "predict")
    return Case(predictor, _frame(X), open_graph(compile_(predictor)), np.array(list(_splits(estimator))))


def _numbers(seed: int = 0) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    X = random.normal(size=(ROWS, len(FEATURES)))
    X[::7, NULL] = np.nan
    X[:, ZONE] = random.choice([0.0, 1.0, 2.0, 5.0, 11.0], ROWS)
    X[::31, ZONE] = np.nan
    return X


def _frame(X: NDArray[np.float64]) -> pd.DataFrame:
    return pd.DataFrame(X, columns=[feature.name for feature in FEATURES])


def _schema(classes: tuple[Any, ...]) -> Schema:
    return Schema(
        model="small",
        task="classification" if classes else "regression",
        timestamp="at",
        features=FEATURES,
        integer_categories=("zone",),
        label="number" if not classes else "string" if isinstance(classes[0], str) else "integer",
        classes=classes,
    )


def _splits(estimator: Any) -> Iterator[float]:
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    for stage in getattr(last, "_predictors", ()):
        for tree in stage:
            yield from tree.nodes["num_threshold"][tree.nodes["is_leaf"] == 0].tolist()
    members = np.ravel(getattr(last, "estimators_", [last]))
    for tree in [member.tree_ for member in members if hasattr(member, "tree_")]:
        yield from tree.threshold[tree.children_left != -1].tolist()


def _beside(value: float) -> list[float]:
    """Return `value` and its neighbours, as doubles and as floats."""
    near = np.float32(value)
    return [
        value,
        float(np.nextafter(value, -np.inf)),
        float(np.nextafter(value, np.inf)),
        float(near),
        float(np.nextafter(near, np.float32(-np.inf))),
        float(np.nextafter(near, np.float32(np.inf))),
    ]


def _cells(case: Case) -> st.SearchStrategy[float]:
    plain = st.floats(-4, 4) | st.sampled_from([0.0, -0.0, 1e-40, -1e-320, 1e30, -1e30, 1.0, 2.0, 5.0, 7.0, 11.0])
    if not len(case.splits):
        return plain
    return plain | st.sampled_from(case.splits[np.isfinite(case.splits)].tolist()).flatmap(
        lambda value: st.sampled_from(_beside(value))
    )


def _agree(case: Case, X: NDArray[np.float64]) -> None:
    mode, classes = case.predictor.output_mode, case.predictor.schema.classes
    expected, likely = answers(case.predictor.estimator, mode, classes, X)
    found, probable = answers(case.graph, mode, classes, X)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if likely is None:
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=RTOL, atol=ATOL * scale)
        assert probable is None
        return
    assert probable is not None
    np.testing.assert_allclose(probable, likely, rtol=RTOL, atol=ATOL)
    best = np.sort(likely, axis=1)
    is_clear = best[:, -1] - best[:, -2] > 2 * (ATOL + RTOL)
    assert found[is_clear].tolist() == expected[is_clear].tolist()


@pytest.mark.parametrize(("kind", "labels"), KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_compiled_version_answers_as_the_original(kind: str, labels: str, data: st.DataObject) -> None:
    one = case(kind, labels)
    cells = _cells(one)
    maybe = cells | st.just(np.nan)
    row = st.tuples(cells, cells, maybe, maybe)
    X = np.array(data.draw(st.lists(row, min_size=1, max_size=12)), dtype=np.float64)
    _agree(one, X)


@pytest.mark.parametrize(("kind", "labels"), WITH_TREES)
def test_a_row_on_a_threshold_or_beside_it_takes_the_originals_way(kind: str, labels: str) -> None:
    one = case(kind, labels)
    beside = np.array([_beside(value) for value in np.unique(one.splits[np.isfinite(one.splits)])[:60]]).ravel()
    base = np.nan_to_num(_numbers(1)[:12])
    X = np.repeat(base, len(beside), axis=0)
    for column in (0, 1, NULL):
        X[:, column] = np.tile(beside, len(base))
        _agree(one, X)


@pytest.mark.parametrize("labels", ["two", "three", "values"])
@pytest.mark.parametrize("kind", ["boosting", "boosting with categories"])
def test_boosting_takes_what_is_no_finite_number_as_the_original_does(kind: str, labels: str) -> None:
    X = np.tile(_numbers(1)[:9], (4, 1))
    for column, value in enumerate((np.inf, -np.inf, np.nan, 99.0)):
        X[column * 9 : column * 9 + 9, column] = value
    _agree(case(kind, labels), X)


@pytest.mark.parametrize("labels", ["two", "three"])
def test_an_exact_tie_of_votes_is_broken_as_the_original_breaks_it(labels: str) -> None:
    one = case("forest", labels)
    X = np.nan_to_num(np.random.default_rng(3).normal(size=(3000, len(FEATURES))))
    likely = one.predictor.estimator.predict_proba(X)
    best = np.sort(likely, axis=1)
    tied = X[best[:, -1] == best[:, -2]]
    assert len(tied) > 20
    expected, _ = answers(one.predictor.estimator, "argmax", one.predictor.schema.classes, tied)
    found, _ = answers(one.graph, "argmax", one.predictor.schema.classes, tied)
    assert found.tolist() == expected.tolist()


def test_a_block_that_is_too_large_for_one_run_is_answered_in_parts() -> None:
    one = case("forest", "three")
    X = np.random.default_rng(0).normal(size=(MOST_ROWS + 7, len(FEATURES)))
    _agree(one, X)


@pytest.mark.parametrize(("kind", "labels"), [("forest", "three"), ("linear", "two"), ("boosting", "values")])
def test_equal_versions_have_equal_graphs(kind: str, labels: str) -> None:
    predictor = case(kind, labels).predictor
    assert compile_(predictor) == compile_(predictor)


def verdict(predictor: Predictor, frame: pd.DataFrame, *, budget_s: float = 60.0) -> Compiled:
    return compiled(predictor, golden=frame[:32], holdout=frame, budget_s=budget_s, clock=time.perf_counter)


@pytest.mark.parametrize(("kind", "labels"), [("forest", "two"), ("boosting with categories", "values")])
def test_a_version_that_answers_alike_is_proved_on_golden_rows_holdout_and_odd_rows(kind: str, labels: str) -> None:
    one = case(kind, labels)
    found = verdict(one.predictor, one.frame)
    assert (found.outcome, found.reason) == ("proved", "")
    assert found.rows > 32 + ROWS
    assert found.max_difference is not None
    assert found.max_difference < 1e-9
    assert found.content is not None
    assert found.bytes_ == len(found.content)
    told = found.to_json()
    assert told["tolerance"] == {"relative": RTOL, "absolute": ATOL}
    assert told["opsets"]["ai.onnx.ml"] == 5


def test_a_graph_that_answers_otherwise_is_refused() -> None:
    forest, boosting = case("forest", "two"), case("boosting", "two")
    found = prove(forest.predictor, compile_(boosting.predictor), golden=forest.frame[:5], holdout=forest.frame)
    assert found.outcome == "refused"
    assert "a probability differs by up to" in found.reason
    assert found.content is None


def test_one_wrong_leaf_in_the_holdout_is_enough_to_refuse() -> None:
    one = case("tree", "values")
    y = one.predictor.estimator.predict(_numbers())
    y[ROWS - 1] += 1e-6
    wrong = DecisionTreeRegressor(random_state=0).fit(_numbers(), y)
    content = compile_(replace(one.predictor, estimator=wrong))
    found = prove(one.predictor, content, golden=one.frame[:5], holdout=one.frame)
    assert found.outcome == "refused"
    assert found.reason.startswith("in 1 of 400 rows a value differs by up to 1e-06")


def test_another_class_on_a_golden_row_is_refused_even_in_a_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    one = case("forest", "two")
    rows = np.nan_to_num(np.random.default_rng(3).normal(size=(3000, len(FEATURES))))
    likely = one.predictor.estimator.predict_proba(rows)
    tied = _frame(rows[likely[:, 0] == likely[:, 1]])
    real = answers

    def breaks_ties_otherwise(estimator: Any, *rest: Any) -> Any:
        outputs, probabilities = real(estimator, *rest)
        is_original = estimator is one.predictor.estimator
        return (outputs if is_original else np.full(len(outputs), "UP", dtype=object)), probabilities

    monkeypatch.setattr(subject, "answers", breaks_ties_otherwise)
    content = compile_(one.predictor)
    found = prove(one.predictor, content, golden=tied[:4], holdout=tied)
    assert found.reason == "4 of 4 rows get another class"


class Odd(LogisticRegression):  # type: ignore[misc]  # scikit-learn ships no types
    """Somebody's own estimator, which no converter knows."""

    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(X)[:, ::-1]


def refused(estimator: Any, labels: str = "two", **changes: Any) -> str:
    one = case("linear", labels)
    X = np.nan_to_num(_numbers())
    if not hasattr(estimator, "n_features_in_"):
        estimator.fit(X, one.predictor.estimator.predict(X))
    schema = replace(one.predictor.schema, **changes.pop("schema", {}))
    found = verdict(replace(one.predictor, estimator=estimator, schema=schema, **changes), _frame(X))
    assert found.outcome == "refused"
    assert found.content is None
    assert found.to_json()["reason"] == found.reason
    return found.reason


def test_an_estimator_that_no_converter_knows_is_refused_with_its_name() -> None:
    assert "Odd" in refused(Odd())


def test_an_estimator_that_wants_names_is_refused() -> None:
    assert refused(LogisticRegression(), schema={"frame": True}) == "it takes a frame with named columns"


def test_classes_that_do_not_follow_from_probabilities_are_refused() -> None:
    assert refused(SVC(), output_mode="predict").startswith("its classes do not follow from probabilities")


def test_an_original_that_fails_on_null_is_refused_where_null_may_come() -> None:
    assert refused(LogisticRegression()) == "the original fails on null, which its schema allows"


def test_trees_with_too_many_splits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MOST_NODES", 20)
    one = case("forest", "two")
    assert verdict(one.predictor, one.frame).reason.endswith("its trees have more than 20 splits")


def test_a_graph_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_BYTES", 10)
    one = case("forest", "two")
    assert verdict(one.predictor, one.frame).reason == "its graph has 0 MiB"


def test_a_conversion_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(subject, "compile_", lambda _: never.wait(60))
    one = case("forest", "two")
    found = verdict(one.predictor, one.frame, budget_s=0.05)
    never.set()
    assert (found.outcome, found.reason) == ("refused", "it took longer than 0 s")


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), ValueError("many\nlines"), KeyError("x")])
def test_whatever_a_conversion_raises_is_a_reason_and_costs_no_run(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: Predictor) -> bytes:
        raise error

    monkeypatch.setattr(subject, "compile_", fail)
    one = case("forest", "two")
    found = verdict(one.predictor, one.frame)
    assert found.outcome == "refused"
    assert type(error).__name__ in found.reason
    assert "\n" not in found.reason


def test_without_the_extra_nothing_is_compiled_and_the_verdict_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(subject, "find_spec", lambda name: None if name == "skl2onnx" else real(name))
    one = case("forest", "two")
    found = verdict(one.predictor, one.frame)
    assert (found.outcome, found.reason) == ("unavailable", "retrue[onnx] is not installed (skl2onnx)")
