"""Laws of what the database says of a model."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.domain import policy
from service.domain.spec import POLICIES, ModelSpec
from service.storage.models import ModelRow, Policy, policy_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
ROW = ModelRow(name="shop", spec=None, spec_digest=None, file=None, error=None, registered_at=AT, updated_at=AT)
KINDS = [getattr(policy, name) for name in policy.__all__]
OTHERS: dict[str, Any] = {
    "training": policy.Training(holdout="3d"),
    "quality": policy.Quality(scale=9.0),
    "drift": policy.Drift(window="3d"),
    "retrain": policy.Retrain(mode="off"),
    "gate": policy.Gate(approval=True),
    "probation": policy.Probation(duration=None),
    "recording": policy.Recording(when_full="answer"),
    "retention": policy.Retention(artifacts=3),
}


def test_every_policy_of_a_spec_is_found_again_as_it_was_registered() -> None:
    spec: Any = ModelSpec(
        name="shop", task="regression", target="y", timestamp="at", build=list, metric="r2", source="s.csv", **OTHERS
    )
    row = replace(ROW, spec={"policies": spec.policies()})
    assert {name: policy_of(row, type(OTHERS[name])) for name in POLICIES} == OTHERS
    assert set(KINDS) == {type(one) for one in OTHERS.values()} == {type(getattr(spec, name)) for name in POLICIES}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_never_registered_a_policy_has_the_default(kind: type[Policy]) -> None:
    for row in (None, ROW, replace(ROW, spec={}), replace(ROW, spec={"policies": {}})):
        assert policy_of(row, kind) == kind()


def test_a_policy_that_was_registered_in_part_has_the_default_for_the_rest() -> None:
    row = replace(ROW, spec={"policies": {"retention": {"labels": "30d"}}})
    assert policy_of(row, policy.Retention) == policy.Retention(labels="30d")
