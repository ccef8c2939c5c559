"""Laws of the gate's verdict, of worn rows, and of what counts as another recipe."""

import pytest

from service.domain.gate import Clause, Outcome, judge, recipe_changed, tightened


def a_clause(name: str, outcome: Outcome) -> Clause:
    return Clause(name=name, value=None, threshold=None, n=0, outcome=outcome, reason=f"{name} says {outcome.value}")


def test_one_failed_clause_fails_the_gate_and_one_open_clause_leaves_it_open() -> None:
    passed, open_, failed = (a_clause(one.value, one) for one in (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL))
    assert judge((passed,)).outcome is Outcome.PASS
    assert judge((passed, open_)).outcome is Outcome.INCONCLUSIVE
    assert judge((open_, passed, failed)).outcome is Outcome.FAIL
    assert judge((open_, passed, failed)).reason == "fail says fail"
    with pytest.raises(ValueError, match="everything through"):
        judge(())


def test_each_look_at_the_same_rows_makes_the_interval_wider_and_a_first_look_does_not() -> None:
    assert tightened(0.8, 1.0, resamples=1000) == pytest.approx(0.8)
    assert tightened(0.8, 2.0, resamples=1000) == pytest.approx(0.9)
    assert tightened(0.8, 1.5, resamples=1000) == pytest.approx(1 - 0.2 / 1.5)
    wider = [tightened(0.8, looks, resamples=1000) for looks in (1, 2, 4, 8)]
    assert wider == sorted(wider)


def test_an_intervals_end_is_never_taken_from_less_than_five_resamples() -> None:
    assert tightened(0.8, 1000.0, resamples=1000) == pytest.approx(0.99)
    assert tightened(0.95, 1000.0, resamples=100) == pytest.approx(0.95)  # and never narrower than it was


SPEC = {"task": "classification", "metric": "accuracy", "schema": {"a": 1}, "code": "1", "policies": {"gate": {}}}


@pytest.mark.parametrize(("field", "value"), [("code", "2"), ("schema", {"a": 2}), ("metric", "f1")])
def test_another_file_schema_or_metric_is_another_recipe(field: str, value: object) -> None:
    assert recipe_changed(SPEC | {field: value}, SPEC)


def test_policies_alone_and_what_an_older_spec_did_not_say_make_no_other_recipe() -> None:
    assert not recipe_changed(SPEC | {"policies": {"gate": {"new": 1}}, "description": "other"}, SPEC)
    assert not recipe_changed(SPEC | {"input": "auto"}, SPEC)
    assert not recipe_changed(SPEC, None)
    assert not recipe_changed(SPEC, {})
