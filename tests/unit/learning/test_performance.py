"""Realised performance is measured on the newest rows whose labels have arrived, and only on enough of them."""

import numpy as np
import pandas as pd
import pytest

from service.domain.decision import degraded_of
from service.domain.duration import parse_window
from service.domain.spec import Feature, Schema
from service.learning.metric import metric_of
from service.learning.performance import kappa_against_no_change, realised
from service.spec import Retrain

SCHEMA = Schema(
    model="small",
    task="classification",
    timestamp="at",
    label="string",
    features=(Feature("a"),),
    classes=("DOWN", "UP"),
)
NUMBERS = Schema(model="small", task="regression", timestamp="at", label="number", features=(Feature("a"),))


def _answered(n: int = 400, *, unknown: int = 48) -> pd.DataFrame:
    """Return half-hourly rows of which the first half is answered wrongly; the newest `unknown` have no label yet."""
    times = pd.date_range("2026-01-01", periods=n, freq="30min", tz="UTC")
    label = np.where(np.arange(n) // 5 % 2 == 0, "UP", "DOWN").astype(object)
    output = label.copy()
    output[: n // 2] = np.where(label[: n // 2] == "UP", "DOWN", "UP")
    truth = pd.Series(label)
    truth[n - unknown :] = None
    return pd.DataFrame(
        {"event_time": times, "output": output, "label": truth, "observed_at": times + pd.Timedelta("1d")}
    )


def test_the_stretch_ends_at_the_newest_label() -> None:
    found = realised(SCHEMA, "accuracy", _answered(), window=parse_window("2d"), reference_loss=0.1, min_rows=50)
    assert (found.value, found.loss) == (1.0, 0.0)
    assert (found.rows, found.labelled, found.coverage) == (96, 96, 1.0)
    assert found.delay_p50_s == 86_400


def test_a_window_of_rows_counts_rows_and_gaps_lower_the_coverage() -> None:
    answered = _answered()
    answered.loc[300:320, "label"] = None
    found = realised(SCHEMA, "accuracy", answered, window=parse_window("100 rows"), reference_loss=None, min_rows=50)
    assert (found.rows, found.labelled) == (100, 79)
    assert found.coverage == 0.79


def test_too_few_labels_say_nothing() -> None:
    for answered in (_answered(unknown=400), _answered().iloc[:0], _answered().iloc[:30]):
        found = realised(SCHEMA, "accuracy", answered, window=parse_window("2d"), reference_loss=0.1, min_rows=50)
        assert found.value is None
        assert found.loss is None
        assert degraded_of(Retrain(), found) is None


def test_a_metric_that_is_not_defined_on_the_window_says_nothing() -> None:
    found = realised(SCHEMA, "roc_auc", _answered(), window=parse_window("2d"), reference_loss=0.1, min_rows=50)
    assert found.value is None


def test_degraded_means_above_the_reference_by_the_policys_share() -> None:
    answered = _answered().iloc[:250]
    found = realised(SCHEMA, "accuracy", answered, window=parse_window("7d"), reference_loss=0.5, min_rows=50)
    assert found.loss is not None
    assert degraded_of(Retrain(degradation=0.1), found) is (found.loss > 0.55)


def test_kappa_is_zero_for_no_change_and_one_for_perfect() -> None:
    truth = pd.Series(["a", "a", "b", "b", "b", "a"] * 5)
    before = truth.shift(fill_value="a")
    assert kappa_against_no_change(truth, truth) == 1
    assert kappa_against_no_change(truth, before) == 0
    assert kappa_against_no_change(truth, pd.Series(["c"] * 30)) < 0


@pytest.mark.parametrize(
    ("name", "value", "loss"),
    [
        ("neg_mean_absolute_error", 1.5, 1.5),
        ("neg_mean_squared_error", 2.5, 2.5),
        ("neg_root_mean_squared_error", 2.5**0.5, 2.5**0.5),
        ("r2", 1 - 10 / 5, 2.0),
    ],
)
def test_errors_are_shown_as_positive_numbers_and_losses_fall(name: str, value: float, loss: float) -> None:
    metric = metric_of(name, NUMBERS)
    truth, output = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 4.0, 4.0, 2.0])
    assert metric.value(truth, output) == pytest.approx(value)
    assert metric.loss(truth, output) == pytest.approx(loss)
    assert metric.as_loss(metric.as_value(loss)) == pytest.approx(loss)


def test_the_positive_class_is_the_second_one() -> None:
    truth, output = np.array(["UP", "UP", "DOWN"], dtype=object), np.array(["UP", "DOWN", "DOWN"], dtype=object)
    assert metric_of("precision", SCHEMA).value(truth, output) == 1.0
    assert metric_of("recall", SCHEMA).value(truth, output) == 0.5
    chances = np.array([[0.1, 0.9], [0.6, 0.4], [0.7, 0.3]])
    for name in ("roc_auc", "average_precision", "neg_brier_score", "neg_log_loss"):
        assert np.isfinite(metric_of(name, SCHEMA).loss(truth, output, chances))


def test_log_loss_of_rows_averages_to_scikit_learns() -> None:
    metric = metric_of("neg_log_loss", SCHEMA)
    truth = np.array(["UP", "DOWN", "UP"], dtype=object)
    chances = np.array([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
    assert metric.loss(truth, truth, chances) == pytest.approx(metric.value(truth, truth, chances))
