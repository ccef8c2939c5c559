"""When a check is due: a grid in event time, moved by the watermark alone."""

from datetime import UTC, datetime, timedelta

import pytest

from service.control.due import Due, due, pitch, window_from
from service.domain.policy import Drift

START = datetime(2026, 1, 1, tzinfo=UTC)
WEEKLY = Drift(window="7d")


def after(days: float) -> datetime:
    return START + timedelta(days=days)


@pytest.mark.parametrize("days", [0, 6.99])
def test_nothing_is_due_before_the_watermark_reaches_the_grid(days: float) -> None:
    assert due(WEEKLY, watermark=after(days), anchor=START) is None


def test_nothing_is_due_while_the_lake_is_empty() -> None:
    assert due(WEEKLY, watermark=None, anchor=START) is None


def test_a_check_is_due_when_the_watermark_reaches_the_grid() -> None:
    assert due(WEEKLY, watermark=after(7), anchor=START) == Due(window_until=after(7), skipped=0)


def test_the_window_ends_on_the_grid_however_far_the_watermark_is() -> None:
    assert due(WEEKLY, watermark=after(9.5), anchor=START) == Due(window_until=after(7), skipped=0)


def test_of_several_overdue_checks_the_newest_is_made_and_the_others_are_counted() -> None:
    assert due(WEEKLY, watermark=after(23), anchor=START) == Due(window_until=after(21), skipped=2)


def test_the_pitch_may_differ_from_the_window() -> None:
    policy = Drift(window="7d", every="1d")
    assert due(policy, watermark=after(1), anchor=START) == Due(window_until=after(1), skipped=0)
    assert window_from(policy, after(8)) == after(1)


def test_a_window_of_rows_is_counted_in_rows_unless_a_pitch_is_given() -> None:
    assert pitch(Drift(window="500 rows")) is None
    assert due(Drift(window="500 rows"), watermark=after(100), anchor=START) is None
    assert due(Drift(window="500 rows", every="1d"), watermark=after(1), anchor=START) is not None
    assert window_from(Drift(window="500 rows"), after(1)) is None
