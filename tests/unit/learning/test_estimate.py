"""An estimate without labels comes near the truth where its conditions hold, and says so where they do not."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from service.domain.check import Estimate
from service.domain.duration import parse_window
from service.domain.spec import Feature, Schema
from service.learning.baseline import baseline
from service.learning.estimate import estimated
from service.learning.metric import metric_of
from service.learning.resampling import Answers
from service.learning.support import support

CLASSES = Schema(
    model="m",
    task="classification",
    timestamp="at",
    label="string",
    features=(Feature("a"), Feature("b"), Feature("colour", kind="categorical")),
    classes=("n", "y"),
)
NUMBERS = Schema(model="m", task="regression", timestamp="at", label="number", features=(Feature("a"), Feature("b")))
WEEK = parse_window("7d")


def _chance(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-odds)))


def _world(seed: int, n: int, *, centre: float = 0.0, boast: float = 2.0) -> pd.DataFrame:
    """Return rows, their truth, and the answers of a model that knows the odds but doubles them: it boasts."""
    random = np.random.default_rng(seed)
    a, b = random.normal(centre, 1, n), random.normal(size=n)
    odds = 1.5 * a + b
    scores = _chance(boast * odds)
    truth = np.where(random.random(n) < _chance(odds), "y", "n").astype(object)
    return pd.DataFrame(
        {
            "event_time": pd.date_range("2026-01-01", periods=n, freq="20min", tz="UTC"),
            "a": a,
            "b": b,
            "colour": random.choice(["red", "green"], n).astype(object),
            "label": truth,
            "output": np.where(scores > 0.5, "y", "n").astype(object),
            "probabilities": list(np.column_stack([1 - scores, scores])),
        }
    )


def _answers(rows: pd.DataFrame) -> Answers:
    return Answers(output=rows["output"].to_numpy(), probabilities=np.array(rows["probabilities"].tolist()))


def _try(name: str, holdout: pd.DataFrame, window: pd.DataFrame, reference: pd.DataFrame) -> tuple[Any, str]:
    metric = metric_of(name, CLASSES)
    stored = baseline(
        metric,
        window=WEEK,
        times=holdout["event_time"],
        truth=holdout["label"].to_numpy(),
        answers=_answers(holdout),
    )
    return estimated(
        CLASSES,
        metric,
        stored["estimator"],
        reference=reference,
        window=window.drop(columns="label"),
        tolerated=0.1,
        min_rows=50,
    )


def _of(name: str, holdout: pd.DataFrame, window: pd.DataFrame, **options: Any) -> Estimate:
    found, why_not = _try(name, holdout, window, options.get("reference", _world(9, 2000)))
    assert isinstance(found, Estimate), why_not
    return found


@pytest.mark.parametrize("name", ["accuracy", "neg_log_loss", "roc_auc", "neg_brier_score"])
def test_the_estimate_is_the_truth_where_the_scores_can_be_calibrated(name: str) -> None:
    window = _world(2, 1500, centre=-0.7)  # the inputs have moved, and what they mean has not
    found = _of(name, _world(1, 1008), window)
    answers = _answers(window)
    truth = metric_of(name, CLASSES).loss(window["label"].to_numpy(), answers.output, answers.probabilities)
    assert found.valid, found.reason
    assert found.low <= truth <= found.high
    assert found.loss == pytest.approx(truth, rel=0.12)


def test_a_harder_window_is_estimated_as_worse_and_an_equal_one_is_not() -> None:
    reference = pd.concat([_world(9, 1500), _world(8, 1500, centre=2.5)])
    holdout = _world(1, 1008, centre=2.5)  # far from the border of the classes: easy
    same = _of("accuracy", holdout, _world(3, 1008, centre=2.5), reference=reference)
    assert (same.valid, same.worse) == (True, False)
    harder = _of("accuracy", holdout, _world(2, 1008, centre=0.5), reference=reference)
    assert harder.worse
    assert harder.low > harder.reference_loss * 1.1


def test_without_support_of_the_reference_the_estimate_is_invalid() -> None:
    found = _of("accuracy", _world(1, 1008), _world(2, 1008, centre=9.0))
    assert not found.valid
    assert not found.worse
    assert "where the reference has rows" in found.reason


def _partly_away(share: float) -> pd.DataFrame:
    """Return a thousand rows, so many of them where the reference has none."""
    away = round(1000 * share)
    return pd.concat([part for part in (_world(3, 1000 - away), _world(2, away, centre=9.0)) if len(part)])


def test_the_more_of_a_window_lies_on_unknown_ground_the_less_is_covered() -> None:
    """How much exactly is not promised: a single row of the reference at the border weighs for many of the window's."""
    reference = _world(9, 3000)
    found = [support(CLASSES, reference=reference, window=_partly_away(share), seed=0) for share in (0, 0.25, 0.5, 1)]
    covered = [one.covered for one in found]
    assert covered == sorted(set(covered), reverse=True)
    assert covered[0] > 0.9
    assert covered[-1] < 0.1
    assert found[0].effective > 0.4


