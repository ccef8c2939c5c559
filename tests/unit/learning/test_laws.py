"""Laws that hold for a model of any kind."""

from typing import Any

import numpy as np
import pandas as pd

from service.domain.gate import Outcome
from service.learning.frames import between
from service.learning.package import package, predictor_of


def test_a_kind_can_be_learned_and_passes_its_gate(learned: Any) -> None:
    challenger = learned.challenger
    assert challenger.gate.outcome is Outcome.PASS, challenger.gate.reason
    assert challenger.gate.unopposed
    assert challenger.metrics["n"] > 100
    assert sum(candidate.chosen for candidate in challenger.candidates) == 1


def test_same_seed_same_bytes_inputs_unchanged_and_order_of_rows_of_no_matter(learned: Any) -> None:
    shuffled = learned.rows.sample(frac=1, random_state=0)
    before = shuffled.copy(deep=True)
    one, other = (
        package(challenger.predictor, learned.rows) for challenger in (learned.challenger, learned.again(shuffled))
    )
    assert one.sha256 == other.sha256
    assert one.manifest == other.manifest
    pd.testing.assert_frame_equal(shuffled, before)


def test_a_version_answers_the_same_after_it_was_packed_and_loaded(learned: Any) -> None:
    predictor = learned.challenger.predictor
    packed = package(predictor, learned.rows)
    loaded = predictor_of(packed.artifact, packed.manifest)
    for one, other in zip(predictor.answer(learned.rows), loaded.answer(learned.rows), strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or np.array_equal(one, other)
    assert loaded.schema == predictor.schema


def test_golden_rows_give_the_recorded_outputs_as_a_request_would_carry_them(learned: Any) -> None:
    packed = package(learned.challenger.predictor, learned.rows)
    golden = packed.manifest["golden"]
    outputs, probabilities = predictor_of(packed.artifact, packed.manifest).answer(pd.DataFrame(golden["rows"]))
    assert outputs.tolist() == golden["outputs"]
    assert (None if probabilities is None else probabilities.tolist()) == golden["probabilities"]


def test_a_batch_is_answered_as_its_rows_one_by_one(learned: Any) -> None:
    predictor = learned.challenger.predictor
    some = learned.rows.iloc[::60]
    together, chances = predictor.answer(some)
    for place in range(len(some)):
        alone, chance = predictor.answer(some.iloc[[place]])
        if together.dtype.kind == "f":
            assert np.isclose(alone[0], together[place], rtol=1e-12)
        else:
            assert alone[0] == together[place]
        if chances is not None and chance is not None:
            assert np.allclose(chance[0], chances[place], rtol=1e-12)


def test_holdout_rows_are_never_learned_by_what_is_judged(learned: Any) -> None:
    challenger = learned.challenger
    earlier = between(learned.rows, after=None, until=challenger.holdout_after)
    assert max(candidate.rows for candidate in challenger.candidates) <= len(earlier)
    assert challenger.metrics["n"] == len(between(learned.rows, after=challenger.holdout_after, until=None))


def test_an_unseen_category_and_a_value_far_away_are_answered(learned: Any) -> None:
    schema = learned.schema
    odd = learned.rows.iloc[[0]].copy()
    for feature in schema.features:
        if schema.is_text(feature):
            odd[feature.name] = "never seen"
        elif feature.kind != "boolean":
            odd[feature.name] = 1_000_000
    outputs, _ = learned.challenger.predictor.answer(odd)
    assert len(outputs) == 1
