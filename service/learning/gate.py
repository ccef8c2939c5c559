"""The gate's statistics: each clause with its figures. Any error in here is a clause that fails."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.gate import ERROR, Clause, GateReport, Outcome, judge
from service.domain.policy import Gate
from service.learning.metric import Metric
from service.learning.resampling import Answers, resample

__all__ = ["Evidence", "Judgement", "RefitEvidence", "judge_challenger", "judge_refit"]

Array = NDArray[Any]

REFIT_AGREEMENT = 0.8
"""The refit takes the judged fit's place where it agrees with it at least so far on rows older than the holdout."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that the gate looks at: answers to the holdout's rows, in time order.

    Attributes
    ----------
    truth
        Labels, shape (n_rows,).
    challenger
        Of the fit that has not seen these rows.
    trivial
        Of the best constant answer learned on the challenger's own rows.
    champion
        Of the present champion, scored now; None when there is none.
    fresh
        Which rows are newer than everything that the champion learned from: only on these can it be compared.
    """

    truth: Array
    challenger: Answers
    trivial: Answers
    champion: Answers | None = None
    fresh: Array | None = None


@dataclass(frozen=True, kw_only=True)
class RefitEvidence:
    """Answers of the judged fit and of its refit to the same rows, older than the holdout, and these rows' labels."""

    truth: Array
    judged: Answers
    refitted: Answers


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The gate's report and the challenger's own figures on the holdout."""

    report: GateReport
    metrics: dict[str, Any]


def judge_challenger(
    policy: Gate, metric: Metric, evidence: Callable[[], Evidence], *, unopposed: bool, seed: int
) -> Judgement:
    """Return the gate's judgement; whatever is raised on the way is a failed clause, never a promotion.

    Parameters
    ----------
    policy
        The model's gate.
    metric
        Judges.
    evidence
        Collects the answers. A function, because a champion that cannot answer is an error inside the gate.
    unopposed
        Whether there is no champion yet.
    seed
        Of the bootstrap.
    """
    try:
        return _judgement(policy, metric, evidence(), unopposed=unopposed, seed=seed)
    except Exception as error:  # noqa: BLE001  invariant 7: any error in the gate means no promotion
        return Judgement(report=judge((_error(error),), unopposed=unopposed), metrics=_unknown(metric, 0))


def judge_refit(
    report: GateReport, evidence: Callable[[], RefitEvidence], *, unopposed: bool
) -> tuple[GateReport, bool]:
    """Return `report` with what was found of the refit, and whether the refit may take the judged fit's place."""
    try:
        found = evidence()
        sane = _sane((found.refitted,), len(found.truth), name="refit_sanity")
        agreement = _agreement(found) if sane.outcome is Outcome.PASS else 0.0
        agrees = agreement >= REFIT_AGREEMENT
        clause = Clause(
            name="refit",
            value=agreement,
            threshold=REFIT_AGREEMENT,
            n=len(found.truth),
            # Passed either way: the fit that passed the gate is there to be promoted.
            outcome=Outcome.PASS,
            reason=f"the refit agrees with the judged fit by {agreement:.1%} on {len(found.truth)} older rows"
            + ("" if agrees else f", less than {REFIT_AGREEMENT:.0%}: the judged fit is promoted instead"),
        )
    except Exception as error:  # noqa: BLE001  as above
        return judge((*report.clauses, _error(error)), unopposed=unopposed), False
    return judge((*report.clauses, clause), unopposed=unopposed), agrees


def _agreement(evidence: RefitEvidence) -> float:
    """Return the share of equal classes; for numbers, one less their mean distance over the labels' own spread."""
    judged, refitted = evidence.judged.output, evidence.refitted.output
    if evidence.truth.dtype.kind != "f":
        return float((judged == refitted).mean())
    spread = float(np.abs(evidence.truth - np.median(evidence.truth)).mean())
    apart = float(np.abs(judged - refitted).mean())
    return 1.0 if apart == 0 else (1 - apart / spread if spread > 0 else 0.0)


def _error(error: Exception) -> Clause:
    words = str(error).splitlines()[0] if str(error) else ""
    return Clause(
        name=ERROR,
        value=None,
        threshold=None,
        n=0,
        outcome=Outcome.FAIL,
        reason=f"the gate could not judge: {type(error).__name__}: {words}",
    )


def _unknown(metric: Metric, n: int) -> dict[str, Any]:
    return {"metric": metric.name, "value": None, "loss": None, "n": n, "ci": [None, None]}


def _judgement(policy: Gate, metric: Metric, evidence: Evidence, *, unopposed: bool, seed: int) -> Judgement:
    n = len(evidence.truth)
    sane = _sane((evidence.challenger,), n)
    enough = _enough(policy, n)
    if sane.outcome is not Outcome.PASS or n == 0:
        report = judge((enough, sane), unopposed=unopposed)
        return Judgement(report=report, metrics=_unknown(metric, n))
    drawn = resample(metric, evidence.truth, (evidence.challenger,), resamples=policy.resamples, seed=seed)
    loss = drawn.losses[0]
    low, high = drawn.interval(policy.confidence, of=drawn.draws[0])
    value = metric.as_value(loss)
    ends = sorted((metric.as_value(low), metric.as_value(high)))
    clauses = [enough, sane, _beats_trivial(metric, evidence, loss)]
    if policy.floor is not None:
        clauses.append(_above_floor(policy, metric, value, ends, n))
    if not unopposed:
        clauses.append(_paired(policy, metric, evidence, seed=seed))
    metrics = {"metric": metric.name, "value": value, "loss": loss, "n": n, "ci": ends, "block": drawn.block}
    return Judgement(report=judge(tuple(clauses), unopposed=unopposed), metrics=metrics)


