"""The decision bench's own arithmetic: a bench that counts wrongly proves nothing."""

import numpy as np
import pytest
from scipy import stats

from bench.decisions_rates import (
    best_within,
    confirmed_alarms,
    delays,
    dominated,
    matched_threshold,
    median_delay,
    poisson_interval,
    rate_of,
)
from bench.decisions_rivals import Column, Rivals
from bench.decisions_rows import Shift, rows_of, shifted
from bench.decisions_worlds import INITIAL_WEEKS, world


def test_a_rate_is_known_no_better_than_its_few_references_allow() -> None:
    one_bad_reference = np.zeros((10, 100), dtype=bool)
    one_bad_reference[0, :50] = True
    spread_evenly = np.zeros((10, 100), dtype=bool)
    spread_evenly[:, :5] = True
    spread_evenly[0, 5] = spread_evenly[1, 4] = True
    spread_evenly[1, 0] = False
    bad, even = rate_of(one_bad_reference), rate_of(spread_evenly)
    assert bad.value == pytest.approx(0.05)
    assert bad.high - bad.low > 2 * (bad.binomial_high - bad.binomial_low)
    assert even.high - even.low < bad.high - bad.low


def test_the_interval_of_no_alarm_at_all_still_has_an_upper_end() -> None:
    rate = rate_of(np.zeros((4, 25), dtype=bool))
    assert (rate.value, rate.low) == (0.0, 0.0)
    assert rate.high == pytest.approx(1 - 0.025 ** (1 / 100), rel=1e-6)


def test_the_binomial_interval_is_that_of_clopper_and_pearson() -> None:
    alarms = np.zeros((1, 200), dtype=bool)
    alarms[0, :10] = True
    rate = rate_of(alarms)
    exact = stats.binomtest(10, 200).proportion_ci(0.95, method="exact")
    assert (rate.binomial_low, rate.binomial_high) == pytest.approx((exact.low, exact.high))


def test_the_interval_of_a_count_holds_the_count_and_starts_at_nought_for_none() -> None:
    assert poisson_interval(0) == pytest.approx((0.0, 3.6889), abs=1e-3)
    low, high = poisson_interval(10)
    assert (low, high) == pytest.approx((4.795, 18.390), abs=1e-3)


@pytest.mark.parametrize(
    ("alarms", "confirm", "count"),
    [([1, 1, 1, 0, 1, 1], 2, 2), ([1, 0, 1, 0, 1], 2, 0), ([1, 0, 1], 1, 2), ([1, 1, 1, 1], 3, 1), ([], 2, 0)],
)
def test_a_confirmed_alarm_is_counted_once_until_it_ends(alarms: list[int], confirm: int, count: int) -> None:
    assert confirmed_alarms(np.array(alarms, dtype=bool), confirm) == count


@pytest.mark.parametrize("alarms", [0, 1, 7, 50, 99, 100])
def test_a_matched_threshold_is_reached_by_exactly_so_many_windows(alarms: int) -> None:
    null = np.random.default_rng(0).normal(size=(10, 10))
    assert int((null >= matched_threshold(null, alarms)).sum()) == alarms


def test_ties_across_the_border_alarm_fewer_never_more() -> None:
    null = np.array([3.0, 2.0, 2.0, 2.0, 1.0])
    assert int((null >= matched_threshold(null, 2)).sum()) == 1
    assert int((null >= matched_threshold(null, 4)).sum()) == 4


