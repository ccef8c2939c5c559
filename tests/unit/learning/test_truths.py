"""Broken labels are told from concept drift by what puts them right; labels that fit nothing are drift."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from service.domain.spec import Feature, Schema
from service.learning.truths import mislabelled
from service.spec import Quality

CLASSES = Schema(
    model="m",
    task="classification",
    timestamp="at",
    label="string",
    features=(Feature("a"),),
    classes=("a", "b", "c"),
)
NUMBERS = Schema(model="m", task="regression", timestamp="at", label="number", features=(Feature("a"),))
N = 400

Break = Callable[[pd.DataFrame], pd.DataFrame]


def _classes() -> pd.DataFrame:
    random = np.random.default_rng(0)
    truth = random.choice(["a", "b", "c"], N, p=[0.5, 0.3, 0.2]).astype(object)
    output = np.where(random.random(N) < 0.8, truth, "a").astype(object)
    times = pd.date_range("2026-01-01", periods=N, freq="1h", tz="UTC")
    return pd.DataFrame({"event_time": times, "output": output, "label": truth})


def _numbers() -> pd.DataFrame:
    random = np.random.default_rng(0)
    truth = 50 + 20 * random.normal(size=N)
    times = pd.date_range("2026-01-01", periods=N, freq="1h", tz="UTC")
    return pd.DataFrame({"event_time": times, "output": truth + 5 * random.normal(size=N), "label": truth})


def _found(rows: pd.DataFrame) -> list[str]:
    schema, metric, loss = (
        (CLASSES, "accuracy", 0.12) if rows["output"].dtype == object else (NUMBERS, "neg_mean_absolute_error", 4.0)
    )
    findings = mislabelled(schema, Quality(), metric, answered=rows, reference_loss=loss)
    for finding in findings:
        assert any(character.isdigit() for character in finding.reason)
    return [finding.check for finding in findings]


def test_sound_labels_and_labels_that_fit_nothing_any_more_are_no_finding() -> None:
    shuffle = np.random.default_rng(1)
    for rows in (_classes(), _numbers()):
        assert _found(rows) == []
        assert _found(rows.assign(label=shuffle.permutation(rows["label"].to_numpy()))) == []
        assert _found(rows.assign(label=None)) == []


def test_labels_that_broke_half_way_through_are_found() -> None:
    rows = _classes()
    exchanged = rows["label"].map({"a": "b", "b": "c", "c": "a"})
    assert _found(rows.assign(label=rows["label"].where(rows.index < N // 2, exchanged))) == ["labels_permuted"]


def test_a_world_of_two_classes_that_turned_round_is_no_broken_label() -> None:
    """Nobody can tell the two apart, and a model that is kept from learning the new world stays wrong for ever."""
    rows = _classes()
    two = rows[(rows["label"] != "c") & (rows["output"] != "c")]
    turned = two.assign(label=two["label"].map({"a": "b", "b": "a"}))
    schema = replace(CLASSES, classes=("a", "b"))
    assert mislabelled(schema, Quality(), "accuracy", answered=turned, reference_loss=0.12) == []
    three = rows.assign(label=rows["label"].map({"a": "b", "b": "a", "c": "c"}))
    assert _found(three) == ["labels_permuted"]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lambda rows: rows.assign(label=rows["label"].map({"a": "b", "b": "c", "c": "a"})), "labels_permuted"),
        (lambda rows: rows.assign(label=rows["label"].shift(7)), "labels_slipped"),
        (lambda rows: rows.assign(label="c"), "labels_constant"),
    ],
)
def test_labels_of_classes_that_are_renamed_slipped_or_frozen_are_found(broken: Break, expected: str) -> None:
    assert _found(broken(_classes())) == [expected]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lambda rows: rows.assign(label=rows["label"] * 100), "labels_scale"),
        (lambda rows: rows.assign(label=rows["label"].shift(3)), "labels_slipped"),
        (lambda rows: rows.assign(label=0.0), "labels_constant"),
    ],
)
def test_labels_of_numbers_in_another_unit_slipped_or_frozen_are_found(broken: Break, expected: str) -> None:
    assert _found(broken(_numbers())) == [expected]
