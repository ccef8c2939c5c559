"""Laws of label maturity: what is still arriving is left out, and nothing else is."""

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.learning.ripeness import coverage, embargo_of, maturity_of
from service.spec import Training

ROWS = 2000


def arrivals(delay_h: Any, *, until_h: float = ROWS / 6, sampled: float = 1.0) -> pd.DataFrame:
    """Return rows ten minutes apart with labels that take `delay_h` hours, as known at `until_h`."""
    random = np.random.default_rng(0)
    at = pd.date_range("2026-01-01", periods=ROWS, freq="10min", tz="UTC")
    seen = at + pd.to_timedelta(np.broadcast_to(delay_h, ROWS), unit="h")
    known = (seen <= at[0] + pd.Timedelta(hours=until_h)) & (random.random(ROWS) < sampled)
    frame = pd.DataFrame({"event_time": at, "observed_at": pd.Series(seen).where(known)})
    newest = frame.loc[frame["observed_at"].notna(), "event_time"].max()
    known_until: pd.DataFrame = frame[frame["event_time"] <= newest]
    return known_until


def test_a_constant_delay_leaves_out_nothing_and_is_the_embargo() -> None:
    found = maturity_of(arrivals(24.0))
    assert found.until is None
    assert found.delay == timedelta(hours=24)
    assert embargo_of(Training(), found) == timedelta(hours=24)


@pytest.mark.parametrize("sampled", [1.0, 0.1])
def test_labels_that_come_when_they_please_leave_out_the_newest_rows(sampled: float) -> None:
    delays = np.random.default_rng(1).exponential(48.0, ROWS)
    frame = arrivals(delays, sampled=sampled)
    found = maturity_of(frame)
    assert found.until is not None
    newest = frame["event_time"].iloc[-1].to_pydatetime()
    assert timedelta(hours=24) < newest - found.until < timedelta(days=7)
    assert "still arriving" in found.reason


def test_labels_that_are_only_ever_sampled_leave_out_nothing() -> None:
    assert maturity_of(arrivals(1.0, sampled=0.2)).until is None


def test_never_more_than_half_of_the_stretch_is_left_out() -> None:
    frame = arrivals(0.0)
    thin = np.random.default_rng(2).random(len(frame)) < 0.3
    thin[:1000] = True
    found = maturity_of(frame.assign(observed_at=frame["observed_at"].where(thin)))
    assert found.until is not None
    assert found.until >= frame["event_time"].iloc[len(frame) // 2 - 1]


def test_without_answered_rows_there_is_no_delay_and_no_embargo() -> None:
    assert maturity_of(None).delay is None
    nothing = pd.DataFrame({"event_time": [], "observed_at": []})
    assert maturity_of(nothing).delay is None
    assert embargo_of(Training(), maturity_of(None)) == timedelta(0)


def test_the_embargo_is_what_the_policy_says_and_no_longer_than_the_holdout_when_it_is_measured() -> None:
    slow = maturity_of(arrivals(24.0 * 5))
    assert embargo_of(Training(embargo="none"), slow) == timedelta(0)
    assert embargo_of(Training(embargo="2d"), slow) == timedelta(days=2)
    assert embargo_of(Training(holdout="3d"), slow) == timedelta(days=3)


def test_coverage_counts_answered_rows_and_those_with_a_label() -> None:
    frame = arrivals(1.0, sampled=0.5)
    first, last = (frame["event_time"].iloc[i].to_pydatetime() for i in (99, 199))
    answered, labelled = coverage(frame, after=first, until=last)
    assert answered == 100
    assert labelled == frame["observed_at"].iloc[100:200].notna().sum()
    assert coverage(None, after=first, until=last) == (0, 0)