def test_a_delay_counts_windows_from_the_onset_and_what_is_missed_is_later_than_all() -> None:
    statistics = np.array([[0.0, 2.0, 0.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = delays(statistics, 1.0)
    assert found.tolist() == [2.0, 1.0, np.inf, 3.0]
    assert median_delay(found) == 3.0
    assert median_delay(np.array([1.0, np.inf, np.inf])) == np.inf


def test_a_front_is_judged_by_what_it_reaches_with_at_most_as_many_promotions() -> None:
    ours = [(16, 0.76), (24, 0.77), (20, 0.75)]
    assert best_within(ours, 20, greater_is_better=True) == 0.76
    assert best_within(ours, 10, greater_is_better=True) is None
    assert dominated(ours, (31, 0.77), greater_is_better=True)
    assert not dominated(ours, (23, 0.77), greater_is_better=True)
    assert not dominated(ours, (9, 0.1), greater_is_better=True)
    assert dominated([(12, 39.0)], (12, 40.0), greater_is_better=False)


@pytest.mark.parametrize("shape", ["wide", "beside", "ties"])
def test_the_quick_distances_are_those_of_scipy(shape: str) -> None:
    random = np.random.default_rng(3)
    reference, window = random.standard_t(2, 1_500), random.normal(0.4, 2.0, 130)
    if shape == "beside":
        window = window + 100
    if shape == "ties":
        reference, window = reference.round(), window.round()
    distance, surprise, gap = Column(reference, "numeric").measure(window)
    assert distance == pytest.approx(stats.wasserstein_distance(reference, window) / np.std(reference))
    exact = stats.ks_2samp(reference, window, method="asymp")
    assert gap == pytest.approx(exact.statistic)
    if exact.pvalue > 1e-12:
        assert surprise == pytest.approx(-np.log(exact.pvalue), rel=0.02, abs=0.02)


def test_an_unseen_category_counts_as_one_of_its_own() -> None:
    reference = np.array(["a", "b"] * 1_000)
    same, new = np.array(["a", "b"] * 50), np.array(["a", "c"] * 50)
    column = Column(reference, "categorical")
    assert column.measure(same)[0] == pytest.approx(0.0, abs=1e-7)
    assert column.measure(new)[0] > 0.4


def test_the_quick_test_of_categories_is_that_of_scipy() -> None:
    random = np.random.default_rng(4)
    reference, window = random.integers(0, 5, 3_000).astype(str), random.integers(0, 6, 200).astype(str)
    names = [str(name) for name in range(6)]
    table = [[int((side == name).sum()) for name in names] for side in (reference, window)]
    surprise = Column(reference, "categorical").measure(window)[1]
    assert surprise == pytest.approx(-np.log(stats.chi2_contingency(table, correction=False).pvalue))


def test_a_rivals_alarm_stands_at_one_whatever_its_own_threshold_is() -> None:
    column = Column(np.random.default_rng(0).normal(size=2_000), "numeric")
    rivals = Rivals(columns=(column, column), mean=np.array([0.1, 0.1]), deviation=np.array([0.1, 0.1]))
    any_column, half, bonferroni, sigma = rivals.family(np.array([[0.2, -np.log(0.025), 0.4], [0.05, 0.0, 0.1]]))
    assert any_column == pytest.approx(2.0)
    assert half == pytest.approx(2.0), "one of two columns is half of them"
    assert bonferroni == pytest.approx(1.0)
    assert sigma == pytest.approx(1.0)


def test_a_gradual_shift_reaches_its_share_by_and_by_and_an_abrupt_one_at_once() -> None:
    words = {"column": "x0", "role": "important", "what": "mean", "share": 0.5}
    gradual = Shift(**words, shape="gradual")  # type: ignore[arg-type]
    abrupt = Shift(**words, shape="abrupt")  # type: ignore[arg-type]
    shares = [gradual.share_in(step, ramp=4) for step in range(6)]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] == 0.5
    assert abrupt.share_in(0, ramp=4) == 0.5


def test_only_touched_rows_are_shifted() -> None:
    values, touched = np.array([1.0, 2.0, 3.0]), np.array([True, False, True])
    mean = Shift(column="x", role="important", what="mean", share=1.0, shape="abrupt")
    spread = Shift(column="x", role="important", what="variance", share=1.0, shape="abrupt")
    assert shifted(values, mean, touched=touched, centre=2.0, deviation=0.5).tolist() == [1.5, 2.0, 3.5]
    assert shifted(values, spread, touched=touched, centre=2.0, deviation=0.5).tolist() == [0.0, 2.0, 4.0]


def test_rows_and_worlds_are_functions_of_their_seeds() -> None:
    one, same, other = (rows_of("AR 0.9", 2, rows=50, random=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.equals(same)
    assert not one.equals(other)
    first, again = (world("abrupt", seed=5, weeks=2) for _ in range(2))
    assert first.source.equals(again.source)
    assert first.changes == again.changes


def test_a_stationary_world_has_no_change_and_a_recurring_one_comes_back() -> None:
    assert world("stationary", seed=0, weeks=2).changes == ()
    recurring = world("recurring", seed=0, weeks=56)
    assert len(recurring.changes) >= 3
    assert len(recurring.source) == (INITIAL_WEEKS + 56) * 168
