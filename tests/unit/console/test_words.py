"""What the console says in its own words is so."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.console import words


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ({"detail": "version 2 is champion", "gate": {"reason": "every clause passed"}}, "version 2 is champion"),
        ({"detail": None, "gate": {"reason": "gain -0.004: worse"}}, "gain -0.004: worse"),
        ({"detail": None, "gate": None}, "–"),
    ],
)
def test_an_outcome_is_what_a_run_came_to_and_never_why_it_was_asked_for(run: dict[str, Any], told: str) -> None:
    assert words.outcome(SimpleNamespace(reason="loss rose by 16%", **run)) == told


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("loss rose by 46% (0.25 over 7 blocks (of a day): not above 6.02)", "loss rose by 46%"),
        ("the champion has been there for 56d", "the champion has been there for 56d"),
        ("nswprice 1.06 (threshold 0.9); 8 windows (40 are needed) are few", "nswprice 1.06; 8 windows are few"),
        ("(all of it)", "(all of it)"),
        ("half ( a pair", "half ( a pair"),
        (None, ""),
    ],
)
def test_what_is_shortened_loses_what_stands_in_brackets_alone(text: str | None, short: str) -> None:
    assert words.brief(text) == short