def _enough(policy: Gate, n: int) -> Clause:
    outcome = Outcome.PASS if n >= policy.min_rows else Outcome.INCONCLUSIVE
    return Clause(
        name="rows",
        value=float(n),
        threshold=float(policy.min_rows),
        n=n,
        outcome=outcome,
        reason=f"{n} labelled rows in the holdout; {policy.min_rows} are needed",
    )


def _sane(answers: tuple[Answers, ...], n: int, *, name: str = "sanity") -> Clause:
    """Every answer is a finite value."""
    broken = 0
    for answer in answers:
        if answer.output.dtype.kind == "f":
            broken += int((~np.isfinite(answer.output)).sum())
        if answer.probabilities is not None:
            broken += int((~np.isfinite(answer.probabilities)).any(axis=1).sum())
    return Clause(
        name=name,
        value=float(broken),
        threshold=0.0,
        n=n,
        outcome=Outcome.FAIL if broken else Outcome.PASS,
        reason=f"{broken} answers are not finite" if broken else "every answer is finite",
    )


def _beats_trivial(metric: Metric, evidence: Evidence, loss: float) -> Clause:
    trivial = metric.loss(evidence.truth, evidence.trivial.output, evidence.trivial.probabilities)
    better = loss < trivial
    return Clause(
        name="trivial",
        value=loss,
        threshold=trivial,
        n=len(evidence.truth),
        outcome=Outcome.PASS if better else Outcome.FAIL,
        reason=f"loss {loss:.4g} is {'below' if better else 'not below'} {trivial:.4g} of the best constant answer",
    )


def _above_floor(policy: Gate, metric: Metric, value: float, ends: list[float], n: int) -> Clause:
    floor = policy.floor if policy.floor is not None else math.nan
    worst = ends[0] if metric.greater_is_better else ends[1]
    met = value >= floor if metric.greater_is_better else value <= floor
    surely = worst >= floor if metric.greater_is_better else worst <= floor
    outcome = Outcome.PASS if surely else (Outcome.INCONCLUSIVE if met else Outcome.FAIL)
    side = "floor" if metric.greater_is_better else "ceiling"
    words = {
        Outcome.PASS: f"even the worse end of the interval, {worst:.4g}, keeps the {side} {floor:.4g}",
        Outcome.INCONCLUSIVE: f"{value:.4g} keeps the {side} {floor:.4g}, the worse end of its interval, {worst:.4g}, "
        "does not",
        Outcome.FAIL: f"{value:.4g} breaks the {side} {floor:.4g}",
    }
    return Clause(name="floor", value=worst, threshold=floor, n=n, outcome=outcome, reason=words[outcome])


def _paired(policy: Gate, metric: Metric, evidence: Evidence, *, seed: int) -> Clause:
    """Challenger and champion on the same rows, none of which either of them has learned."""
    if evidence.champion is None or evidence.fresh is None:
        msg = "the champion's answers are missing"
        raise ValueError(msg)
    fresh = np.flatnonzero(evidence.fresh)
    if len(fresh) < policy.min_rows:
        return Clause(
            name="paired",
            value=None,
            threshold=None,
            n=len(fresh),
            outcome=Outcome.INCONCLUSIVE,
            reason=f"{len(fresh)} rows are newer than what the champion learned; {policy.min_rows} are needed",
        )
    pair = (_at(evidence.champion, fresh), _at(evidence.challenger, fresh))
    drawn = resample(metric, evidence.truth[fresh], pair, resamples=policy.resamples, seed=seed)
    champion, challenger = drawn.losses
    gain = champion - challenger
    low, high = drawn.interval(policy.confidence, of=drawn.draws[0] - drawn.draws[1])
    limit = 0.0 if policy.mode == "improve" else 0.0 - policy.margin * champion
    least = policy.min_gain * champion
    if low > limit and gain >= least:
        outcome = Outcome.PASS
    elif gain < 0 or high <= 0:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE
    words = {
        Outcome.PASS: "good enough",
        Outcome.FAIL: "worse",
        Outcome.INCONCLUSIVE: "not proved to be good enough",
    }
    reason = (
        f"loss {challenger:.4g} against the champion's {champion:.4g} on the same {len(fresh)} rows: gain {gain:.4g} "
        f"(needed {least:.4g}), {policy.confidence:.0%} interval [{low:.4g}, {high:.4g}] in blocks of {drawn.block} "
        f"(must lie above {limit:.4g}): "
        f"{words[outcome]}"
    )
    return Clause(name="paired", value=low, threshold=limit, n=len(fresh), outcome=outcome, reason=reason)


def _at(answers: Answers, rows: Array) -> Answers:
    probabilities = None if answers.probabilities is None else answers.probabilities[rows]
    return Answers(output=answers.output[rows], probabilities=probabilities)
