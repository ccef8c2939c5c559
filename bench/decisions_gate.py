"""How often the gate promotes what is no better, in ten retrains: part of the decisions bench, and runs on its own.

Champion and challenger are equally good: each is wrong on a quarter of the rows, and they disagree on a tenth of them.
Whoever promotes at a point margin is fooled; the table says how often, beside both modes of the gate. And how often a
challenger that truly is better by three points passes, and one that is worse by three.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the thread caps come before numpy

from bench.report import Section, Target, publish  # noqa: E402
from service.domain.gate import Circumstances, Outcome, Use  # noqa: E402
from service.domain.policy import Gate  # noqa: E402
from service.domain.spec import Feature, Schema  # noqa: E402
from service.learning.gate import Evidence, judge_challenger  # noqa: E402
from service.learning.metric import metric_of  # noqa: E402
from service.learning.preconditions import Stretch  # noqa: E402
from service.learning.resampling import Answers  # noqa: E402

__all__ = ["Case", "measure"]

RETRAINS = 10
WRONG = 0.25
DISAGREE = 0.10
ROWS = (200, 1000)
SCHEMA = Schema(
    model="null", task="classification", timestamp="at", label="integer", classes=(0, 1), features=(Feature("x"),)
)
METRIC = metric_of("accuracy", SCHEMA)
AT = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = np.datetime64("2026-01-01", "us")
HOLDOUT = timedelta(days=14)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is simulated.

    Attributes
    ----------
    rows
        Of the holdout.
    rule
        ``point`` (promote at a gain of a point of accuracy, the naive rule), or a mode of the gate.
    better
        By how many points of accuracy the challenger truly is better.
    overlap
        Share of the holdout's rows that the next gate sees again.
    """

    rows: int
    rule: str
    better: float = 0.0
    overlap: float = 0.0


def measure(case: Case, *, worlds: int, seed: int) -> tuple[float, float]:
    """Return the share of gates that pass, and the share of worlds in which at least one of ten retrains passes."""
    random = np.random.default_rng(seed)
    passed = np.array([_world(case, random) for _ in range(worlds)])
    return float(passed.mean()), float(passed.any(axis=1).mean())


def _world(case: Case, random: np.random.Generator) -> list[bool]:
    kept = int(case.rows * case.overlap)
    outcomes: list[bool] = []
    uses: list[Use] = []
    champion, challenger = _answers(case, case.rows, random)
    for number in range(RETRAINS):
        if number:
            fresh = _answers(case, case.rows - kept, random)
            # The rows are the champion's still; the challenger is a new one, and of the old rows knows as little.
            again = _challenger(case, champion[case.rows - kept :], random)
            champion = np.concatenate([champion[case.rows - kept :], fresh[0]])
            challenger = np.concatenate([again, fresh[1]])
        outcomes.append(_passes(case, champion, challenger, number, tuple(uses), seed=int(random.integers(2**31))))
        step = number * HOLDOUT * (1 - case.overlap)
        uses.append(Use(run=str(number), after=AT + step, until=AT + step + HOLDOUT))
    return outcomes


def _answers(case: Case, n: int, random: np.random.Generator) -> tuple[Any, Any]:
    """Return on which rows champion and challenger are wrong."""
    champion = random.random(n) < WRONG
    return champion, _challenger(case, champion, random)


def _challenger(case: Case, champion: Any, random: np.random.Generator) -> Any:
    """Return on which rows a challenger is wrong that disagrees with the champion on a tenth of them."""
    mends = (DISAGREE + case.better) / 2 / WRONG
    spoils = (DISAGREE - case.better) / 2 / (1 - WRONG)
    draw = random.random(len(champion))
    return np.where(champion, draw >= mends, draw < spoils)


def _passes(case: Case, champion: Any, challenger: Any, number: int, uses: tuple[Use, ...], *, seed: int) -> bool:
    if case.rule == "point":
        return bool(champion.mean() - challenger.mean() >= 0.01)
    # The truth is one class or the other, at random: else a constant answer would be hard to beat.
    truth = np.random.default_rng(seed).integers(0, 2, case.rows)
    begin = number * HOLDOUT * (1 - case.overlap)
    spread = np.linspace(0, HOLDOUT.total_seconds() * 1e6, case.rows + 1)[1:].astype("timedelta64[us]")
    evidence = Evidence(
        truth=truth,
        challenger=Answers(output=np.where(challenger, 1 - truth, truth)),
        champion=Answers(output=np.where(champion, 1 - truth, truth)),
        trivial=Answers(output=np.zeros(case.rows, dtype=np.int64)),
        fresh=np.ones(case.rows, dtype=bool),
        times=TIMES + np.timedelta64(int(begin.total_seconds() * 1e6), "us") + spread,
        stretch=Stretch(after=AT + begin, until=AT + begin + HOLDOUT, learned_until=AT + begin),
    )
    judged = judge_challenger(
        Gate(),
        METRIC,
        lambda: evidence,
        unopposed=False,
        seed=seed,
        circumstances=Circumstances(uses=uses, recipe_changed=case.rule == "improve"),
    )
    if judged.report.broke:
        raise RuntimeError(judged.report.reason)
    return judged.report.outcome is Outcome.PASS


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the worlds; targets are not judged")
    given = parser.parse_args()
    worlds, began = (20 if given.quick else 200), time.perf_counter()
    rows, targets, figures = [], [], []
    for n in ROWS:
        for overlap in (0.0, 0.5):
            chances = {}
            for rule in ("point", "non_inferior", "improve"):
                case = Case(rows=n, rule=rule, overlap=overlap)
                null = measure(case, worlds=worlds, seed=1)
                good, bad = (measure(replace(case, better=by), worlds=worlds, seed=2)[0] for by in (0.03, -0.03))
                chances[rule] = null[1]
                figures.append({"rows": n, "overlap": overlap, "rule": rule, "null": null, "good": good, "bad": bad})
                words = {
                    "point": "a point of accuracy",
                    "non_inferior": "gate, refresh",
                    "improve": "gate, changed recipe",
                }
                rows.append([str(n), f"{overlap:.0%}", words[rule], *(f"{share:.1%}" for share in (*null, good, bad))])
            for rule in ("non_inferior", "improve"):
                claim = f"{n} rows, {overlap:.0%} shared: {rule} is fooled less often than a point margin"
                met = chances[rule] < chances["point"]
                targets.append(Target(words=f"{claim} ({chances[rule]:.1%} against {chances['point']:.1%})", met=met))
    section = Section(
        name="decisions_gate",
        title="False promotions: ten retrains of a challenger that is no better" + (", quick" if given.quick else ""),
        columns=("holdout rows", "shared", "rule", "a gate", "ten gates", "3 points better", "3 points worse"),
        rows=rows,
        targets=[] if given.quick else targets,
        notes=[
            f"{worlds} worlds each, seeds 1 and 2; both models are wrong on {WRONG:.0%} of the rows and disagree on "
            f"{DISAGREE:.0%}.",
            "`a gate`, `ten gates`: chance that an equal challenger passes, in one gate and in at least one of ten.",
            "`shared`: of each holdout's rows, those that the gate before had seen.",
        ],
        libraries=("numpy", "scikit-learn"),
        figures={"worlds": worlds, "results": figures},
        seconds=time.perf_counter() - began,
    )
    return publish(section)


if __name__ == "__main__":
    sys.exit(main())
