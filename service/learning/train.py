"""Training: candidates, the choice between them, the gate, the refit. It makes challengers, never champions."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from sklearn.dummy import DummyClassifier, DummyRegressor

from service.domain.duration import format_duration, parse_duration, parse_window
from service.domain.errors import TrainingFailed
from service.domain.gate import GateReport, Outcome
from service.domain.spec import ModelSpec, Schema
from service.learning.baseline import baseline
from service.learning.candidates import Candidate, Fitted, Progress, answers_of, choose, fit, fit_candidates, start_of
from service.learning.frames import EVENT_TIME, LABEL, between, labels, require
from service.learning.gate import Evidence, RefitEvidence, judge_challenger, judge_refit
from service.learning.lineage import parameters
from service.learning.metric import Metric, metric_of
from service.learning.predictor import Predictor
from service.learning.resampling import Answers

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
        The chosen length of history.
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

    @property
    def learned_until(self) -> datetime:
        """Newest event time that the challenger learned from."""
        return self.reference_until


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

    Raises
    ------
    TrainingFailed
        With the reason ``too_few_labels`` when there is not enough to fit or to judge (more labels may help), else
        with what went wrong.
    """
    require(schema, rows)
    known = between(rows[rows[LABEL].notna()], after=None, until=until)
    known = known.sort_values(EVENT_TIME, kind="stable", ignore_index=True)
    past, holdout, after, end = _split(spec, known)
    fitted, table = fit_candidates(spec, schema, past, holdout, seed=seed, progress=progress)
    if not fitted:
        notes = "; ".join(f"{row.window}: {row.note}" for row in table)
        msg = f"no candidate could be fitted ({notes})"
        raise TrainingFailed(msg, reason="train_error")
    chosen = choose(fitted)
    table = [replace(row, chosen=row.window == chosen.window) for row in table]
    progress("evaluating", 0, 1, "challenger and champion answer the same rows")
    metric = metric_of(spec.metric, chosen.predictor.schema)
    judgement = judge_challenger(
        spec.gate,
        metric,
        lambda: _evidence(metric, chosen, holdout, champion=champion),
        unopposed=champion is None,
        seed=seed,
    )
    report, promoted, learned = judgement.report, chosen.predictor, chosen.rows
    if spec.training.refit and report.outcome is Outcome.PASS:
        progress("training", len(table), len(table), f"fitting again on {chosen.window} with the holdout")
        with_holdout = between(known, after=start_of(chosen.window, end), until=None)
        refitted, _ = fit(spec, schema, with_holdout, seed=seed)
        report, agrees = judge_refit(
            report, lambda: _refit_evidence(chosen, past, refitted), unopposed=champion is None
        )
        if agrees:
            promoted, learned = refitted, with_holdout
    return Challenge(
        predictor=promoted,
        candidates=tuple(table),
        gate=report,
        metrics=judgement.metrics | {"baseline": _baseline(spec, metric, chosen, holdout)},
        reference_after=start_of(chosen.window, promoted.learned_until or end),
        reference_until=promoted.learned_until or end,
        holdout_after=after,
        holdout_until=end,
        window=chosen.window,
        fit_rows=len(learned),
        parameters=parameters(promoted.estimator),
        seed=seed,
    )


def _split(spec: ModelSpec, known: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, datetime, datetime]:
    """Return the rows to fit on and the newest stretch, which is judged on, with that stretch's ends."""
    if known.empty:
        msg = "there is no labelled row to learn from"
        raise TrainingFailed(msg, reason="too_few_labels", rows=0)
    end = known[EVENT_TIME].iloc[-1].to_pydatetime()
    length = parse_duration(spec.training.holdout)
    after = end - length
    past, holdout = between(known, after=None, until=after), between(known, after=after, until=None)
    if len(past) < spec.training.min_rows:
        msg = (
            f"{len(past)} labelled rows lie before the holdout of {format_duration(length)}; "
            f"{spec.training.min_rows} are needed to learn from"
        )
        raise TrainingFailed(msg, reason="too_few_labels", rows=len(past))
    return past, holdout, after, end


def _evidence(metric: Metric, chosen: Fitted, holdout: pd.DataFrame, *, champion: Predictor | None) -> Evidence:
    schema, truth = chosen.predictor.schema, labels(chosen.predictor.schema, holdout)
    trivial = _constant(metric, schema, labels(schema, chosen.rows), len(holdout))
    if champion is None:
        return Evidence(truth=truth, challenger=chosen.answers, trivial=trivial)
    learned = champion.learned_until
    return Evidence(
        truth=truth,
        challenger=chosen.answers,
        trivial=trivial,
        champion=_aligned(answers_of(champion, holdout), champion.schema, schema),
        fresh=np.ones(len(holdout), dtype=bool) if learned is None else (holdout[EVENT_TIME] > learned).to_numpy(),
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
    output = dummy.predict(np.zeros((n, 1)))
    return Answers(output=output, probabilities=dummy.predict_proba(np.zeros((n, 1))))


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
