"""Laws of what must hold before a gate compares anything."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from service.domain.gate import Circumstances, Outcome, Use
from service.learning.preconditions import Stretch, looks_at, preconditions, worn
from service.learning.ripeness import Maturity
from service.spec import Gate

AT = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def stretch(**changes: Any) -> Stretch:
    values: dict[str, Any] = {"after": AT, "until": AT + 14 * DAY, "learned_until": AT - DAY}
    return Stretch(**{**values, **changes})


def clauses(policy: Gate, truth: Any, cut: Stretch, circumstances: Circumstances | None = None) -> dict[str, Any]:
    told = circumstances or Circumstances()
    found = preconditions(policy, np.asarray(truth), cut, told, is_classification=True)
    return {clause.name: clause for clause in found}


def times(days: int = 14) -> Any:
    return np.datetime64("2026-01-01T00:00:00.000001", "us") + np.arange(days * 24) * np.timedelta64(1, "h")


TWO = ["a"] * 150 + ["b"] * 50


def test_enough_rows_of_both_classes_pass_and_fewer_are_inconclusive() -> None:
    found = clauses(Gate(), TWO, stretch())
    assert {clause.outcome for clause in found.values()} == {Outcome.PASS}
    assert clauses(Gate(), ["a", "b"] * 49, stretch())["rows"].outcome is Outcome.INCONCLUSIVE
    rare = clauses(Gate(min_class=5), ["a"] * 196 + ["b"] * 4, stretch())["classes"]
    assert (rare.outcome, rare.value) == (Outcome.INCONCLUSIVE, 4.0)
    assert clauses(Gate(), ["a"] * 200, stretch())["classes"].outcome is Outcome.INCONCLUSIVE


def test_a_rare_class_beside_two_frequent_ones_is_named_and_waited_for_by_nobody() -> None:
    found = clauses(Gate(), [*TWO, "c"], stretch())["classes"]
    assert found.outcome is Outcome.PASS
    assert "few rows of c" in found.reason


def test_numbers_have_no_classes_to_wait_for() -> None:
    found = preconditions(Gate(), np.ones(200), stretch(), Circumstances(), is_classification=False)
    assert "classes" not in {clause.name for clause in found}


@pytest.mark.parametrize(("labelled", "outcome"), [(300, Outcome.PASS), (299, Outcome.INCONCLUSIVE)])
def test_too_few_of_the_answered_rows_with_a_label_are_inconclusive(labelled: int, outcome: Outcome) -> None:
    found = clauses(Gate(coverage=0.3), TWO, stretch(answered=1000, labelled=labelled))["coverage"]
    assert (found.outcome, found.n) == (outcome, 1000)


def test_rows_of_the_starting_data_set_need_no_coverage() -> None:
    assert clauses(Gate(coverage=1.0), TWO, stretch())["coverage"].outcome is Outcome.PASS


def test_a_gap_smaller_than_the_embargo_is_a_leak_and_fails() -> None:
    kept = clauses(Gate(), TWO, stretch(embargo=DAY))["embargo"]
    assert (kept.outcome, kept.value, kept.threshold) == (Outcome.PASS, 86400.0, 86400.0)
    assert clauses(Gate(), TWO, stretch(embargo=DAY, learned_until=AT))["embargo"].outcome is Outcome.FAIL


def test_the_delay_of_labels_is_told() -> None:
    found = clauses(Gate(), TWO, stretch(maturity=Maturity(delay=DAY, reason="labels take 1d")))["maturity"]
    assert (found.value, found.reason) == (86400.0, "labels take 1d")


def test_rows_that_were_tried_before_are_named_with_the_run_that_tried_them() -> None:
    found = clauses(Gate(), TWO, stretch(), Circumstances(tried="run-7"))["data"]
    assert found.value == 1.0
    assert "run-7" in found.reason


def test_a_use_counts_by_the_share_of_the_rows_that_it_saw() -> None:
    whole = Use(run="1", after=AT, until=AT + 14 * DAY)
    half = Use(run="2", after=AT - 7 * DAY, until=AT + 7 * DAY)
    gone = Use(run="3", after=AT - 14 * DAY, until=AT)
    assert looks_at(times(), Circumstances()) == 1.0
    assert looks_at(times(), Circumstances(uses=(gone,))) == 1.0
    assert looks_at(times(), Circumstances(uses=(half,))) == pytest.approx(1.5)
    assert looks_at(times(), Circumstances(uses=(whole, half, whole))) == pytest.approx(3.5)


def test_how_often_the_rows_were_judged_on_stands_in_the_clause() -> None:
    fresh = worn(Gate(), times(), Circumstances())
    assert (fresh.value, fresh.outcome) == (1.0, Outcome.PASS)
    assert "no earlier gate" in fresh.reason
    again = worn(Gate(), times(), Circumstances(uses=(Use(run="run-1", after=AT, until=AT + 14 * DAY),)))
    assert again.value == 2.0
    assert "run-1" in again.reason
    assert "90.0%" in again.reason
