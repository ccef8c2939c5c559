"""Training: candidates, the choice between them, the gate, the refit. It makes challengers, never champions."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from sklearn.dummy import DummyClassifier, DummyRegressor

from service.domain.duration import format_duration, parse_duration, parse_window
from service.domain.errors import TrainingFailed
from service.domain.gate import Circumstances, GateReport, Outcome
from service.domain.spec import ModelSpec, Schema
from service.learning.baseline import baseline
from service.learning.candidates import Candidate, Fitted, Progress, answers_of, choose, fit, fit_candidates, start_of
from service.learning.card import portrait
from service.learning.frames import EVENT_TIME, LABEL, between, labels, require
from service.learning.gate import Evidence, RefitEvidence, judge_challenger, judge_refit
from service.learning.lineage import parameters
from service.learning.metric import Metric, metric_of
from service.learning.preconditions import Stretch
from service.learning.predictor import Predictor
from service.learning.regime import OldRegime
from service.learning.resampling import Answers
from service.learning.ripeness import Maturity, coverage, embargo_of, maturity_of
from service.learning.slices import slices_of

__all__ = ["Challenge", "challenge"]


_AGREEMENT_ROWS = timedelta(days=56)
"""How much of the history before the holdout shows whether a refit is the same model still."""


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A challenger with everything that speaks for and against it.

    Attributes
    ----------
    predictor
        What would be promoted: where the gate passed and the policy asks for it, the chosen recipe fitted again with
        the holdout included, else the judged fit; schema with classes.
    candidates
        The table of what was tried.
    gate
        Clauses and outcome.
    metrics
        Of the judged fit on the holdout: ``{"metric", "value", "loss", "n", "ci", "block", "baseline"}``, the last as
        `service.learning.baseline` makes it, None where that failed.
    reference_after, reference_until
        Rows with `reference_after` < event time <= `reference_until` are what `predictor` learned from: the reference
        of its checks. None: from the first row on.
    holdout_after, holdout_until
        The stretch on which it was judged, in the same form.
    window
        The chosen history.
    figures
        What else was computed on the way, as JSON: the comparison, slices, the old regime, calibration.
    """

    predictor: Predictor
    candidates: tuple[Candidate, ...]
    gate: GateReport
    metrics: dict[str, Any]
    reference_after: datetime | None
    reference_until: datetime
    holdout_after: datetime
    holdout_until: datetime
    window: str
    fit_rows: int
    parameters: dict[str, Any]
    seed: int
    figures: dict[str, Any]

    @property
    def learned_until(self) -> datetime:
        """Newest event time that the challenger learned from."""
        return self.reference_until


_ALONE = Circumstances()


def _silent(step: str, done: int, of: int, words: str) -> None:
    """Say nothing."""


