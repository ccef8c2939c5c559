"""A rise of matured loss is told from chance to a stated level, also where losses follow one another."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from service.domain.duration import parse_window
from service.domain.spec import Feature, Schema
from service.learning.detector import LEVEL, change
from service.learning.losses import Blocks, blocks_of, by_words
from service.learning.performance import realised

PER_DAY, HOLDOUT, WINDOW, GAP = 24, 14, 7, 3
DAYS = "86400 s"


def _autoregressive(random: np.random.Generator, rho: float, runs: int, n: int) -> NDArray[np.float64]:
    """Return `runs` series of losses that follow one another, with mean about 1."""
    shocks = random.normal(size=(n + 100, runs)) * np.sqrt(1 - rho**2)
    series = np.empty_like(shocks)
    series[0] = shocks[0]
    for row in range(1, len(shocks)):
        series[row] = rho * series[row - 1] + shocks[row]
    return np.asarray(1 + 0.3 * series[100:].T)


def _alarms(rho: float, runs: int, rise: Callable[[int], NDArray[np.float64]]) -> float:
    n = (HOLDOUT + GAP + WINDOW) * PER_DAY
    times = pd.Series(pd.date_range("2026-01-01", periods=n, freq="1h", tz="UTC"))
    cut, start = HOLDOUT * PER_DAY, (HOLDOUT + GAP) * PER_DAY
    alarms = []
    for losses in _autoregressive(np.random.default_rng(5), rho, runs, n):
        holdout = blocks_of(times[:cut], losses[:cut], by=DAYS).to_json()
        later = losses[start:] + rise(n - start)
        alarms.append(change(holdout, blocks_of(times[start:], later, by=DAYS)).worse)
    return float(np.mean([alarm is True for alarm in alarms]))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_sound_windows_are_called_worse_no_more_often_than_the_level_says(rho: float) -> None:
    runs = 100
    chance = 1.96 * np.sqrt(LEVEL * (1 - LEVEL) / runs)  # of the binomial
    assert _alarms(rho, runs, np.zeros) <= LEVEL + chance


def test_days_that_follow_one_another_raise_the_threshold() -> None:
    """The same days in another order: only that a hard day comes after a hard day makes the difference."""
    random = np.random.default_rng(7)
    days = _autoregressive(random, 0.8, 1, 42)[0]

    def threshold(losses: NDArray[np.float64]) -> float:
        holdout = {"by": DAYS, "means": losses.tolist(), "rows": [24] * len(losses)}
        now = {"by": DAYS, "means": losses[-7:].tolist(), "rows": [24] * 7}
        found = change(holdout, Blocks.from_json(now)).threshold
        assert found is not None
        return found

    assert threshold(days) > 1.2 * threshold(random.permutation(days))


def test_a_rise_is_found_at_once_and_also_when_it_came_in_the_middle_of_the_window() -> None:
    assert _alarms(0.5, 30, lambda n: np.full(n, 0.3)) > 0.9
    assert _alarms(0.5, 30, lambda n: np.where(np.arange(n) < n / 2, 0.0, 0.4)) > 0.9
    assert _alarms(0.5, 30, lambda n: np.full(n, -0.3)) == 0


def test_where_nothing_can_be_told_nothing_is_said_and_the_reason_is_given() -> None:
    times = pd.Series(pd.date_range("2026-01-01", periods=14 * 24, freq="1h", tz="UTC"))
    losses = np.random.default_rng(0).random(14 * 24)
    whole = blocks_of(times, losses, by=DAYS)
    few = blocks_of(times[:72], losses[:72], by=DAYS)
    for holdout, now, words in (
        (None, whole, "the version holds no losses"),
        (whole.to_json(), None, "no mean over rows"),
        (few.to_json(), whole, "3 blocks of the holdout"),
        (whole.to_json(), few, "3 of the window"),
        (whole.to_json(), blocks_of(times, losses, by="10 rows"), "was cut by"),
        (blocks_of(times, np.zeros(len(times)), by=DAYS).to_json(), whole, "no spread"),
    ):
        found = change(holdout, now)
        assert found.worse is None
        assert words in found.reason


def test_blocks_are_whole_days_counted_back_from_the_newest_row() -> None:
    times = pd.Series(pd.date_range("2026-01-01", periods=60, freq="1h", tz="UTC"))
    blocks = blocks_of(times, np.arange(60.0), by=by_words(parse_window("7d")))
    assert blocks.rows.tolist() == [12, 24, 24]
    assert blocks.means.tolist() == [5.5, 23.5, 47.5]
    assert blocks_of(times[3:], np.arange(57.0), by=DAYS).rows.tolist() == [24, 24]  # nine hours are no day
    assert blocks_of(times, np.arange(60.0), by=by_words(parse_window("80 rows"))).rows.tolist() == [10] * 6
    assert by_words(parse_window("8h")) == "3600 s"


def _answered(share_wrong: float, seed: int) -> pd.DataFrame:
    times = pd.date_range("2026-03-01", periods=7 * 24, freq="1h", tz="UTC")
    wrong = np.random.default_rng(seed).random(len(times)) < share_wrong
    return pd.DataFrame({"event_time": times, "output": "y", "label": np.where(wrong, "n", "y")})


def test_a_check_says_worse_in_words_with_figures_and_nothing_where_the_version_holds_no_baseline() -> None:
    schema = Schema(
        model="m", task="classification", timestamp="at", label="string", features=(Feature("a"),), classes=("n", "y")
    )
    times = pd.Series(pd.date_range("2026-01-01", periods=14 * 24, freq="1h", tz="UTC"))
    losses = (np.random.default_rng(3).random(len(times)) < 0.2).astype(np.float64)
    baseline = {"blocks": blocks_of(times, losses, by=DAYS).to_json()}
    for share, worse in ((0.2, False), (0.5, True)):
        found = realised(
            schema,
            "accuracy",
            _answered(share, 4),
            window=parse_window("7d"),
            reference_loss=0.2,
            min_rows=50,
            baseline=baseline,
        )
        assert found.worse is worse
        assert "CUSUM" in found.reason
        assert "7 blocks of 1d" in found.reason
        assert any(character.isdigit() for character in found.reason)
    plain = realised(schema, "accuracy", _answered(0.5, 4), window=parse_window("7d"), reference_loss=0.2, min_rows=50)
    assert plain.worse is None
    assert plain.loss is not None
