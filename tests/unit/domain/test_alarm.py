"""Laws of confirmed alarms."""

from datetime import UTC, datetime, timedelta

from service.domain.alarm import Drifted, alarms
from service.spec import Drift

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def windows(marks: str, *, every: timedelta = DAY, generation: int = 1) -> list[Drifted]:
    return [(START + place * every, mark == "x", generation) for place, mark in enumerate(marks)]


def found(marks: str, policy: Drift, *, every: timedelta = DAY) -> list[int]:
    return [(at - START) // every for at in alarms(policy, windows(marks, every=every))]


def test_a_row_of_drifted_windows_is_one_alarm_however_long_it_lasts() -> None:
    policy = Drift(window="1d", confirm=2)
    assert found("x.x.x", policy) == []
    assert found(".xxxxx.", policy) == [2]
    assert found("xx.xx", policy) == [1, 4]


def test_one_window_is_enough_where_the_policy_says_so() -> None:
    assert found("x..xx", Drift(window="1d", confirm=1)) == [0, 3]


def test_windows_that_overlap_are_one_piece_of_evidence() -> None:
    hourly = Drift(window="1d", every="6h", confirm=2)
    assert found("xxxx", hourly, every=timedelta(hours=6)) == []
    assert found("xxxxx", hourly, every=timedelta(hours=6)) == [4]


def test_windows_of_rows_never_overlap() -> None:
    assert found("xx", Drift(window="100 rows", confirm=2), every=timedelta(minutes=5)) == [1]


def test_another_champion_starts_anew_for_its_reference_is_another() -> None:
    seen = [*windows("x"), *windows("x", generation=2)]
    assert alarms(Drift(window="1d"), [seen[0], (seen[1][0] + DAY, True, 2)]) == ()
