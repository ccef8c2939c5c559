"""Laws of durations and windows."""

from datetime import timedelta

import pytest

from service.domain.duration import format_duration, parse_duration, parse_window


@pytest.mark.parametrize(
    ("text", "duration"),
    [("7d", timedelta(days=7)), ("90m", timedelta(minutes=90)), ("1d12h", timedelta(hours=36)), ("2w", timedelta(14))],
)
def test_a_duration_is_the_sum_of_its_parts(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "7", "d", "7 days", "-7d", "0d", "7d!", "seven d"])
def test_what_is_no_duration_is_refused_with_its_own_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|zero"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["7d", "1d12h", "90s", "3h"])
def test_formatting_and_parsing_are_inverse(text: str) -> None:
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)


def test_a_window_counts_rows_or_event_time() -> None:
    assert parse_window("500 rows").rows == 500
    assert parse_window("7d").duration == timedelta(days=7)
    with pytest.raises(ValueError, match="one row"):
        parse_window("0 rows")
