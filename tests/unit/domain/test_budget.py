"""Laws of a budget of false alarms."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from service.domain.budget import parse_budget
from service.spec import Drift


@pytest.mark.parametrize(
    ("text", "alarms"), [("1 per 90d", 1.0), ("2 per 30d", 6.0), ("0.5 per 1w", 90 / 14), ("  1  PER 90D ", 1.0)]
)
def test_a_budget_is_so_many_alarms_in_so_long(text: str, alarms: float) -> None:
    assert parse_budget(text).in_days(90) == pytest.approx(alarms)


@pytest.mark.parametrize(
    "text", ["", "1", "1 per", "per 90d", "one per 90d", "-1 per 90d", "1 per 90 moons", "1 in 90d"]
)
def test_what_is_no_budget_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as"):
        parse_budget(text)


def test_a_budget_of_no_alarm_at_all_is_refused_for_no_test_keeps_it() -> None:
    with pytest.raises(ValueError, match="no test can promise"):
        parse_budget("0 per 90d")


def test_a_policy_names_its_budget_and_a_wrong_one_is_one_clear_error() -> None:
    assert parse_budget(Drift().false_alarms).per == timedelta(days=90)
    with pytest.raises(ValidationError, match="is no budget"):
        Drift(false_alarms="seldom")


def test_a_budget_says_itself_in_words() -> None:
    assert str(parse_budget("1 per 90d")) == "1 per 90d"
