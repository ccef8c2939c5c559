"""Laws of how much of the past a candidate learns from, and of how the policies say it."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from service.domain.history import History, parse_history
from service.domain.policy import Gate, Training

END = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "length", "half_life"),
    [
        ("all", None, None),
        ("56d", timedelta(days=56), None),
        ("all, half-life 112d", None, timedelta(days=112)),
        ("26w,half-life 4w", timedelta(weeks=26), timedelta(weeks=4)),
        (" All ,  Half life 1d12h ", None, timedelta(hours=36)),
    ],
)
def test_a_history_is_a_length_and_perhaps_a_half_life(
    text: str, length: timedelta | None, half_life: timedelta | None
) -> None:
    assert parse_history(text) == History(length=length, half_life=half_life)


@pytest.mark.parametrize("text", ["all", "56d", "all, half-life 112d", "26d, half-life 4d"])
def test_a_history_says_itself_as_it_is_written(text: str) -> None:
    assert str(parse_history(text)) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "is no history"),
        ("everything", "'everything' in 'everything' is neither 'all' nor a duration"),
        ("all,", "is no history"),
        ("all, weighted", "'weighted' in 'all, weighted' is no weighting"),
        ("all, half-life", "is no weighting"),
        ("all, half-life long", "'long' in 'all, half-life long' is no half-life"),
        ("all, half-life 0d", "is no half-life"),
        ("soon, half-life 7d", "'soon' in 'soon, half-life 7d' is neither"),
    ],
)
def test_what_is_no_history_is_refused_and_the_part_at_fault_is_named(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"history|weighting|half-life|neither") as caught:
        parse_history(text)
    assert named in str(caught.value)


def test_a_history_begins_its_length_before_its_end() -> None:
    assert parse_history("7d, half-life 1d").start(END) == END - timedelta(days=7)
    assert parse_history("all, half-life 1d").start(END) is None


@pytest.mark.parametrize(
    ("policy", "field", "value", "words"),
    [
        (Training, "windows", ("56d", "all, half live 7d"), "is no weighting"),
        (Training, "windows", (), "at least 1"),
        (Training, "embargo", "later", "is no embargo"),
        (Gate, "slices", (("temp", 1),), "2 to 20"),
        (Gate, "slices", (("temp", 21),), "2 to 20"),
        (Gate, "coverage", 1.5, "less than or equal to 1"),
    ],
)
def test_a_policy_that_says_what_is_not_there_is_refused_with_a_remedy(
    policy: type, field: str, value: object, words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        policy(**{field: value})
    assert words in str(caught.value)


def test_by_default_the_recent_and_the_growing_weighted_history_are_both_tried() -> None:
    tried = [parse_history(text) for text in Training().windows]
    assert any(history.length is not None for history in tried)
    assert any(history.length is None and history.half_life is not None for history in tried)
