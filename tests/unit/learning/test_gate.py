"""The gate passes what is proved, and nothing else."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier

from service.domain.errors import TrainingFailed
from service.domain.gate import Outcome
from service.learning.frames import canonical
from service.learning.metric import metric_of
from service.learning.predictor import Predictor
from service.learning.resampling import Answers, block_length, resample
from service.learning.schema import infer
from service.learning.train import challenge
from service.spec import Gate, Training


def _run(kind: Any, *, champion: Predictor | None = None, **changes: Any) -> Any:
    spec = replace(kind.spec, **changes)
    schema = infer(spec, kind.source)
    rows = canonical(spec, schema, kind.source)
    return challenge(spec, schema, rows, champion=champion, until=rows["event_time"].iloc[-1].to_pydatetime(), seed=0)


def _clause(challenger: Any, name: str) -> Any:
    return next(clause for clause in challenger.gate.clauses if clause.name == name)


class _Broken(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    def predict(self, X: Any) -> Any:
        del X
        msg = "no answer"
        raise RuntimeError(msg)


def _weak(kind: Any) -> Predictor:
    """Return a champion that says one class for ever and has learned nothing of these rows."""
    first: Predictor = _run(kind).predictor
    dummy = DummyClassifier(strategy="constant", constant="UP").fit([[0.0], [0.0]], ["DOWN", "UP"])
    return replace(
        first, estimator=dummy, learned_until=first.learned_until and first.learned_until - timedelta(days=30)
    )


def test_an_error_in_the_gate_is_no_promotion(numbers: Any) -> None:
    champion = replace(_weak(numbers), estimator=_Broken(), output_mode="predict")
    challenger = _run(numbers, champion=champion)
    assert challenger.gate.outcome is Outcome.FAIL
    assert "RuntimeError: no answer" in challenger.gate.reason


def test_a_clearly_better_challenger_passes(numbers: Any) -> None:
    challenger = _run(numbers, champion=_weak(numbers))
    assert challenger.gate.outcome is Outcome.PASS
    assert _clause(challenger, "paired").value > 0
    assert not challenger.gate.unopposed


def test_the_same_recipe_is_no_improvement(numbers: Any) -> None:
    gate = replace(numbers.spec.gate, mode="improve")
    first = _run(numbers, training=replace(numbers.spec.training, refit=False)).predictor
    challenger = _run(numbers, champion=replace(first, learned_until=None), gate=gate)
    assert challenger.gate.outcome is not Outcome.PASS


def test_a_champion_is_only_judged_on_rows_that_it_has_not_learned(numbers: Any) -> None:
    challenger = _run(numbers, champion=_run(numbers).predictor)
    clause = _clause(challenger, "paired")
    assert (clause.outcome, clause.n) == (Outcome.INCONCLUSIVE, 0)
    assert challenger.gate.outcome is Outcome.INCONCLUSIVE


def test_too_few_holdout_rows_are_inconclusive(numbers: Any) -> None:
    challenger = _run(numbers, gate=Gate(min_rows=500))
    assert challenger.gate.outcome is Outcome.INCONCLUSIVE
    assert _clause(challenger, "rows").outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("floor", "outcome"), [(0.5, Outcome.PASS), (0.999, Outcome.FAIL), ("value", Outcome.INCONCLUSIVE)]
)
def test_the_floor_holds_for_the_worse_end_of_the_interval(numbers: Any, floor: Any, outcome: Outcome) -> None:
    floor = _run(numbers).metrics["value"] if floor == "value" else floor
    challenger = _run(numbers, gate=replace(numbers.spec.gate, floor=floor))
    assert _clause(challenger, "floor").outcome is outcome
    assert challenger.gate.outcome is outcome


def test_a_model_that_is_no_better_than_a_constant_fails(numbers: Any) -> None:
    build = lambda: DummyClassifier(strategy="most_frequent")  # noqa: E731
    assert _clause(_run(numbers, build=build), "trivial").outcome is Outcome.FAIL


def test_a_rejected_challenger_is_not_fitted_again(numbers: Any) -> None:
    challenger = _run(numbers, gate=replace(numbers.spec.gate, floor=0.999))
    assert challenger.learned_until <= challenger.holdout_after
    passed = _run(numbers)
    assert passed.learned_until == passed.holdout_until


def test_too_few_labels_say_so(numbers: Any) -> None:
    with pytest.raises(TrainingFailed) as caught:
        _run(numbers, training=Training(windows=("all",), holdout="3d", min_rows=5000))
    assert caught.value.facts["reason"] == "too_few_labels"


def test_an_estimator_that_raises_is_a_failed_training(numbers: Any) -> None:
    with pytest.raises(TrainingFailed) as caught:
        _run(numbers, build=_Broken)
    assert caught.value.facts["reason"] == "train_error"


def _autocorrelated(n: int, rho: float, seed: int) -> Any:
    random = np.random.default_rng(seed)
    noise = random.normal(size=n)
    series = np.empty(n)
    series[0] = noise[0]
    for i in range(1, n):
        series[i] = rho * series[i - 1] + noise[i]
    return series


def test_blocks_grow_with_autocorrelation() -> None:
    lengths = [block_length(_autocorrelated(1000, rho, 0)) for rho in (0.0, 0.5, 0.9)]
    assert lengths[0] <= 3 < lengths[1] < lengths[2]
    assert block_length(np.zeros(5)) == 1


def test_the_interval_covers_the_truth_on_autocorrelated_rows(numbers: Any) -> None:
    schema = replace(infer(numbers.spec, numbers.source), task="regression", label="number")
    metric = metric_of("neg_mean_squared_error", schema)
    truth = np.zeros(500)
    covered = 0
    for seed in range(60):
        shared, own = _autocorrelated(500, 0.7, seed), _autocorrelated(500, 0.7, 1000 + seed)
        pair = (Answers(output=shared), Answers(output=own))
        drawn = resample(metric, truth, pair, resamples=300, seed=seed)
        low, high = drawn.interval(0.9, of=drawn.draws[0] - drawn.draws[1])
        covered += low <= 0 <= high
    assert covered >= 46  # 90 % of 60 is 54; rows drawn one by one cover about 36


def test_fast_sums_equal_gathered_rows(numbers: Any) -> None:
    schema = replace(infer(numbers.spec, numbers.source), task="regression", label="number")
    metric = metric_of("neg_mean_absolute_error", schema)
    random = np.random.default_rng(0)
    truth, answer = random.normal(size=90), Answers(output=random.normal(size=90))
    drawn = resample(metric, truth, (answer,), resamples=100, seed=1)
    assert drawn.draws[0].mean() == pytest.approx(drawn.losses[0], rel=0.05)
    assert drawn.losses[0] == pytest.approx(float(np.abs(truth - answer.output).mean()))