def challenge(
    spec: ModelSpec,
    schema: Schema,
    rows: pd.DataFrame,
    *,
    champion: Predictor | None,
    until: datetime,
    seed: int,
    progress: Progress = _silent,
    arrivals: pd.DataFrame | None = None,
    circumstances: Circumstances = _ALONE,
) -> Challenge:
    """Return a challenger, judged.

    Parameters
    ----------
    spec, schema
        The model.
    rows
        Labelled rows in canonical columns, any order; not changed.
    champion
        Is scored now on the same rows; None for the first version.
    until
        Rows after it are not looked at.
    seed
        Of fits and bootstrap.
    progress
        Is told ``(step, done, of, words)``.
    arrivals
        When the labels of the newest answered rows came; see `service.learning.ripeness.maturity_of`. Left out: all
        labels count as complete, and nothing lies between what is fitted on and the holdout.
    circumstances
        What the gate is told beside the rows.

    Raises
    ------
    TrainingFailed
        With the reason ``too_few_labels`` when there is not enough to fit or to judge (more labels may help), else
        with what went wrong.
    """
    require(schema, rows)
    maturity = maturity_of(arrivals)
    ends = until if maturity.until is None else min(until, maturity.until)
    known = between(rows[rows[LABEL].notna()], after=None, until=ends)
    known = known.sort_values(EVENT_TIME, kind="stable", ignore_index=True)
    cut = _split(spec, known, maturity, arrivals)
    fitted, table = fit_candidates(spec, schema, cut.past, cut.holdout, seed=seed, progress=progress)
    if not fitted:
        notes = "; ".join(f"{row.window}: {row.note}" for row in table)
        msg = f"no candidate could be fitted ({notes})"
        raise TrainingFailed(msg, reason="train_error")
    chosen = choose(fitted)
    table = [replace(row, chosen=row.window == chosen.window) for row in table]
    progress("evaluating", 0, 1, "challenger and champion answer the same rows")
    metric = metric_of(spec.metric, chosen.predictor.schema)
    seen: list[Evidence] = []

    def evidence() -> Evidence:
        seen.append(_evidence(spec, metric, chosen, cut, champion=champion))
        return seen[0]

    judgement = judge_challenger(
        spec.gate,
        metric,
        evidence,
        unopposed=champion is None,
        seed=seed,
        circumstances=circumstances,
    )
    report, promoted, learned = judgement.report, chosen.predictor, chosen.rows
    if spec.training.refit and report.outcome is Outcome.PASS:
        progress("training", len(table), len(table), f"fitting again on {chosen.window} with the holdout")
        report, promoted, learned = _refitted(spec, schema, chosen, cut, known, report, seed=seed)
    return Challenge(
        predictor=promoted,
        candidates=tuple(table),
        gate=report,
        metrics=judgement.metrics | {"baseline": _baseline(spec, metric, chosen, cut.holdout)},
        reference_after=start_of(chosen.window, promoted.learned_until or cut.stretch.until),
        reference_until=promoted.learned_until or cut.stretch.until,
        holdout_after=cut.stretch.after,
        holdout_until=cut.stretch.until,
        window=chosen.window,
        fit_rows=len(learned),
        parameters=parameters(promoted.estimator),
        seed=seed,
        figures=_finite(judgement.figures | (portrait(chosen.predictor.schema, seen[0]) if seen else {})),
    )


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """What is known, cut in two."""

    past: pd.DataFrame
    """To fit on."""
    holdout: pd.DataFrame
    """To judge on: strictly later, and seen by no candidate."""
    oldest: pd.DataFrame
    """The old regime; empty where what is known does not reach back far enough to have one."""
    stretch: Stretch


def _split(spec: ModelSpec, known: pd.DataFrame, maturity: Maturity, arrivals: pd.DataFrame | None) -> _Cut:
    if known.empty:
        msg = "there is no labelled row to learn from"
        raise TrainingFailed(msg, reason="too_few_labels", rows=0)
    first, end = known[EVENT_TIME].iloc[0].to_pydatetime(), known[EVENT_TIME].iloc[-1].to_pydatetime()
    length, embargo = parse_duration(spec.training.holdout), embargo_of(spec.training, maturity)
    after = end - length
    past = between(known, after=None, until=after - embargo)
    if len(past) < spec.training.min_rows:
        gap = f" and the {format_duration(embargo)} that labels take" if embargo else ""
        msg = (
            f"{len(past)} labelled rows lie before the holdout of {format_duration(length)}{gap}; "
            f"{spec.training.min_rows} are needed to learn from"
        )
        raise TrainingFailed(msg, reason="too_few_labels", rows=len(past))
    answered, labelled = coverage(arrivals, after=after, until=end)
    # Another regime is at least as far away from the holdout as the holdout is long.
    is_old = first + length <= after - embargo - length
    return _Cut(
        past=past,
        holdout=between(known, after=after, until=None),
        oldest=between(known, after=None, until=first + length) if is_old else known.iloc[:0],
        stretch=Stretch(
            after=after,
            until=end,
            learned_until=past[EVENT_TIME].iloc[-1].to_pydatetime(),
            embargo=embargo,
            maturity=maturity,
            answered=answered,
            labelled=labelled,
        ),
    )


def _refitted(
    spec: ModelSpec,
    schema: Schema,
    chosen: Fitted,
    cut: _Cut,
    known: pd.DataFrame,
    report: GateReport,
    *,
    seed: int,
) -> tuple[GateReport, Predictor, pd.DataFrame]:
    """Return what is to be promoted: the chosen recipe fitted with the holdout, if that still is the same model."""
    with_holdout = between(known, after=start_of(chosen.window, cut.stretch.until), until=None)
    refitted, _ = fit(spec, schema, with_holdout, seed=seed, half_life=chosen.half_life)
    report, agrees = judge_refit(
        report, lambda: _refit_evidence(chosen, cut.past, refitted), unopposed=report.unopposed
    )
    return (report, refitted, with_holdout) if agrees else (report, chosen.predictor, chosen.rows)


