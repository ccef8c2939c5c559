"""The gate's statistics: each clause with its figures. Any error in here is a clause that fails."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.gate import ERROR, Circumstances, Clause, GateReport, Outcome, judge, tightened
from service.domain.policy import Gate
from service.learning.metric import Metric
from service.learning.preconditions import Stretch, looks_at, preconditions, worn
from service.learning.regime import OldRegime, judge_old_regime
from service.learning.resampling import Answers, Resampled, resample
from service.learning.slices import Slice, judge_slices

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
    times
        Event times, shape (n_rows,), datetime64[us] in UTC.
    stretch
        How these rows were cut out of what is known.
    slices
        The declared ones.
    old
        Answers to the oldest rows that are known; None where that is no other regime yet.
    """

    truth: Array
    challenger: Answers
    trivial: Answers
    times: Array
    stretch: Stretch
    champion: Answers | None = None
    fresh: Array | None = None
    slices: tuple[Slice, ...] = ()
    old: OldRegime | None = None


@dataclass(frozen=True, kw_only=True)
class RefitEvidence:
    """Answers of the judged fit and of its refit to the same rows, older than the holdout, and these rows' labels."""

    truth: Array
    judged: Answers
    refitted: Answers


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The gate's report, the challenger's own figures on the holdout, and those that were computed on the way."""

    report: GateReport
    metrics: dict[str, Any]
    figures: dict[str, Any]


def judge_challenger(
    policy: Gate,
    metric: Metric,
    evidence: Callable[[], Evidence],
    *,
    unopposed: bool,
    seed: int,
    circumstances: Circumstances,
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
    circumstances
        What the rows do not show.
    """
    try:
        return _judgement(policy, metric, evidence(), circumstances, unopposed=unopposed, seed=seed)
    except Exception as error:  # noqa: BLE001  invariant 7: any error in the gate means no promotion
        report = judge((_error(error),), unopposed=unopposed)
        return Judgement(report=report, metrics=_unknown(metric, 0), figures={})


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


def _judgement(
    policy: Gate, metric: Metric, evidence: Evidence, circumstances: Circumstances, *, unopposed: bool, seed: int
) -> Judgement:
    n = len(evidence.truth)
    is_classification = evidence.truth.dtype.kind != "f"
    clauses = [
        *preconditions(policy, evidence.truth, evidence.stretch, circumstances, is_classification=is_classification),
        _sane((evidence.challenger,), n),
    ]
    if clauses[-1].outcome is not Outcome.PASS or n == 0:
        return Judgement(report=judge(tuple(clauses), unopposed=unopposed), metrics=_unknown(metric, n), figures={})
    drawn = resample(metric, evidence.truth, (evidence.challenger,), resamples=policy.resamples, seed=seed)
    loss = drawn.losses[0]
    value, ends = metric.as_value(loss), _ends(metric, drawn, policy.confidence)
    clauses += [worn(policy, evidence.times, circumstances), _beats_trivial(metric, evidence, loss)]
    if policy.floor is not None:
        looks = looks_at(evidence.times, circumstances)
        surely = _ends(metric, drawn, tightened(policy.confidence, looks, resamples=policy.resamples))
        clauses.append(_above_floor(policy, metric, value, surely, n))
    figures: dict[str, Any] = {}
    if not unopposed:
        opposed, figures = _opposed(policy, metric, evidence, circumstances, seed=seed)
        clauses += opposed
    metrics = {"metric": metric.name, "value": value, "loss": loss, "n": n, "ci": ends, "block": drawn.block}
    return Judgement(report=judge(tuple(clauses), unopposed=unopposed), metrics=metrics, figures=figures)


def _ends(metric: Metric, drawn: Resampled, confidence: float) -> list[float]:
    """Return the ends of the interval of the metric's own value, the lower first."""
    low, high = drawn.interval(confidence, of=drawn.draws[0])
    return sorted((metric.as_value(low), metric.as_value(high)))


def _opposed(
    policy: Gate, metric: Metric, evidence: Evidence, circumstances: Circumstances, *, seed: int
) -> tuple[list[Clause], dict[str, Any]]:
    """Return the clauses that compare with the champion, and their figures."""
    if evidence.champion is None or evidence.fresh is None:
        msg = "the champion's answers are missing"
        raise ValueError(msg)
    fresh = np.flatnonzero(evidence.fresh)
    if len(fresh) < policy.min_rows:
        few = Clause(
            name="paired",
            value=None,
            threshold=None,
            n=len(fresh),
            outcome=Outcome.INCONCLUSIVE,
            reason=f"{len(fresh)} rows are newer than what the champion learned; {policy.min_rows} are needed",
        )
        return [few], {}
    truth, champion = evidence.truth[fresh], _at(evidence.champion, fresh)
    challenger = _at(evidence.challenger, fresh)
    looks = looks_at(evidence.times[fresh], circumstances)
    drawn = resample(metric, truth, (champion, challenger), resamples=policy.resamples, seed=seed)
    paired, figures = _paired(policy, metric, drawn, looks=looks, n=len(fresh), changed=circumstances.recipe_changed)
    clauses = [paired]
    found: dict[str, Any] = {"paired": figures}
    if policy.slices:
        among = [_among(one, evidence.fresh) for one in evidence.slices]
        sliced, lines = judge_slices(
            policy, metric, truth=truth, champion=champion, challenger=challenger, slices=among, seed=seed
        )
        clauses.append(sliced)
        found["slices"] = lines
    old, forgotten = judge_old_regime(
        policy, metric, evidence.old, is_proved_better=figures["gain_ci"][0] > 0, seed=seed
    )
    return [*clauses, old], found | {"old_regime": forgotten}


def _paired(
    policy: Gate, metric: Metric, drawn: Resampled, *, looks: float, n: int, changed: bool
) -> tuple[Clause, dict[str, Any]]:
    """Challenger and champion on the same rows, none of which either of them has learned."""
    champion, challenger = drawn.losses
    gain = champion - challenger
    confidence = tightened(policy.confidence, looks, resamples=policy.resamples)
    low, high = drawn.interval(confidence, of=drawn.draws[0] - drawn.draws[1])
    mode = policy.changed if changed else policy.mode
    limit = 0.0 if mode == "improve" else 0.0 - policy.margin * champion
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
        f"loss {challenger:.4g} against the champion's {champion:.4g} on the same {n} rows: gain {gain:.4g} "
        f"(needed {least:.4g}), {confidence:.1%} interval [{low:.4g}, {high:.4g}] in blocks of {drawn.block} "
        f"(must lie above {limit:.4g}{', for the recipe was changed' if changed else ''}): {words[outcome]}"
    )
    figures = {
        "n": n, "champion": metric.as_value(champion), "challenger": metric.as_value(challenger), "gain": gain,
        "gain_ci": [low, high], "confidence": confidence, "block": drawn.block, "mode": mode, "changed": changed,
    }  # fmt: skip
    return Clause(name="paired", value=low, threshold=limit, n=n, outcome=outcome, reason=reason), figures


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


def _among(one: Slice, fresh: Array) -> Slice:
    """Return the slice as places among the fresh rows alone."""
    place = np.cumsum(fresh) - 1
    return Slice(name=one.name, rows=place[one.rows[fresh[one.rows]]])


def _at(answers: Answers, rows: Array) -> Answers:
    probabilities = None if answers.probabilities is None else answers.probabilities[rows]
    return Answers(output=answers.output[rows], probabilities=probabilities)