def test_an_estimate_holds_on_known_ground_and_not_when_half_of_the_window_lies_on_unknown_ground() -> None:
    reference, holdout = _world(9, 3000), _world(1, 1008)
    assert _of("accuracy", holdout, _partly_away(0.0), reference=reference).valid
    half = _of("accuracy", holdout, _partly_away(0.5), reference=reference)
    assert (half.valid, half.worse) == (False, False)


def test_a_window_that_looks_like_a_few_rows_of_the_reference_only_is_not_estimated_from_them() -> None:
    reference = _world(9, 4000)
    narrow = reference[reference["a"] > reference["a"].quantile(0.98)]
    window = pd.concat([narrow] * 10, ignore_index=True).assign(event_time=_world(3, 10 * len(narrow))["event_time"])
    found = support(CLASSES, reference=reference, window=window, seed=0)
    assert found.covered > 0.7
    assert found.effective < 0.1
    estimate = _of("accuracy", _world(1, 1000), window, reference=reference)
    assert not estimate.valid
    assert "effective sample size is" in estimate.reason


def test_scores_that_calibration_cannot_mend_make_the_estimate_invalid() -> None:
    """In the first half of the holdout the scores mean one thing, in the second half another."""
    holdout = _world(1, 1008)
    turned = np.arange(len(holdout)) >= len(holdout) // 2
    holdout["label"] = np.where(turned, np.where(holdout["label"] == "y", "n", "y"), holdout["label"])
    found = _of("accuracy", holdout, _world(2, 1008))
    assert not found.valid
    assert "missed the holdout's own losses" in found.reason


def _numbers(seed: int, n: int, *, level: float = 10.0) -> pd.DataFrame:
    """Return answers whose error grows with what they say."""
    random = np.random.default_rng(seed)
    a = random.gamma(4.0, level / 4, n)
    return pd.DataFrame(
        {
            "event_time": pd.date_range("2026-01-01", periods=n, freq="20min", tz="UTC"),
            "a": a,
            "b": random.normal(size=n),
            "output": a,
            "label": a + 0.2 * a * random.normal(size=n),
        }
    )


@pytest.mark.parametrize("name", ["neg_mean_absolute_error", "neg_root_mean_squared_error"])
def test_the_error_of_numbers_is_estimated_from_what_they_say(name: str) -> None:
    metric, holdout, window = metric_of(name, NUMBERS), _numbers(1, 1008), _numbers(2, 1008, level=13.0)
    stored = baseline(
        metric,
        window=WEEK,
        times=holdout["event_time"],
        truth=holdout["label"].to_numpy(),
        answers=Answers(output=holdout["output"].to_numpy()),
    )
    found, _ = estimated(
        NUMBERS,
        metric,
        stored["estimator"],
        reference=_numbers(3, 2000),
        window=window,
        tolerated=0.1,
        min_rows=50,
    )
    assert found is not None
    truth = metric.loss(window["label"].to_numpy(), window["output"].to_numpy())
    assert found.valid, found.reason
    assert found.loss == pytest.approx(truth, rel=0.15)
    assert found.worse
    beyond, _ = estimated(
        NUMBERS,
        metric,
        stored["estimator"],
        reference=_numbers(3, 2000),
        window=window.assign(output=window["output"] + 100),
        tolerated=0.1,
        min_rows=50,
    )
    assert beyond is not None
    assert not beyond.valid


def test_there_is_no_estimate_of_what_scores_cannot_tell_and_the_reason_says_so() -> None:
    holdout = _world(1, 1008)
    for name, rows, words in (
        ("f1_macro", holdout, "no estimate of f1_score"),
        ("accuracy", holdout.iloc[:60], "60 holdout rows are too few"),
    ):
        found, why_not = _try(name, rows, holdout, holdout)
        assert found is None
        assert words in why_not or "no estimate of f1" in why_not
    none, why_not = estimated(
        CLASSES, metric_of("accuracy", CLASSES), None, reference=holdout, window=holdout, tolerated=0.1, min_rows=50
    )
    assert none is None
    assert why_not
