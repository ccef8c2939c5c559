"""Laws of the way from a budget to a threshold."""

import numpy as np
import pytest
from scipy import stats

from service.learning.level import HIGHEST_LEVEL, limit_of, wide_limit_of

CLEAN = tuple(np.random.default_rng(0).gumbel(size=200))
PLACES = tuple(range(200))


def test_the_chance_of_a_confirmed_alarm_is_the_rate_whatever_the_distribution() -> None:
    random, many, rate = np.random.default_rng(1), 60, 1 / 400
    chances = []
    for _ in range(600):
        limit = limit_of(random.standard_t(2, size=many).tolist(), range(0, 2 * many, 2), rate=rate, confirm=2)
        chances.append(stats.t.sf(limit.threshold, 2) ** 2)  # of two new windows
    error = np.std(chances) / np.sqrt(len(chances))
    assert abs(np.mean(chances) - rate) < 2.6 * error
    assert error < 0.2 * rate


def test_a_smaller_budget_never_lowers_the_threshold() -> None:
    rates = (0.5, 0.1, 0.01, 1e-3, 1e-4, 1e-6)
    limits = [limit_of(CLEAN, PLACES, rate=rate, confirm=2) for rate in rates]
    assert np.all(np.diff([limit.threshold for limit in limits]) >= 0)
    assert np.all(np.diff([limit.level for limit in limits]) <= 0)


def test_no_budget_makes_single_verdicts_wrong_more_often_than_once_in_twenty() -> None:
    limit = limit_of(CLEAN, PLACES, rate=1.0, confirm=2)
    assert limit.level == pytest.approx(HIGHEST_LEVEL)
    assert limit.confirmed < 1 / 300


def test_what_lies_beyond_the_largest_window_is_extrapolated_and_known_as_such() -> None:
    within, beyond = (limit_of(CLEAN, PLACES, rate=rate, confirm=1) for rate in (0.01, 1e-4))
    assert within.rank >= 1
    assert within.threshold < max(CLEAN)
    assert beyond.rank < 1
    assert beyond.threshold > max(CLEAN)


def test_where_alarms_cluster_the_threshold_is_higher() -> None:
    slow = np.repeat(CLEAN[:50], 4).tolist()
    alone, clustered = (limit_of(slow, places, rate=0.001, confirm=2) for places in (range(0, 400, 2), range(200)))
    assert alone.dependence == 0.0
    assert clustered.dependence > 0.5
    assert clustered.threshold > alone.threshold


def test_from_too_few_windows_the_threshold_is_wider_than_all_of_them() -> None:
    few = CLEAN[:8]
    assert wide_limit_of(few, rate=1 / 13, confirm=2).threshold > max(few) + np.std(few)
