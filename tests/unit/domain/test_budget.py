"""Laws of budgets in words."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from service.domain.budget import Budget, parse_budget
from service.domain.policy import Drift, Retrain


@pytest.mark.parametrize(
    ("text", "count", "days"),
    [
        ("1 per day", 1, 1),
        ("2 per 7d", 2, 7),
        (" 3 PER week ", 3, 7),
        ("10/30d", 10, 30),
        ("1 per month", 1, 30),
        ("0.5 per 1w", 0.5, 7),
    ],
)
def test_a_budget_is_a_number_per_duration(text: str, count: float, days: int) -> None:
    assert parse_budget(text) == Budget(count=count, per=timedelta(days=days))
    assert parse_budget(str(parse_budget(text))) == parse_budget(text)


@pytest.mark.parametrize(
    "text",
    ["", "1", "per day", "0 per day", "101 per day", "-1 per day", "1 per", "1 per fortnight", "1 per 0d", "1 in 90d"],
)
def test_anything_else_is_refused_in_one_line_that_repeats_it(text: str) -> None:
    with pytest.raises(ValueError, match="is no budget") as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValidationError, match="is no budget"):
        Retrain(budget=text)
    with pytest.raises(ValidationError, match="is no budget"):
        Drift(false_alarms=text)


def test_half_a_run_is_no_budget_and_half_an_alarm_is() -> None:
    with pytest.raises(ValidationError, match="a whole number"):
        Retrain(budget="1.5 per day")
    assert Drift(false_alarms="1.5 per 90d").false_alarms == "1.5 per 90d"


def test_a_stretch_of_the_budget_ends_now_and_its_beginning_is_not_in_it() -> None:
    now = datetime(2026, 1, 8, tzinfo=UTC)
    ages = (timedelta(0), timedelta(days=6, hours=23), timedelta(days=7), timedelta(days=-1))
    assert parse_budget("1 per 7d").spent([now - age for age in ages], now=now) == 2


def test_a_budget_tells_how_many_it_allows_in_so_many_days() -> None:
    assert parse_budget("2 per 30d").in_days(90) == pytest.approx(6)
    assert parse_budget(Drift().false_alarms).per == timedelta(days=90)
