"""Laws of what a data scientist may declare."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.domain.spec import Feature, ModelSpec, Schema


def a_spec(**overrides: Any) -> ModelSpec:
    given: dict[str, Any] = {
        "name": "m",
        "task": "classification",
        "target": "y",
        "timestamp": "t",
        "build": object,
        "metric": "accuracy",
        "source": "data/m.parquet",
        "features": [Feature("a"), Feature("b", kind="boolean")],
    }
    return ModelSpec(**(given | overrides))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"name": "Two Words"}, "no model name"),
        ({"name": "../x"}, "no model name"),
        ({"task": "ranking"}, "classification"),
        ({"features": [Feature("a"), Feature("a")]}, "named twice: a"),
        ({"features": []}, "leave it out"),
        ({"features": [Feature("y")]}, "must not see it"),
        ({"timestamp": "y", "features": None}, "both 'y'"),
        ({"metrik": "accuracy"}, "metrik"),
    ],
)
def test_a_wrong_declaration_is_refused_in_words(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises((ValidationError, TypeError), match=words):
        a_spec(**overrides)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "boolean", "low": 0}, "belong to numeric"),
        ({"low": 2, "high": 1}, "lies above"),
        ({"categories": ("x",)}, "belong to categorical"),
    ],
)
def test_options_of_a_feature_must_fit_its_kind(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Feature("a", **options)


def test_reserved_feature_names_are_refused() -> None:
    with pytest.raises(ValidationError, match="reserved"):
        Feature("event_time")


def test_a_schema_survives_json() -> None:
    schema = Schema(
        model="m",
        task="classification",
        timestamp="t",
        features=(Feature("a", low=0, nullable=True), Feature("c", kind="categorical", categories=("x", "y"))),
        label="string",
        classes=("no", "yes"),
    )
    assert Schema.from_json(schema.to_json()) == schema
    integers = Schema(
        model="m",
        task="classification",
        timestamp="t",
        features=(Feature("c", kind="categorical", categories=(1, 2)),),
        integer_categories=("c",),
        label="integer",
        classes=(0, 1, 2),
    )
    again = Schema.from_json(integers.to_json())
    assert again == integers
    assert isinstance(again.classes[0], int)


def test_every_policy_has_a_default_and_is_json() -> None:
    policies = a_spec().policies()
    assert set(policies) == {
        "training", "quality", "drift", "retrain", "gate", "probation", "recording", "retention"
    }  # fmt: skip
