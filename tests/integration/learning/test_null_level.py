"""Unchanged streams raise as many alarms as was promised, neither more nor far fewer; a real shift is found."""

import numpy as np
import pytest

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


def test_a_reference_of_twenty_thousand_rows_and_fifty_columns_is_calibrated_in_seconds() -> None:
    import time

    from service.domain.spec import Feature, Schema

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
