"""A window's loss is judged at label maturity: early labels are biased, and late ones shift the window back."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from service.domain.duration import parse_window
from service.domain.spec import Feature, Schema
from service.learning.maturity import mature_rows
from service.learning.performance import realised

SCHEMA = Schema(
    model="small", task="classification", timestamp="at", label="string", features=(Feature("a"),), classes=("n", "y")
)
DAY = pd.Timedelta("1d")


def _answered(delays: NDArray[np.float64], *, days: int = 28, per_day: int = 48) -> pd.DataFrame:
    """Return rows whose labels arrive after `delays` days (infinite: never); it is now the end of the last day."""
    times = pd.date_range("2026-01-01", periods=days * per_day, freq=DAY / per_day, tz="UTC")
    arrives = np.arange(len(times)) / per_day + delays
    known = arrives <= days
    return pd.DataFrame(
        {
            "event_time": times,
            "output": "y",
            "label": ["y" if one else None for one in known],
            "observed_at": times + pd.to_timedelta(np.where(known, delays, np.nan), unit="D"),
        }
    )


def test_rows_whose_labels_have_not_mostly_arrived_are_not_judged() -> None:
    random = np.random.default_rng(0)
    answered = _answered(random.exponential(2.0, 28 * 48))  # 80 % of the labels are there after 3.2 days
    mature, reached = mature_rows(answered, parse_window("7d"))
    age = answered["event_time"].iloc[-1] - mature["event_time"].iloc[-1]
    assert 2 * DAY < age < 4 * DAY
    assert reached > 0.95


def test_early_labels_that_are_all_bad_news_do_not_make_a_champion_look_worse() -> None:
    """Errors are complained about within the hour; that an answer was right shows after three days."""
    wrong = np.random.default_rng(1).random(28 * 48) < 0.2
    answered = _answered(np.where(wrong, 0.04, 3.0))
    answered["label"] = answered["label"].where(~wrong | answered["label"].isna(), "n")
    found = realised(SCHEMA, "accuracy", answered, window=parse_window("7d"), reference_loss=0.2, min_rows=50)
    judged = slice(len(wrong) - 3 * 48 - 7 * 48, len(wrong) - 3 * 48)
    assert found.loss == pytest.approx(wrong[judged].mean())  # of the newest labelled rows, most are wrong
    assert found.coverage > 0.95
    assert found.extra["immature_s"] == pytest.approx(3 * 86_400, abs=0.3 * 86_400)
    assert found.extra["delay_p90_s"] == pytest.approx(3 * 86_400)


def test_labels_that_never_come_are_no_reason_to_wait_for_them() -> None:
    random = np.random.default_rng(2)
    answered = _answered(np.where(random.random(28 * 48) < 0.7, np.inf, 1.0))  # three of ten are ever labelled
    mature, reached = mature_rows(answered, parse_window("7d"))
    age = answered["event_time"].iloc[-1] - mature["event_time"].iloc[-1]
    assert 1 * DAY <= age < 1.6 * DAY
    assert reached == pytest.approx(0.3, abs=0.05)


def test_the_order_of_the_rows_says_nothing_and_without_labels_nothing_is_mature() -> None:
    answered = _answered(np.full(28 * 48, 2.0))
    mature, _ = mature_rows(answered, parse_window("7d"))
    shuffled, _ = mature_rows(answered.sample(frac=1, random_state=0), parse_window("7d"))
    assert mature["event_time"].tolist() == shuffled["event_time"].tolist()
    assert len(mature_rows(answered.assign(label=None), parse_window("500 rows"))[0]) == 0
