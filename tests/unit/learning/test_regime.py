"""Laws of the old regime: forgetting is told; it blocks where it is a collapse that nothing new makes up for."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from service.domain.gate import Outcome
from service.domain.spec import Feature, Schema
from service.learning.metric import metric_of
from service.learning.regime import OldRegime, judge_old_regime
from service.learning.resampling import Answers
from service.spec import Gate

SCHEMA = Schema(model="m", task="regression", timestamp="at", label="number", features=(Feature("a"),))
MAE = metric_of("neg_mean_absolute_error", SCHEMA)
N = 300


def old(challenger_error: float, champion_error: float = 1.0, trivial_error: float = 2.0) -> OldRegime:
    random = np.random.default_rng(0)
    truth = random.normal(size=N)
    noise = random.choice([0.9, 1.1], N)
    return OldRegime(
        after=datetime(2026, 1, 1, tzinfo=UTC), until=datetime(2026, 1, 15, tzinfo=UTC), truth=truth,
        challenger=Answers(output=truth + challenger_error * noise), champion=Answers(output=truth + champion_error),
        trivial=Answers(output=truth + trivial_error), learned=False,
    )  # fmt: skip


def judged(regime: OldRegime | None, *, better: bool = False, **policy: Any) -> Any:
    return judge_old_regime(Gate(**policy), MAE, regime, is_proved_better=better, seed=0)


@pytest.mark.parametrize(
    ("error", "better", "outcome"),
    [(3.9, False, Outcome.PASS), (4.5, False, Outcome.FAIL), (4.5, True, Outcome.PASS)],
)
def test_a_collapse_on_old_rows_blocks_unless_a_gain_on_new_ones_is_proved(
    error: float, better: bool, outcome: Outcome
) -> None:
    clause, figures = judged(old(error), better=better)
    assert clause.outcome is outcome
    assert figures["forgotten"] == pytest.approx(error - 1, abs=0.1)
    assert clause.threshold == pytest.approx(4.0)  # twice the constant's two


def test_the_limit_is_the_worse_of_champion_and_constant() -> None:
    clause, _ = judged(old(4.5, champion_error=3.0))
    assert (clause.outcome, clause.threshold) == (Outcome.PASS, pytest.approx(6.0))


def test_without_a_margin_forgetting_is_told_and_not_judged() -> None:
    clause, figures = judged(old(50.0), old_margin=None)
    assert clause.outcome is Outcome.PASS
    assert "told, not judged" in clause.reason
    assert figures["n"] == N


def test_without_an_older_regime_or_a_metric_on_it_nothing_is_blocked() -> None:
    clause, figures = judged(None)
    assert (clause.outcome, clause.value, figures) == (Outcome.PASS, None, None)
    classes = Schema(
        model="m", task="classification", timestamp="at", label="integer", classes=(0, 1), features=(Feature("a"),)
    )
    one = np.ones(N, dtype=np.int64)
    answered = Answers(output=one, probabilities=None)
    regime = OldRegime(
        after=datetime(2026, 1, 1, tzinfo=UTC), until=datetime(2026, 1, 15, tzinfo=UTC), truth=one,
        challenger=answered, champion=answered, trivial=answered, learned=False,
    )  # fmt: skip
    clause, _ = judge_old_regime(Gate(), metric_of("roc_auc", classes), regime, is_proved_better=False, seed=0)
    assert clause.outcome is Outcome.PASS
    assert "not defined" in clause.reason
