"""Laws of the figures behind a card's plots."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from service.domain.spec import Feature, Schema
from service.learning.card import portrait, predicted_against_observed, reliability
from service.learning.gate import Evidence
from service.learning.preconditions import Stretch
from service.learning.resampling import Answers

AT = datetime(2026, 1, 1, tzinfo=UTC)
STRETCH = Stretch(after=AT, until=AT + timedelta(days=14), learned_until=AT)


def schema(task: Any, label: Any, classes: Any = ()) -> Schema:
    return Schema(model="m", task=task, timestamp="at", label=label, classes=classes, features=(Feature("a"),))


def evidence(truth: Any, challenger: Answers, champion: Answers | None = None) -> Evidence:
    times = np.datetime64("2026-01-02", "us") + np.arange(len(truth))
    return Evidence(
        truth=truth, challenger=challenger, champion=champion, trivial=challenger, times=times, stretch=STRETCH
    )


def test_calibrated_scores_lie_on_the_line_and_others_do_not() -> None:
    random = np.random.default_rng(0)
    scores = random.random(5000)
    came = random.random(5000) < scores
    good = reliability(came, scores, came)
    assert good["error"] < 0.03
    assert sum(point["n"] for point in good["points"]) == 5000
    assert all(point["low"] <= point["came"] <= point["high"] for point in good["points"])
    assert reliability(came, np.sqrt(scores), came)["error"] > 0.1


def test_predicted_against_observed_has_equally_large_bins_in_order() -> None:
    random = np.random.default_rng(0)
    output = random.normal(size=1000)
    found = predicted_against_observed(output + 2, output)
    assert [point["n"] for point in found["points"]] == [100] * 10
    assert [point["said"] for point in found["points"]] == sorted(point["said"] for point in found["points"])
    assert found["bias"] == pytest.approx(-2.0)
    assert len(found["rows"]) == 200


def test_both_versions_are_drawn_on_the_same_rows() -> None:
    truth = np.array([0, 1] * 100)
    sure = Answers(output=truth, probabilities=np.column_stack([1 - truth * 0.8, truth * 0.8]))
    unsure = Answers(output=truth, probabilities=np.full((200, 2), 0.5))
    found = portrait(schema("classification", "integer", (0, 1)), evidence(truth, sure, unsure))["calibration"]
    assert found["kind"] == "reliability"
    assert found["challenger"]["n"] == found["champion"]["n"] == 200
    assert found["champion"]["error"] == pytest.approx(0.0)


def test_of_many_classes_the_likeliest_is_drawn() -> None:
    truth = np.array(["a", "b", "c"] * 50, dtype=object)
    probabilities = np.tile([0.6, 0.3, 0.1], (150, 1))
    answers = Answers(output=np.array(["a"] * 150, dtype=object), probabilities=probabilities)
    found = portrait(schema("classification", "string", ("a", "b", "c")), evidence(truth, answers))["calibration"]
    (point,) = found["challenger"]["points"]
    assert (point["said"], point["came"]) == (pytest.approx(0.6), pytest.approx(1 / 3))


def test_without_probabilities_there_is_nothing_to_draw_and_an_error_is_a_sentence() -> None:
    truth = np.array([0, 1] * 10)
    two = schema("classification", "integer", (0, 1))
    assert portrait(two, evidence(truth, Answers(output=truth))) == {}
    broken = Answers(output=truth, probabilities=np.ones((3, 2)))
    assert "error" in portrait(two, evidence(truth, broken))["calibration"]
