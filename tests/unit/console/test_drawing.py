"""What the console draws and how it says things: round ticks, escaped words, one way to write each number."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from service.console import charts, words
from service.console.charts import Cell, Line, Mark, Point
from tests.fleet import EVIL

AT = datetime(2026, 3, 1, tzinfo=UTC)


def point(value: float, *, day: int = 0) -> Point:
    return Point(at=AT + timedelta(days=day), value=value, href="/checks/x", kind="good", words=EVIL)


@pytest.mark.parametrize(
    "values", [(0.7, 0.85), (0.5, 0.5), (0.0, 0.0), (-3.0, -1.0), (120.0, 45_000.0), (1e-9, 2e-9), (-1e12, 1e12)]
)
def test_every_point_lies_inside_its_chart_between_round_ticks(values: tuple[float, float]) -> None:
    drawn = charts.quality([point(value, day=day) for day, value in enumerate(values)], [], [], metric="m")
    assert len(re.findall("<svg", drawn)) == 3
    for svg in drawn.split("<svg")[1:]:
        height = float(re.findall(r'viewBox="0 0 \d+ (\d+)"', svg)[0])
        heights = [float(y) for y in re.findall(r'cy="([-\d.]+)"', svg)]
        rules = [float(y) for y in re.findall(r'class="rule"[^>]* y1="([-\d.]+)"', svg)]
        assert 2 <= len(rules) <= 8
        assert all(min(rules) - 0.2 <= y <= max(rules) + 0.2 for y in heights)
        assert all(0 <= y <= height for y in [*heights, *rules])


def test_a_higher_value_stands_higher_and_a_later_one_further_right() -> None:
    svg = charts.quality([point(0.7), point(0.8, day=3)], [], [], metric="m").split("<svg")[1]
    (x1, y1), (x2, y2) = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert float(x1) < float(x2)
    assert float(y1) > float(y2)


def test_marks_that_would_stand_on_each_other_keep_their_lines_and_lose_their_names() -> None:
    marks = [
        Mark(at=AT + timedelta(hours=hour), version=hour, kind="promote", href="/v", words=EVIL) for hour in (1, 2, 99)
    ]
    lines = [Line(since=AT, until=AT + timedelta(days=5), value=0.75)]
    svg = charts.quality([point(0.7), point(0.8, day=5)], lines, marks, metric=EVIL).split("<svg")[1]
    assert svg.count('class="mark promote"') == 3
    assert re.findall(r">(v\d+)<", svg) == ["v1", "v99"]
    assert "<script" not in svg
    assert "expected" in svg


def test_nothing_seen_draws_nothing() -> None:
    assert charts.quality([], [], [], metric="m") == charts.heat([], [], []) == charts.spark([1.0]) == ""


def test_a_heat_map_escapes_its_names_and_shows_the_newest_windows_where_it_is_narrow() -> None:
    windows = [(AT + timedelta(days=day), f"/checks/{day}", "clean") for day in range(50)]
    drawn = charts.heat([EVIL], windows, [[Cell(level=day % 6, words=f"day {day} {EVIL}") for day in range(50)]])
    assert "<script" not in drawn
    wide, _, narrow = drawn.split("<svg")[1:]
    assert wide.count("<rect") == 44
    assert narrow.count("<rect") == 16
    assert "/checks/49" in narrow
    assert "/checks/33" not in narrow


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (3, "3 s"), (59, "59 s"), (60, "1 min"), (3_661, "1 h 1 min"), (86_403, "1 d"), (None, "–")],
)
def test_a_duration_is_told_in_two_units_that_belong_together(seconds: float | None, told: str) -> None:
    assert words.duration(seconds) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0%"),
        (1, "100%"),
        (0.9999, "over 99.9%"),
        (0.9991, "99.9%"),
        (0.0001, "under 0.1%"),
        (0.034, "3.4%"),
        (0.5, "50%"),
        (None, "–"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(value: float | None, told: str) -> None:
    assert words.share(value) == told
