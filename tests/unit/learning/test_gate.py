"""The gate passes what is proved, and nothing else."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from service.domain.errors import TrainingFailed
from service.domain.gate import Circumstances, Outcome, Use
from service.learning.frames import canonical
from service.learning.metric import metric_of
from service.learning.predictor import Predictor
from service.learning.resampling import Answers, block_length, resample
from service.learning.schema import infer
from service.learning.train import challenge
from service.spec import Gate, Training


def _run(
    kind: Any,
    *,
    champion: Predictor | None = None,
    arrivals: Any = None,
    circumstances: Circumstances | None = None,
    **changes: Any,
) -> Any:
    spec = replace(kind.spec, **changes)
    schema = infer(spec, kind.source)
    rows = canonical(spec, schema, kind.source)
    return challenge(
        spec,
        schema,
        rows,
        champion=champion,
        until=rows["event_time"].iloc[-1].to_pydatetime(),
        seed=0,
        arrivals=arrivals,
        circumstances=circumstances or Circumstances(),
    )


def _clause(challenger: Any, name: str) -> Any:
    return next(clause for clause in challenger.gate.clauses if clause.name == name)


class _Broken(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    def predict(self, X: Any) -> Any:
        del X
        msg = "no answer"
        raise RuntimeError(msg)


class _Flips(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # as above
    """Is right, but upside down where the second number is large."""

    def fit(self, X: Any, y: Any) -> Any:
        self.inner_ = LogisticRegression().fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict(self, X: Any) -> Any:
        right = self.inner_.predict(X)
        return np.where(np.asarray(X)[:, 1] > 0.4, np.where(right == "UP", "DOWN", "UP"), right)


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


def _near(kind: Any) -> Predictor:
    """Return a champion a little worse than the challenger: the same line, moved; it has learned none of these rows."""
    first: Predictor = _run(kind, training=replace(kind.spec.training, refit=False)).predictor
    first.estimator.intercept_ = first.estimator.intercept_ + 0.35
    return replace(first, learned_until=None)


def test_another_recipe_must_prove_its_gain_and_a_refresh_only_that_it_does_no_harm(numbers: Any) -> None:
    gate = replace(numbers.spec.gate, min_gain=0.0, margin=0.5)
    same = replace(_run(numbers, training=replace(numbers.spec.training, refit=False)).predictor, learned_until=None)
    refresh = _run(numbers, champion=same, gate=gate)
    changed = _run(numbers, champion=same, gate=gate, circumstances=Circumstances(recipe_changed=True))
    assert _clause(refresh, "paired").outcome is Outcome.PASS
    assert _clause(changed, "paired").outcome is not Outcome.PASS
    assert _clause(changed, "paired").threshold == 0.0
    assert "recipe was changed" in _clause(changed, "paired").reason
    lenient = replace(gate, changed="non_inferior")
    allowed = _run(numbers, champion=same, gate=lenient, circumstances=Circumstances(recipe_changed=True))
    assert _clause(allowed, "paired").outcome is Outcome.PASS


def test_rows_that_were_judged_on_before_need_a_clearer_gain(numbers: Any) -> None:
    champion = _near(numbers)
    first = _run(numbers, champion=champion)
    again = tuple(Use(run=str(i), after=first.holdout_after, until=first.holdout_until) for i in range(2))
    worn = _run(numbers, champion=champion, circumstances=Circumstances(uses=again))
    assert _clause(worn, "uses").value == pytest.approx(3.0)
    assert worn.figures["paired"]["confidence"] == pytest.approx(1 - 0.2 / 3)
    assert _clause(worn, "paired").value < _clause(first, "paired").value
    assert worn.metrics == first.metrics


def test_harm_in_a_declared_slice_keeps_a_better_challenger_out(numbers: Any) -> None:
    gate = replace(numbers.spec.gate, slices=(("b", 2),), slice_rows=20)
    harmful = _run(numbers, champion=_weak(numbers), gate=gate, build=_Flips)
    assert _clause(harmful, "slices").outcome is Outcome.FAIL
    assert harmful.gate.outcome is Outcome.FAIL
    assert [line["harmed"] for line in harmful.figures["slices"]] == [False, True]
    assert harmful.figures["paired"]["gain"] > 0
    wide = _run(numbers, champion=_weak(numbers), gate=replace(gate, slice_margin=5.0), build=_Flips)
    assert _clause(wide, "slices").outcome is Outcome.PASS


def test_what_labels_take_to_come_lies_between_what_is_fitted_on_and_the_holdout(numbers: Any) -> None:
    times = canonical(numbers.spec, infer(numbers.spec, numbers.source), numbers.source)[["event_time"]]
    late = times.assign(observed_at=times["event_time"] + pd.Timedelta(hours=12))
    plain, waited = _run(numbers), _run(numbers, arrivals=late)
    assert _clause(plain, "embargo").threshold == 0.0
    assert _clause(waited, "embargo").threshold == 12 * 3600
    assert _clause(waited, "embargo").outcome is Outcome.PASS
    assert waited.candidates[1].rows == plain.candidates[1].rows - 24
    assert waited.learned_until == plain.learned_until  # the refit learns all the same
    assert _clause(waited, "coverage").value == 1.0


def test_rows_whose_labels_are_still_arriving_are_neither_judged_on_nor_learned_from(numbers: Any) -> None:
    times = canonical(numbers.spec, infer(numbers.spec, numbers.source), numbers.source)[["event_time"]]
    seen = (times["event_time"] + pd.Timedelta(hours=1)).where(np.arange(len(times)) % 4 == 0)
    seen.iloc[:500] = times["event_time"].iloc[:500] + pd.Timedelta(hours=1)
    challenger = _run(numbers, arrivals=times.assign(observed_at=seen))
    cut = times["event_time"].iloc[520].to_pydatetime()
    assert challenger.holdout_until < cut
    assert challenger.learned_until < cut
    assert "still arriving" in _clause(challenger, "maturity").reason


def test_a_gate_without_errors_has_every_clause_in_its_place(numbers: Any) -> None:
    challenger = _run(numbers, champion=_weak(numbers), gate=replace(numbers.spec.gate, floor=0.5, slices=("a",)))
    names = [clause.name for clause in challenger.gate.clauses]
    assert names == [
        "rows", "classes", "coverage", "maturity", "embargo", "data", "sanity", "uses", "trivial", "floor", "paired",
        "slices", "old_regime", "refit",
    ]  # fmt: skip


def test_equal_models_on_autocorrelated_rows_are_seldom_said_to_differ(numbers: Any) -> None:
    schema = replace(infer(numbers.spec, numbers.source), task="regression", label="number")
    metric = metric_of("neg_mean_squared_error", schema)
    truth = np.zeros(500)
    proved = 0
    for seed in range(80):
        pair = tuple(Answers(output=_autocorrelated(500, 0.8, place + seed)) for place in (0, 5000))
        drawn = resample(metric, truth, pair, resamples=300, seed=seed)
        proved += drawn.interval(0.8, of=drawn.draws[0] - drawn.draws[1])[0] > 0
    assert proved <= 16  # a tenth of 80 is 8; rows drawn one by one say so of about 22


def test_for_numbers_the_gain_is_a_difference_of_losses_on_the_same_rows(numbers: Any) -> None:
    source = numbers.source.assign(
        y=numbers.source["a"] * 3 + np.random.default_rng(1).normal(size=len(numbers.source))
    )
    build = lambda: LinearRegression()  # noqa: E731, PLW0108
    spec = replace(numbers.spec, task="regression", metric="neg_mean_absolute_error", build=build)
    kind = replace(numbers, spec=spec, source=source)
    first: Predictor = _run(kind).predictor
    mean = DummyRegressor().fit([[0.0, 0.0]], [0.0])
    challenger = _run(kind, champion=replace(first, estimator=mean, learned_until=None))
    found = challenger.figures["paired"]
    assert challenger.gate.outcome is Outcome.PASS
    assert found["gain"] == pytest.approx(found["champion"] - found["challenger"])
    assert found["gain_ci"][0] < found["gain"] < found["gain_ci"][1]
    worse = replace(_run(kind).predictor, learned_until=None)
    rejected = _run(kind, champion=worse, build=lambda: DummyRegressor())  # noqa: PLW0108
    assert _clause(rejected, "paired").outcome is Outcome.FAIL
