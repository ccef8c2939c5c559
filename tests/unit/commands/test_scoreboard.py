"""Laws of the scoreboard and of the replay's rows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.commands.scoreboard import Scoreboard, percentile
from service.replay import Answer, Rows

START = datetime(2026, 1, 1, tzinfo=UTC)


def accuracy(truth: Any, predicted: Any) -> float:
    return sum(bool(a == b) for a, b in zip(truth, predicted, strict=True)) / len(truth)


def rows(days: int) -> Rows:
    times = [START + timedelta(days=day + 1) for day in range(days)]
    return Rows(times=times, instances=[{} for _ in times], labels=["UP" if d % 2 else "DOWN" for d in range(days)])


def answer(
    first: int, *, prediction: str, version: int = 1, started_at: float = 0.0, error: str | None = None
) -> Answer:
    given = None if error else {"version": version, "predictions": [prediction], "ids": ["x"]}
    return Answer(first=first, count=1, answer=given, error=error or None, started_at=started_at, latency_s=0.01)


def test_weeks_end_on_the_grid_and_score_both_versions_on_the_same_rows() -> None:
    board = Scoreboard(rows(15), first_answers=["DOWN"] * 15, start=START, score=accuracy)
    for day in range(15):
        board.add(answer(day, prediction="UP" if day % 2 else "DOWN"))
    board.finish()
    assert [week.rows for week in board.weeks] == [7, 7, 1]
    assert board.weeks[0].until == START + timedelta(days=7)
    assert [week.champion for week in board.weeks] == [1.0, 1.0, 1.0]
    assert board.weeks[0].first == pytest.approx(4 / 7)


def test_kappa_against_no_change_is_zero_for_a_copy_of_the_last_label_and_negative_below() -> None:
    given = Rows(
        times=[START + timedelta(days=d + 1) for d in range(4)],
        instances=[{}] * 4,
        labels=["UP", "UP", "DOWN", "DOWN"],
    )
    board = Scoreboard(given, first_answers=["DOWN", "DOWN", "UP", "UP"], start=START, score=accuracy)
    for row, copied in enumerate(["UP", "UP", "UP", "DOWN"]):
        board.add(answer(row, prediction=copied))
    champion, first = board.against_no_change()
    assert champion == pytest.approx(0.0)
    assert first < 0


def test_a_failed_request_scores_nothing_and_keeps_its_latency() -> None:
    board = Scoreboard(rows(2), first_answers=["DOWN"] * 2, start=START, score=accuracy)
    board.add(answer(0, prediction="DOWN"))
    board.add(answer(1, prediction="", error="503 no champion"))
    board.finish()
    assert board.weeks[0].rows == 1
    calm, around = board.latencies()
    assert len(calm) + len(around) == 2


def test_requests_near_a_change_of_version_count_as_during_the_swap() -> None:
    board = Scoreboard(rows(4), first_answers=["DOWN"] * 4, start=START, score=accuracy)
    for row, (version, at) in enumerate([(1, 0.0), (1, 9.5), (2, 10.0), (2, 20.0)]):
        board.add(answer(row, prediction="UP", version=version, started_at=at))
    calm, around = board.latencies()
    assert (len(calm), len(around), board.swaps) == (2, 2, 1)


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0
