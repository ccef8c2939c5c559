"""A source that does not fit is refused with a field and a remedy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from service.domain.errors import CheckFailed, SpecInvalid
from service.domain.spec import Schema
from service.learning.frames import canonical, design
from service.learning.schema import check_estimator, infer
from service.spec import Feature


def _refused(spec: Any, source: pd.DataFrame) -> SpecInvalid:
    with pytest.raises(SpecInvalid) as caught:
        infer(spec, source)
    assert caught.value.facts["remedy"]
    return caught.value


def test_features_are_inferred_with_their_kind(numbers: Any) -> None:
    source = numbers.source.assign(
        flag=True, colour=["red", "blue"] * 300, gaps=[None, 1.0] * 300, n=np.arange(600) % 7
    )
    schema = infer(numbers.spec, source)
    kinds = {feature.name: (feature.kind, feature.nullable) for feature in schema.features}
    assert kinds == {
        "a": ("numeric", False),
        "b": ("numeric", False),
        "flag": ("boolean", False),
        "colour": ("categorical", False),
        "gaps": ("numeric", True),
        "n": ("numeric", False),
    }
    assert schema.frame
    assert Schema.from_json(schema.to_json()) == schema


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda s: s.drop(columns="y"), "target", "has no column 'y'"),
        (lambda s: s.drop(columns="at"), "timestamp", "has no column 'at'"),
        (lambda s: s.iloc[:0], "source", "has no rows"),
        (lambda s: s.assign(at=s["at"].dt.tz_localize(None)), "timestamp", "without a zone"),
        (lambda s: s.assign(at=s["at"].astype(str).str.slice(0, 19)), "timestamp", "without a zone"),
        (lambda s: s.assign(at=range(len(s))), "timestamp", "holds numbers"),
        (lambda s: s.assign(at="yesterday"), "timestamp", "no moment"),
        (lambda s: s.assign(at=s["at"].where(s.index > 0)), "timestamp", "is empty in 1 rows"),
        (lambda s: s.assign(y="UP"), "target", "one class only"),
        (lambda s: s.assign(y=s["a"]), "target", "fractions"),
        (lambda s: s.assign(y=None), "target", "is empty"),
        (lambda s: s.assign(seen=s["at"]), "features", "holds moments"),
        (lambda s: s.assign(key=[f"k{i}" for i in range(len(s))]), "features", "looks like an id"),
        (lambda s: s.assign(output=["x", 1] * 300), "features", "mixes types"),
        (lambda s: s.assign(prediction=1.0), "features", "reserved"),
        (lambda s: s[["at", "y"]], "features", "no column besides"),
        (lambda s: s.assign(none=None), "features", "is empty"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(numbers: Any, change: Any, field: str, words: str) -> None:
    error = _refused(numbers.spec, change(numbers.source))
    assert error.facts["field"] == field
    assert words in error.detail


@pytest.mark.parametrize(
    ("feature", "column", "words"),
    [
        (Feature("f"), ["x"] * 600, "is numeric, and its column holds str"),
        (Feature("f"), [True, False] * 300, "is numeric, and its column holds bool"),
        (Feature("f"), [None, 1.0] * 300, "null in 300 of 600 rows and not nullable"),
        (Feature("f"), [np.inf, 1.0] * 300, "infinite"),
        (Feature("f", kind="boolean"), [0, 2] * 300, "is boolean"),
        (Feature("f", kind="categorical"), [0.5, 1.5] * 300, "fractions"),
        (Feature("f", kind="categorical", categories=("a",)), [1, 2] * 300, "declares text categories"),
        (Feature("f", kind="categorical", categories=(1,)), ["a", "b"] * 300, "declares integer categories"),
        (Feature("f", kind="categorical"), ["a", 1] * 300, "holds int and str"),
        (Feature("g"), [1.0] * 600, "has no column 'g'"),
    ],
)
def test_a_column_must_fit_its_declaration(numbers: Any, feature: Feature, column: list[Any], words: str) -> None:
    spec = replace(numbers.spec, features=(feature,))
    error = _refused(spec, numbers.source.assign(f=column))
    assert error.facts["field"] == "features"
    assert words in error.detail


@pytest.mark.parametrize(
    ("metric", "words"),
    [("acuracy", "unknown"), ("roc_auc_ovx", "unknown"), ("neg_mean_absolute_error", "cannot judge")],
)
def test_a_metric_must_exist_and_fit_the_task(numbers: Any, metric: str, words: str) -> None:
    error = _refused(replace(numbers.spec, metric=metric), numbers.source)
    assert error.facts["field"] == "metric"
    assert words in error.detail


def test_text_in_an_array_is_refused(numbers: Any) -> None:
    source = numbers.source.assign(colour=["red", "blue"] * 300)
    assert _refused(replace(numbers.spec, input="array"), source).facts["field"] == "input"


@pytest.mark.parametrize(
    ("build", "field"),
    [(lambda: 1 / 0, "build"), (lambda: "forest", "build"), (LinearRegression, "task")],
)
def test_build_must_give_an_estimator_for_the_task(numbers: Any, build: Any, field: str) -> None:
    with pytest.raises(SpecInvalid) as caught:
        check_estimator(replace(numbers.spec, build=build))
    assert caught.value.facts["field"] == field
    assert isinstance(check_estimator(numbers.spec), LogisticRegression)


def test_rows_without_truth_are_left_out(numbers: Any) -> None:
    source = numbers.source.assign(y=numbers.source["y"].where(numbers.source.index >= 10))
    schema = infer(numbers.spec, source)
    assert len(canonical(numbers.spec, schema, source)) == len(source) - 10


def test_a_missing_feature_is_an_error_that_names_it(numbers: Any) -> None:
    schema = infer(numbers.spec, numbers.source)
    with pytest.raises(CheckFailed, match="lack the columns b"):
        design(schema, numbers.source.drop(columns="b"))
