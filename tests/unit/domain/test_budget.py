"""Budgets in words."""

from datetime import UTC, datetime, timedelta

import pytest

from service.domain.budget import Budget, parse_budget
from service.domain.policy import Retrain


@pytest.mark.parametrize(
    ("text", "count", "days"),
    [("1 per day", 1, 1), ("2 per 7d", 2, 7), (" 3 PER week ", 3, 7), ("10/30d", 10, 30), ("1 per month", 1, 30)],
)
def test_a_budget_is_a_number_per_duration(text: str, count: int, days: int) -> None:
    assert parse_budget(text) == Budget(count=count, per=timedelta(days=days))
    assert parse_budget(str(parse_budget(text))) == parse_budget(text)


@pytest.mark.parametrize(
    "text",
    ["", "1", "per day", "0 per day", "101 per day", "-1 per day", "1.5 per day", "1 per", "1 per fortnight", "1 per 0d"],
)
def test_anything_else_is_refused_in_one_line_that_repeats_it(text: str) -> None:
    with pytest.raises(ValueError, match="is no budget") as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="budget"):
        Retrain(budget=text)


def test_a_stretch_of_the_budget_ends_now_and_its_beginning_is_not_in_it() -> None:
    now = datetime(2026, 1, 8, tzinfo=UTC)
    ages = (timedelta(0), timedelta(days=6, hours=23), timedelta(days=7), timedelta(days=-1))
    assert parse_budget("1 per 7d").spent([now - age for age in ages], now=now) == 2
