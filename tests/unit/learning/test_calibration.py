"""Laws of calibrated drift."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.domain.check import DriftTest
from service.domain.spec import Feature, Schema
from service.learning.blocks import Block
from service.learning.calibration import Calibration, bar_of, calibrate
from service.learning.columns import pair_of, values_of
from service.learning.distances import distances_of
from service.learning.drift import compare
from service.learning.statistic import as_distance, method_of, statistic_of
from service.spec import Drift

SCHEMA = Schema(
    model="small",
    task="classification",
    timestamp="at",
    label="string",
    features=(Feature("price"), Feature("load"), Feature("dead"), Feature("colour", kind="categorical", nullable=True)),
    classes=("DOWN", "UP"),
)
POLICY = Drift(window="100 rows", min_rows=50)
WINDOW = 100


def _rows(n: int, *, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    colour = random.choice([f"c{i}" for i in range(30)], n).astype(object)
    colour[::19] = None
    price = random.lognormal(size=n)
    price[::7] = np.nan
    return pd.DataFrame(
        {
            "event_time": pd.date_range("2026-01-01", periods=n, freq="10min", tz="UTC"),
            "price": price,
            "load": random.normal(size=n),
            "dead": 3.5,
            "colour": colour,
            "output": random.choice(["UP", "DOWN"], n).astype(object),
        }
    )


REFERENCE, NEXT = _rows(60 * WINDOW, seed=0), _rows(WINDOW, seed=1)
CALIBRATION = calibrate(SCHEMA, POLICY, REFERENCE)


def judged(window: pd.DataFrame, calibration: Calibration | None = CALIBRATION, policy: Drift = POLICY) -> DriftTest:
    return compare(SCHEMA, policy, reference=REFERENCE, window=window, calibration=calibration)[1]


def test_a_column_at_its_threshold_brings_the_family_to_its_limit_whatever_its_weight() -> None:
    weighted = calibrate(SCHEMA, POLICY, REFERENCE, {"price": 1.0, "load": 0.1})
    for limit in (2.0, 3.5):
        for column in weighted.columns.values():
            assert column.score(column.threshold(limit)) == pytest.approx(limit)
    assert weighted.columns["load"].threshold(3.0) > CALIBRATION.columns["load"].threshold(3.0)
    assert weighted.columns["price"].threshold(3.0) < CALIBRATION.columns["price"].threshold(3.0)


def test_an_odd_window_does_not_widen_its_own_yardstick() -> None:
    """Among its own, the oddest of n windows can lie no further out than (n - 1) / √n deviations."""
    odd = REFERENCE.copy()
    odd.loc[30 * WINDOW : 31 * WINDOW - 1, "load"] += 50
    found = calibrate(SCHEMA, POLICY, odd, {"load": 1.0, "price": 1.0})
    n = len(found.statistics)
    assert max(found.statistics) > 2 * (n - 1) / np.sqrt(n)


def test_the_fast_distances_are_evidently_s_numbers() -> None:
    random = np.random.default_rng(3)
    compared = 0
    for values in values_of(SCHEMA, REFERENCE):
        ready = distances_of(values, POLICY)
        for start in (0, 700, 5900):
            own = np.zeros(len(REFERENCE), dtype=bool)
            own[start : start + WINDOW] = True
            for rest in (~own, ~own & (random.random(len(own)) < 0.02)):
                pair = pair_of(values, values.series[rest], values.series[own])
                evidently = statistic_of(method_of(POLICY, pair), pair)
                assert evidently is not None
                assert ready.distance(Block(place=0, own=own, rest=rest)) == pytest.approx(
                    evidently, rel=1e-9, abs=1e-12
                )
                compared += evidently > 0
    assert compared >= 24


@pytest.mark.parametrize("method", ["ks", "psi", "jensenshannon"])
def test_other_methods_are_calibrated_by_evidently_itself(method: Any) -> None:
    values = next(iter(values_of(SCHEMA, REFERENCE)))
    own = np.arange(len(REFERENCE)) < WINDOW
    statistic = statistic_of(method, pair_of(values, values.series[~own], values.series[own]))
    assert statistic is not None
    ready = distances_of(values, Drift(numeric=method))
    assert ready.distance(Block(place=0, own=own, rest=~own)) == as_distance(method, statistic)


def test_a_clean_window_is_clean_and_a_shift_of_one_feature_is_found_and_named() -> None:
    assert judged(NEXT).culprits == ()
    assert judged(NEXT).state == "calibrated"
    moved = judged(NEXT.assign(load=NEXT["load"] + 1.0))
    assert moved.culprits == ("load",)
    assert moved.statistic >= moved.threshold


def test_the_test_does_not_depend_on_the_unit_of_a_feature() -> None:
    other = calibrate(SCHEMA, POLICY, REFERENCE.assign(load=REFERENCE["load"] * 1e-6, price=REFERENCE["price"] * 1e5))
    assert other.statistics == pytest.approx(CALIBRATION.statistics, abs=1e-5)


def test_the_farther_a_feature_moves_the_larger_the_statistic() -> None:
    found = [judged(NEXT.assign(load=NEXT["load"] + shift)).statistic for shift in (0.5, 1.0, 1.5, 2.0)]
    assert np.all(np.diff(found) > 0)


def test_predictions_that_moved_are_named_before_any_feature() -> None:
    moved = NEXT.assign(output="UP", load=NEXT["load"] + 5)
    assert judged(moved).culprits[:2] == ("prediction", "load")


def test_a_feature_that_the_model_hardly_uses_needs_a_larger_shift_and_is_never_ignored() -> None:
    weighted = calibrate(SCHEMA, POLICY, REFERENCE, {"price": 1.0, "load": 0.0, "dead": 0.0, "colour": 0.5})
    threshold = bar_of(weighted, POLICY).limit
    assert threshold is not None
    heavy, light = (weighted.columns[name] for name in ("price", "load"))
    assert heavy.weight > light.weight > 0
    needed = [(one.threshold(threshold.threshold) - one.centre) / one.scale for one in (heavy, light)]
    assert needed[0] < needed[1] < 3 * needed[0]
    assert judged(NEXT.assign(load=NEXT["load"] + 2.0), weighted).culprits == ("load",)


def test_it_comes_back_from_json_as_it_was() -> None:
    assert Calibration.from_json(CALIBRATION.to_json()) == CALIBRATION


@pytest.mark.parametrize("stored", [None, {}, {"of": "another release"}])
def test_a_version_without_a_calibration_is_uncalibrated_and_no_crash(stored: Any) -> None:
    found = judged(NEXT, Calibration.from_json(stored))
    assert found.state == "uncalibrated"
    assert found.expected_alarms is None
    assert "without a calibration" in found.reason


def test_too_short_a_reference_is_uncalibrated_and_its_threshold_is_wider() -> None:
    short = calibrate(SCHEMA, POLICY, REFERENCE.tail(10 * WINDOW))
    found = judged(NEXT, short)
    assert (found.state, found.blocks, found.expected_alarms) == ("uncalibrated", 10, None)
    assert "too few to promise" in found.reason
    assert judged(NEXT.assign(load=NEXT["load"] + 5), short).culprits == ("load",)


def test_a_calibration_for_another_window_is_none() -> None:
    found = judged(NEXT, policy=Drift(window="200 rows", min_rows=50))
    assert found.state == "uncalibrated"
    assert "calibrated for" in found.reason


def test_another_budget_needs_no_new_calibration_and_a_smaller_one_a_larger_shift() -> None:
    limits = [
        judged(NEXT, policy=Drift(window="100 rows", false_alarms=b)).threshold for b in ("9 per 30d", "1 per 52w")
    ]
    assert limits[0] < limits[1]


def test_expected_alarms_keep_to_the_budget() -> None:
    for budget, most in (("1 per 90d", 1.0), ("2 per 45d", 4.0)):
        expected = judged(NEXT, policy=Drift(window="100 rows", false_alarms=budget)).expected_alarms
        assert expected is not None
        assert 0.0 < expected <= most * (1 + 1e-6)


def test_a_threshold_that_the_operator_set_stands_by_itself() -> None:
    strict = Drift(window="100 rows", min_rows=50, thresholds={"load": 0.02})
    found = judged(NEXT, policy=strict)
    assert found.culprits == ("load",)
    assert found.statistic < found.threshold
    assert "load beyond a threshold of its own" in found.reason
    lax = Drift(window="100 rows", min_rows=50, thresholds={"load": 50.0})
    assert judged(NEXT.assign(load=NEXT["load"] + 5), policy=lax).culprits == ()


def test_one_odd_row_in_a_column_that_stood_still_is_no_drift() -> None:
    odd = NEXT.copy()
    odd.loc[3, "dead"] = 4.0
    assert judged(odd).culprits == ()
    assert judged(NEXT.assign(dead=4.0)).culprits == ("dead",)


def test_a_window_of_fewer_rows_than_was_calibrated_is_given_its_larger_noise() -> None:
    moved = [
        compare(SCHEMA, POLICY, reference=REFERENCE, window=NEXT.head(n), calibration=CALIBRATION)[0] for n in (100, 50)
    ]
    thresholds = [{c.column: c.threshold for c in columns} for columns in moved]
    assert thresholds[1]["load"] == pytest.approx(thresholds[0]["load"] * 2**0.5, rel=0.02)


def test_rows_keep_their_order_of_time_and_nothing_is_changed() -> None:
    shuffled = REFERENCE.sample(frac=1, random_state=0)
    before = shuffled.copy(deep=True)
    assert calibrate(SCHEMA, POLICY, shuffled) == CALIBRATION
    pd.testing.assert_frame_equal(shuffled, before)
