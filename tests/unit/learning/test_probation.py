"""A champion's answers against those of the version before, on the same rows."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from service.domain.policy import Probation
from service.domain.probation import Evidence, Step, Watch, outcome_of
from service.domain.spec import Feature, Schema
from service.learning.predictor import Predictor
from service.learning.probation import MOST_ROWS, compare
from tests.unit.learning.conftest import Learned

SIGNS = Schema(
    model="small",
    task="classification",
    timestamp="at",
    label="string",
    features=(Feature("a"),),
    classes=("DOWN", "UP"),
)
NUMBERS = Schema(model="small", task="regression", timestamp="at", label="number", features=(Feature("a"),))


@dataclass(frozen=True)
class Sign:
    """Says UP where its feature is above an edge, and is wrong now and then."""

    edge: float = 0.0
    wrong: float = 0.0

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        right = np.where(X[:, 0] > self.edge, "UP", "DOWN").astype(object)
        other = np.where(right == "UP", "DOWN", "UP").astype(object)
        return np.where(np.random.default_rng(len(X)).random(len(X)) < self.wrong, other, right)


@dataclass(frozen=True)
class Line:
    """Answers its feature, moved."""

    by: float = 0.0

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        moved: NDArray[Any] = X[:, 0] + self.by
        return moved


def as_version(estimator: Any, schema: Schema) -> Predictor:
    return Predictor(estimator=estimator, schema=schema, output_mode="predict")


def answered(estimator: Any, schema: Schema, *, n: int = 600, seed: int = 0, labelled: int | None = None) -> Any:
    """Return rows with the answers of `estimator`; the newest have no label yet."""
    a = np.random.default_rng(seed).normal(size=n)
    times = pd.date_range("2026-01-01", periods=n, freq="30min", tz="UTC")
    frame = pd.DataFrame({"event_time": times, "a": a})
    frame["output"] = as_version(estimator, schema).answer(frame)[0]
    truth = np.where(a > 0, "UP", "DOWN").astype(object) if schema is SIGNS else a
    frame["label"] = pd.Series(truth).where(np.arange(n) < (n if labelled is None else labelled))
    return frame


def test_both_are_judged_on_the_rows_whose_labels_are_known() -> None:
    rows = answered(Sign(wrong=0.3), SIGNS, labelled=400)
    found = compare(SIGNS, "accuracy", rows, as_version(Sign(), SIGNS), confidence=0.9)
    own = float((rows["output"] != rows["label"])[:400].mean())
    assert (found.rows, found.labelled, found.loss, found.previous_loss) == (600, 400, own, 0.0)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < own < found.high
    assert found.error == ""


def test_the_order_of_the_rows_says_nothing() -> None:
    rows = answered(Sign(wrong=0.3), SIGNS)
    shuffled = rows.sample(frac=1, random_state=1)
    previous = as_version(Line(), NUMBERS)
    rows, shuffled = (answer.assign(label=rows["a"], output=rows["a"] + 0.1) for answer in (rows, shuffled))
    assert compare(NUMBERS, "neg_mean_absolute_error", rows, previous, confidence=0.9) == compare(
        NUMBERS, "neg_mean_absolute_error", shuffled, previous, confidence=0.9
    )


def test_without_labels_the_answers_are_compared_all_the_same() -> None:
    rows = answered(Sign(edge=5.0), SIGNS, labelled=0)  # it always says DOWN
    found = compare(SIGNS, "accuracy", rows, as_version(Sign(), SIGNS), confidence=0.9)
    assert (found.labelled, found.loss) == (0, None)
    assert found.distance is not None
    assert found.distance > Probation().outputs
    same = compare(SIGNS, "accuracy", answered(Sign(), SIGNS), as_version(Sign(), SIGNS), confidence=0.9)
    assert same.distance == 0.0


@pytest.mark.parametrize(("by", "distance"), [(0.0, 0.0), (2.0, 2.0)])
def test_values_are_measured_in_deviations_of_the_version_before(by: float, distance: float) -> None:
    rows = answered(Line(by), NUMBERS)
    found = compare(NUMBERS, "neg_mean_absolute_error", rows, as_version(Line(), NUMBERS), confidence=0.9)
    assert found.distance == pytest.approx(distance, rel=0.1)
    assert found.loss == pytest.approx(by)


def test_a_version_that_always_answered_the_same_has_no_spread_and_is_still_told_apart() -> None:
    class Still:
        def predict(self, X: NDArray[Any]) -> NDArray[Any]:
            return np.zeros(len(X))

    found = compare(NUMBERS, "r2", answered(Line(9.0), NUMBERS), as_version(Still(), NUMBERS), confidence=0.9)
    assert found.distance is not None
    assert found.distance > 1
    both = compare(NUMBERS, "r2", answered(Still(), NUMBERS), as_version(Still(), NUMBERS), confidence=0.9)
    assert both.distance == 0.0


def test_a_metric_that_is_not_defined_on_the_labels_is_no_breach_and_says_why() -> None:
    rows = answered(Sign(), SIGNS).assign(label="UP", probabilities=[[0.5, 0.5]] * 600)
    found = compare(SIGNS, "neg_log_loss", rows, as_version(Sign(), SIGNS), confidence=0.9)
    assert found.loss is None
    assert "log_loss" in found.error


def test_no_rows_are_no_evidence() -> None:
    rows = answered(Sign(), SIGNS).iloc[:0]
    assert compare(SIGNS, "accuracy", rows, as_version(Sign(), SIGNS), confidence=0.9).rows == 0


def test_every_kind_of_model_can_be_compared_with_itself(learned: Learned) -> None:
    version = learned.challenger.predictor
    outputs, probabilities = version.answer(learned.rows)
    rows = learned.rows.assign(output=outputs)
    if probabilities is not None:
        rows["probabilities"] = list(probabilities)
    found = compare(version.schema, learned.kind.spec.metric, rows, version, confidence=0.9)
    assert found.error == ""
    assert found.distance == 0.0
    assert found.loss == found.previous_loss
    assert (found.low, found.high) == (0.0, 0.0)


def test_a_class_that_the_version_before_never_saw_had_no_chance() -> None:
    class Even:
        classes = ("DOWN", "UP")

        def predict_proba(self, X: NDArray[Any]) -> NDArray[Any]:
            return np.full((len(X), 2), 0.5)

    wider = replace(SIGNS, classes=("DOWN", "FLAT", "UP"))
    rows = answered(Sign(), SIGNS).assign(probabilities=[[0.2, 0.6, 0.2]] * 600)
    rows.loc[rows.index[::4], "label"] = "FLAT"
    previous = Predictor(estimator=Even(), schema=SIGNS, output_mode="argmax")
    found = compare(wider, "neg_log_loss", rows, previous, confidence=0.9)
    assert found.previous_loss is not None
    assert found.previous_loss > 5  # a quarter of the rows at -log(epsilon), 36


def test_chance_alone_rolls_back_rarely() -> None:
    """Two equally good versions, whose errors are their own: how often the new one is taken back."""
    policy, breaches = Probation(), 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        rows = answered(Sign(), SIGNS, n=288, seed=seed)
        rows["output"] = np.where(random.random(288) < 0.25, "UP", rows["label"])
        rows["other"] = np.where(random.random(288) < 0.25, "UP", rows["label"])
        given = rows["other"].to_numpy(dtype=object)

        class Given:
            def predict(self, X: NDArray[Any], *, given: Any = given) -> NDArray[Any]:  # noqa: ARG002
                answers: NDArray[Any] = given
                return answers

        seen = compare(SIGNS, "accuracy", rows, as_version(Given(), SIGNS), confidence=policy.confidence)
        watch = Watch(began_at=rows["event_time"][0], began_event_time=None, now=rows["event_time"][0])
        breaches += outcome_of(policy, Evidence(comparison=seen), watch).step is Step.BREACH
    assert breaches <= 200 * 0.1  # one-sided 5 % of the interval, and a quarter of the loss on top of it


def test_a_forest_on_many_rows_is_compared_within_a_second() -> None:
    random = np.random.default_rng(0)
    n, names = 20_000, [f"f{place}" for place in range(20)]
    schema = replace(SIGNS, features=tuple(Feature(name) for name in names))
    rows = pd.DataFrame(random.normal(size=(n, 20)), columns=names)
    rows["event_time"] = pd.date_range("2026-01-01", periods=n, freq="30s", tz="UTC")
    rows["label"] = np.where(rows["f0"] > 0, "UP", "DOWN").astype(object)
    rows["output"] = rows["label"]
    forest = RandomForestClassifier(100, max_depth=12, random_state=0).fit(rows[names][:2_000], rows["label"][:2_000])
    version = Predictor(estimator=forest, schema=replace(schema, frame=True), output_mode="argmax")
    began = time.process_time()
    found = compare(schema, "accuracy", rows, version, confidence=0.9)
    assert (found.rows, found.labelled) == (MOST_ROWS, MOST_ROWS)
    assert time.process_time() - began < 2.0  # a quarter of a second on an idle machine
