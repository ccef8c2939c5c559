"""Laws of clean windows: as long as a check's, adjacent, and compared with like hours."""

import numpy as np
import pandas as pd
import pytest

from service.domain.duration import parse_window
from service.learning.blocks import blocks_of, cut, season_of

START = pd.Timestamp("2026-01-01", tz="UTC")


def _times(days: float, *, freq: str = "30min") -> pd.Series:
    return pd.Series(pd.date_range(START, START + pd.Timedelta(days=days), freq=freq, inclusive="left")).astype(
        "datetime64[us, UTC]"
    )


def _cut(times: pd.Series, window: str, **options: float) -> list[tuple[int, int, int]]:
    words = {"share": 1.0, "fewest": 20, "most": 400, "in_a_row": 2} | options
    return cut(times, parse_window(window), **words)  # type: ignore[arg-type]


def test_windows_of_time_hold_their_length_and_end_where_the_reference_ends() -> None:
    times = _times(30)
    found = _cut(times, "1d")
    assert len(found) == 30
    assert found[-1][2] == len(times)
    assert {stop - start for _, start, stop in found} == {48}


def test_windows_of_rows_hold_so_many_also_where_the_rows_were_thinned() -> None:
    assert {stop - start for _, start, stop in _cut(_times(30), "100 rows")} == {100}
    assert {stop - start for _, start, stop in _cut(_times(30), "100 rows", share=0.5)} == {50}


def test_a_stretch_with_too_few_rows_is_no_window() -> None:
    times = _times(10)
    gap = times[(times < START + pd.Timedelta(days=4)) | (times >= START + pd.Timedelta(days=6))].reset_index(drop=True)
    assert len(_cut(gap, "1d")) < len(_cut(times, "1d"))


def test_of_many_windows_some_are_looked_at_in_adjacent_pairs() -> None:
    found = _cut(_times(200), "6h", fewest=5, most=100)
    assert 50 <= len(found) <= 100
    places = np.array([place for place, _, _ in found])
    assert (np.diff(places) == 1).sum() >= len(found) // 2


@pytest.mark.parametrize(
    ("days", "window", "season"),
    [
        (60, "7d", "none"),
        (60, "1d", "week"),
        (60, "1h", "week"),
        (10, "1h", "day"),
        (10, "1d", "none"),
        (2, "1h", "none"),
    ],
)
def test_like_hours_are_compared_where_the_reference_knows_enough_of_them(days: int, window: str, season: str) -> None:
    length = parse_window(window).duration
    assert length is not None
    assert season_of(pd.Timedelta(days=days), length) == season


def test_a_window_is_compared_with_the_same_hours_of_other_weeks_and_never_with_itself() -> None:
    frame = pd.DataFrame({"event_time": _times(56)})
    blocks = blocks_of(frame, _cut(frame["event_time"], "6h", fewest=5), season="week")
    hours = (frame["event_time"] - START) // pd.Timedelta("30min") % (7 * 48)
    for block in blocks[:40]:
        assert not (block.own & block.rest).any()
        assert set(hours[block.rest]) == set(hours[block.own])
        assert block.rest.sum() == 7 * block.own.sum()
