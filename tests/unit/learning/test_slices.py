"""Laws of slices: proved harm blocks, however many are looked at; thin slices and chance do not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.domain.errors import SpecInvalid
from service.domain.gate import Outcome
from service.domain.spec import Feature, Schema
from service.learning.metric import metric_of
from service.learning.resampling import Answers
from service.learning.schema import infer
from service.learning.slices import Slice, holm, judge_slices, slices_of
from service.spec import Gate

SCHEMA = Schema(
    model="m", task="classification", timestamp="at", label="integer", classes=(0, 1), integer_categories=("day",),
    features=(Feature("temp"), Feature("day", kind="categorical"), Feature("flag", kind="boolean")),
)  # fmt: skip
ACCURACY = metric_of("accuracy", SCHEMA)
N = 1200


def answers(right: Any) -> Answers:
    return Answers(output=np.where(right, 1, 0))


def judged(champion: Any, challenger: Any, places: list[Any], **policy: Any) -> Any:
    slices = [Slice(name=f"s{i}", rows=rows) for i, rows in enumerate(places)]
    return judge_slices(
        Gate(**policy), ACCURACY, truth=np.ones(N, dtype=np.int64), champion=answers(champion),
        challenger=answers(challenger), slices=slices, seed=0,
    )  # fmt: skip


def halves() -> list[Any]:
    return [np.arange(N // 2), np.arange(N // 2, N)]


def test_harm_in_one_slice_blocks_though_the_whole_has_gained() -> None:
    random = np.random.default_rng(0)
    champion = random.random(N) < 0.7
    challenger = np.concatenate([random.random(N // 2) < 0.5, np.ones(N // 2, dtype=bool)])
    clause, lines = judged(champion, challenger, halves())
    assert clause.outcome is Outcome.FAIL
    assert [line["harmed"] for line in lines] == [True, False]
    assert "s0 (600 rows)" in clause.reason
    assert clause.value == lines[0]["high"] < clause.threshold


def test_harm_within_the_margin_passes() -> None:
    champion = np.ones(N, dtype=bool)
    champion[::4] = False
    challenger = champion.copy()
    challenger[1 : N // 2 : 60] = False  # ten more mistakes, of 600 rows: less than a tenth of the champion's own
    assert judged(champion, challenger, halves())[0].outcome is Outcome.PASS
    assert judged(champion, challenger, halves(), slice_margin=0.0)[0].outcome is Outcome.FAIL


def test_a_thin_slice_is_told_and_not_judged() -> None:
    champion, challenger = np.ones(N, dtype=bool), np.ones(N, dtype=bool)
    champion[600:] = challenger[600:] = np.arange(600) % 2 == 0
    challenger[:40] = False
    clause, lines = judged(champion, challenger, [np.arange(40), np.arange(40, N)])
    assert clause.outcome is Outcome.PASS
    assert "1 with fewer than 50 rows" in clause.reason
    assert lines[0]["p"] is None
    assert lines[0]["gain"] == -1.0


def test_the_more_slices_the_more_proof_each_one_needs() -> None:
    assert holm([0.01, 0.04, 0.03], 0.05) == [True, False, False]
    assert holm([0.01, 0.02, 0.04], 0.05) == [True, True, True]
    assert holm([0.04], 0.05) == [True]
    assert holm([0.04] + [0.9] * 9, 0.05) == [False] * 10
    assert holm([], 0.05) == []


def test_equal_models_are_seldom_said_to_harm_one_of_twenty_slices() -> None:
    harmed = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        champion, challenger = random.random(N) < 0.75, random.random(N) < 0.75
        parts = [np.arange(i, N, 20) for i in range(20)]
        clause, _ = judged(champion, challenger, parts, slice_margin=0.0)
        harmed += clause.outcome is Outcome.FAIL
    assert harmed <= 14  # a tenth of 60 is 6; each slice by itself at that level would say so of about 50


def test_slices_are_categories_flags_bins_and_nulls() -> None:
    frame = pd.DataFrame(
        {"temp": [*np.arange(98.0), np.nan, np.nan], "day": [1.0, 2.0] * 50, "flag": [True] * 30 + [False] * 70}
    )
    policy = Gate(slices=("day", "flag", ("temp", 4)))
    found = {one.name: one.rows for one in slices_of(policy, SCHEMA, frame)}
    assert [len(found[name]) for name in ("day = 1", "day = 2", "flag = False", "flag = True")] == [50, 50, 70, 30]
    assert found["temp is null"].tolist() == [98, 99]
    bins = [rows for name, rows in found.items() if name.startswith("temp = bin")]
    assert len(bins) == 4
    assert sorted(np.concatenate(bins).tolist()) == list(range(98))
    with pytest.raises(ValueError, match="no feature"):
        slices_of(Gate(slices=("hour",)), SCHEMA, frame)


@pytest.mark.parametrize("one", ["nowhere", ("b", 2)])
def test_a_slice_that_cannot_be_cut_is_refused_when_the_file_is_read(numbers: Any, one: Any) -> None:
    features = (Feature("a"), Feature("b", kind="boolean"))
    source = numbers.source.assign(b=numbers.source["b"] > 0)
    spec = replace(numbers.spec, features=features, gate=replace(numbers.spec.gate, slices=(one,)))
    with pytest.raises(SpecInvalid, match=r"gate\.slices|slice") as caught:
        infer(spec, source)
    assert caught.value.facts["field"] == "gate.slices"
