"""Unchanged streams raise as many alarms as was promised, neither more nor far fewer; a real shift is found."""

import time

import numpy as np
import pytest

from service.domain.spec import Feature, Schema
from service.learning.calibration import calibrate
from service.learning.drift import compare
from service.spec import Drift
from tests.null_streams import KINDS, columns_of, false_alarms, schema_of, stamped


@pytest.mark.parametrize("kind", KINDS)
def test_false_alarms_of_an_unchanged_stream_lie_in_the_binomial_interval_of_the_level(kind: str) -> None:
    tally = false_alarms(kind, streams=80)
    low, high = tally.bounds
    assert low <= tally.alarms <= high, tally


@pytest.mark.parametrize("kind", ["iid", "AR 0.5", "weekly season"])
def test_a_shift_of_a_deviation_is_found_in_its_first_window(kind: str) -> None:
    found, policy, schema = 0, Drift(window="200 rows"), schema_of(kind)
    for seed in range(10):
        random = np.random.default_rng(seed)
        rows = stamped(kind, columns_of(kind, random, 61 * 200), random)
        reference, window = rows.head(60 * 200), rows.tail(200)
        moved = window.assign(f1=window["f1"] + (2.0 if kind == "weekly season" else 1.0))
        calibration = calibrate(schema, policy, reference)
        culprits = compare(schema, policy, reference=reference, window=moved, calibration=calibration)[1].culprits
        found += "f1" in culprits
    assert found >= 9


@pytest.mark.parametrize("hours", [24, 168])
def test_a_day_is_compared_with_like_hours_and_the_season_raises_no_alarm(hours: int) -> None:
    random, schema, policy = np.random.default_rng(5), schema_of("iid"), Drift(window="1d", min_rows=20)
    values = random.normal(size=(14 * 168, 4)) + 10 * np.sin(2 * np.pi * np.arange(14 * 168) / hours)[:, None]
    rows = stamped("iid", values, random)
    reference, later = rows.head(10 * 168), rows.tail(4 * 168)
    calibration = calibrate(schema, policy, reference)
    assert calibration.season == "week"
    days = [later.iloc[start : start + 24] for start in range(0, len(later), 24)]
    tests = [compare(schema, policy, reference=reference, window=day, calibration=calibration)[1] for day in days]
    assert sum(bool(test.culprits) for test in tests) <= 4  # 28 windows at 0.05: more than 4 come once in 70 times
    away = days[0].assign(f2=days[0]["f2"] + 4)
    moved = compare(schema, policy, reference=reference, window=away, calibration=calibration)[1]
    assert "f2" in moved.culprits


def test_a_reference_of_twenty_thousand_rows_and_fifty_columns_is_calibrated_in_seconds() -> None:
    random = np.random.default_rng(0)
    schema = Schema(
        model="wide", task="regression", timestamp="at", label="number",
        features=tuple(Feature(f"f{place}") for place in range(50)),
    )  # fmt: skip
    rows = stamped("iid", random.normal(size=(20_000, 50)), random)
    began = time.process_time()
    calibration = calibrate(schema, Drift(window="200 rows"), rows)
    assert len(calibration.statistics) == 100
    assert time.process_time() - began < 20