def _evidence(spec: ModelSpec, metric: Metric, chosen: Fitted, cut: _Cut, *, champion: Predictor | None) -> Evidence:
    schema, holdout = chosen.predictor.schema, cut.holdout
    evidence = Evidence(
        truth=labels(schema, holdout),
        challenger=chosen.answers,
        trivial=_constant(metric, schema, labels(schema, chosen.rows), len(holdout)),
        times=holdout[EVENT_TIME].to_numpy(dtype="datetime64[us]"),
        stretch=cut.stretch,
    )
    if champion is None:
        return evidence
    learned = champion.learned_until
    return replace(
        evidence,
        champion=_aligned(answers_of(champion, holdout), champion.schema, schema),
        fresh=np.ones(len(holdout), dtype=bool) if learned is None else (holdout[EVENT_TIME] > learned).to_numpy(),
        slices=slices_of(spec.gate, schema, holdout),
        old=_old_regime(spec, metric, chosen, cut.oldest, champion=champion),
    )


def _baseline(spec: ModelSpec, metric: Metric, chosen: Fitted, holdout: pd.DataFrame) -> dict[str, Any] | None:
    try:
        return baseline(
            metric,
            window=parse_window(spec.drift.window),
            times=holdout[EVENT_TIME],
            truth=labels(chosen.predictor.schema, holdout),
            answers=chosen.answers,
        )
    except Exception:  # noqa: BLE001  it helps later checks; a run that is good in all else must not fail of it
        return None


def _old_regime(
    spec: ModelSpec, metric: Metric, chosen: Fitted, oldest: pd.DataFrame, *, champion: Predictor
) -> OldRegime | None:
    if len(oldest) < spec.gate.min_rows:
        return None
    schema, truth = chosen.predictor.schema, labels(chosen.predictor.schema, oldest)
    return OldRegime(
        after=oldest[EVENT_TIME].iloc[0].to_pydatetime(),
        until=oldest[EVENT_TIME].iloc[-1].to_pydatetime(),
        truth=truth,
        champion=_aligned(answers_of(champion, oldest), champion.schema, schema),
        challenger=answers_of(chosen.predictor, oldest),
        trivial=_constant(metric, schema, truth, len(oldest)),
        learned=bool(chosen.rows[EVENT_TIME].iloc[0] <= oldest[EVENT_TIME].iloc[-1]),
    )


def _finite(value: Any) -> Any:
    """Return figures as a database takes them: what is no number there is none."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refit_evidence(chosen: Fitted, past: pd.DataFrame, refitted: Predictor) -> RefitEvidence:
    end = past[EVENT_TIME].iloc[-1].to_pydatetime()
    older = between(past, after=end - _AGREEMENT_ROWS, until=None)
    return RefitEvidence(
        truth=labels(chosen.predictor.schema, older),
        judged=answers_of(chosen.predictor, older),
        refitted=answers_of(refitted, older),
    )


def _constant(metric: Metric, schema: Schema, learned: Any, n: int) -> Answers:
    """Return the best answer that looks at no feature."""
    nothing = np.zeros((len(learned), 1))
    if schema.task == "regression":
        dummy: Any = DummyRegressor(strategy="median" if metric.wants_median else "mean").fit(nothing, learned)
        return Answers(output=np.asarray(dummy.predict(np.zeros((n, 1))), dtype=np.float64))
    dummy = DummyClassifier(strategy="prior").fit(nothing, learned)
    prior = dict(zip(dummy.classes_.tolist(), dummy.class_prior_.tolist(), strict=True))
    probabilities = np.tile([prior.get(label, 0.0) for label in schema.classes], (n, 1))
    return Answers(output=dummy.predict(np.zeros((n, 1))), probabilities=probabilities)


def _aligned(answers: Answers, own: Schema, common: Schema) -> Answers:
    """Return `answers` with the probabilities' columns in the order of `common`'s classes.

    Two versions may have met different classes; one that a version has never met had no chance with it.
    """
    if answers.probabilities is None or own.classes == common.classes:
        return answers
    place = {label: column for column, label in enumerate(own.classes)}
    columns = [
        answers.probabilities[:, place[label]] if label in place else np.zeros(len(answers.output))
        for label in common.classes
    ]
    return Answers(output=answers.output, probabilities=np.column_stack(columns))
