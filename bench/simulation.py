"""A stream of labelled rows under a simulated clock, and the policies that are tried on it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.check import Examination, Verdict
from service.domain.decision import Action, Decision, decide, degraded_of
from service.domain.duration import parse_duration, parse_window
from service.domain.errors import TrainingFailed
from service.domain.gate import Circumstances, Outcome, Use
from service.domain.probation import Evidence, Step, Watch, outcome_of
from service.domain.run import Trigger
from service.domain.situation import Situation
from service.domain.spec import ModelSpec, Schema
from service.learning.calibration import Calibration
from service.learning.examine import examine, reference_rows
from service.learning.frames import EVENT_TIME, LABEL, OUTPUT, between, canonical, labels
from service.learning.metric import Metric, metric_of
from service.learning.package import package, predictor_of
from service.learning.performance import kappa_against_no_change
from service.learning.predictor import Predictor
from service.learning.probation import compare
from service.learning.schema import infer
from service.learning.train import Challenge, challenge
from service.learning.yardstick import calibrated

__all__ = ["Stream", "ours"]

WEEK = timedelta(days=7)
COUNTS = (
    "promotions",
    "retrains",
    "rejected",
    "inconclusive",
    "failed",
    "kept",
    "unproven",
    "rolled_back",
    "checks",
    "quarantined",
    "drifted",
)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A champion with all that changes with it."""

    number: int
    predictor: Predictor
    reference: pd.DataFrame
    reference_loss: float | None
    baseline: dict[str, Any] | None
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Rows in time order, of which the first stretch is known from the start and the others come week by week."""

    spec: ModelSpec
    schema: Schema
    rows: pd.DataFrame
    start: datetime
    """End of the stretch that version 1 learns from: all its labels are known."""
    delay: timedelta
    metric: Metric
    seed: int = 0

    @staticmethod
    def of(spec: ModelSpec, source: pd.DataFrame, *, delay: str, weeks: int | None) -> "Stream":
        """Return the stream of a model's source; `weeks` cuts it off after so many. A delay of ``0`` is none."""
        schema = infer(spec, source)
        rows = canonical(spec, schema, source)
        start = rows[EVENT_TIME].iloc[0].to_pydatetime() + parse_duration(spec.training.initial or "56d")
        if weeks is not None:
            rows = between(rows, after=None, until=start + weeks * WEEK)
        return Stream(
            spec=spec,
            schema=schema,
            rows=rows,
            start=start,
            delay=timedelta(0) if delay == "0" else parse_duration(delay),
            metric=metric_of(spec.metric, schema),
        )

    @property
    def end(self) -> datetime:
        """Newest event time."""
        moment: datetime = self.rows[EVENT_TIME].iloc[-1].to_pydatetime()
        return moment

    @property
    def served_rows(self) -> int:
        """Rows that are answered."""
        return len(between(self.rows, after=self.start, until=None))

    @property
    def weeks(self) -> int:
        """Weeks that are answered, the last one perhaps in part."""
        return -(-(self.end - self.start) // WEEK)

    def known_at(self, now: datetime) -> pd.DataFrame:
        """Return the rows whose labels are known at `now`."""
        return between(self.rows, after=None, until=max(self.start, now - self.delay))

    def first_version(self) -> Challenge:
        """Return version 1."""
        return challenge(
            self.spec, self.schema, self.known_at(self.start), champion=None, until=self.start, seed=self.seed
        )

    def scored(self, policy: str, output: NDArray[Any], **counts: int | None) -> dict[str, Any]:
        """Return the figures of a policy that gave `output` to the answered rows."""
        served = between(self.rows, after=self.start, until=None)
        truth = labels(self.schema, served)
        losses = self.metric.row_losses(truth, output)
        if losses is None:
            msg = f"{self.metric.name} is no mean over rows"
            raise ValueError(msg)
        # A row at the very end of a week belongs to it: weeks are (start, start + 7 d].
        place = -(-(served[EVENT_TIME] - self.start) // WEEK)
        weekly = pd.Series(losses).groupby(place.to_numpy()).mean()
        kappa = None
        if self.schema.task == "classification":
            kappa = kappa_against_no_change(pd.Series(truth), pd.Series(output))
        return {
            "policy": policy,
            "weekly": self.metric.as_value(float(weekly.mean())),
            "overall": self.metric.as_value(float(losses.mean())),
            "kappa": kappa,
            "by_week": [round(self.metric.as_value(float(value)), 4) for value in weekly],
            **{name: counts.get(name) for name in COUNTS},
        }


def ours(stream: Stream, first: Challenge) -> tuple[dict[str, Any], list[str]]:
    """Run the service's own loop: examine, decide, train, judge, promote."""
    loop = _Loop(stream, first)
    now, every = stream.start, _every(stream.spec)
    while now < stream.end:
        loop.serve(after=now, until=now + every)
        now += every
        # The last stretch may be cut off; a check after the last row would change nothing.
        if now < stream.end:
            loop.check(now)
    return stream.scored("Retrue", loop.output(), **loop.counts), loop.story


def _every(spec: ModelSpec) -> timedelta:
    if spec.drift.every is not None:
        return parse_duration(spec.drift.every)
    return parse_window(spec.drift.window).duration or WEEK


class _Loop:
    """The state that the service keeps in its database and its lake."""

    def __init__(self, stream: Stream, first: Challenge) -> None:
        self._stream = stream
        self._spec = stream.spec
        self._parts: list[pd.DataFrame] = []
        self.counts = dict.fromkeys(COUNTS, 0)
        self.story: list[str] = []
        self._degraded = self._drifted = self._rejected = 0
        self._estimated_worse = 0
        self._last_run: datetime | None = None
        self._started: tuple[datetime, ...] = ()
        self._turned_down: tuple[Trigger | None, float | None] = (None, None)
        self._drift_began: datetime | None = None
        self._cutoff = first.learned_until
        self._versions = 0
        self._uses: list[Use] = []
        self._champion: Standing
        self._kept: Standing | None = None
        self._watch: Watch | None = None
        self._rolled_back: datetime | None = None
        self._promote(first, at=stream.start)

    def output(self) -> NDArray[Any]:
        """Return what was answered, in time order."""
        answers: NDArray[Any] = np.concatenate([part[OUTPUT].to_numpy() for part in self._parts])
        return answers

    def serve(self, *, after: datetime, until: datetime) -> None:
        """Let the champion answer a stretch."""
        rows = between(self._stream.rows, after=after, until=until)
        if rows.empty:
            return
        outputs, probabilities = self._champion.predictor.answer(rows)
        answered = rows.assign(output=outputs, version=self._champion.number)
        if probabilities is not None:
            answered["probabilities"] = list(probabilities)
        self._parts.append(answered)

    def check(self, now: datetime) -> None:
        """Examine the newest window, decide, and do what was decided."""
        seen = self._examined(now)
        self.counts["checks"] += 1
        self.counts["quarantined"] += seen.verdict is Verdict.QUARANTINED
        self.counts["drifted"] += seen.verdict is Verdict.DRIFTED
        self._degraded = self._degraded + 1 if degraded_of(self._spec.retrain, seen.performance) else 0
        self._drifted = self._drifted + 1 if seen.verdict is Verdict.DRIFTED else 0
        if seen.verdict is not Verdict.DRIFTED:
            self._drift_began = None
        elif self._drift_began is None:
            self._drift_began = now - (parse_window(self._spec.drift.window).duration or WEEK)
        estimate = None if seen.performance is None else seen.performance.estimate
        is_worse = estimate is not None and estimate.valid and estimate.worse
        self._estimated_worse = self._estimated_worse + 1 if is_worse else 0
        situation = self._situation(now, seen)
        decision = decide(self._spec.retrain, situation)
        if seen.verdict is not Verdict.QUARANTINED:
            self._look_at_probation(now)
        if decision.action is Action.RETRAIN:
            self._started = (now, *self._started)
            self._turned_down = (None, None)
            self._run(now, decision)
            if self._rejected > situation.rejected_in_a_row:
                self._turned_down = (decision.trigger, situation.loss)

    def _examined(self, now: datetime) -> Examination:
        length = parse_window(self._spec.drift.window)
        recent = pd.concat(self._parts[-8:])
        window = (
            between(recent, after=now - length.duration, until=now)
            if length.duration is not None
            else recent.tail(length.rows or 0)
        )
        return examine(
            self._champion.predictor.schema,
            quality=self._spec.quality,
            drift=self._spec.drift,
            metric=self._spec.metric,
            reference=self._champion.reference,
            window=window,
            answered=self._own(recent, now),
            reference_loss=self._champion.reference_loss,
            baseline=self._champion.baseline,
            version=self._champion.number,
            tolerated=self._spec.retrain.degradation,
            calibration=self._champion.calibration,
        )

    def _own(self, answered: pd.DataFrame, now: datetime) -> pd.DataFrame:
        """Return what the champion answered, with the labels that are known now."""
        own = answered[answered["version"] == self._champion.number]
        unknown = own[EVENT_TIME] > pd.Timestamp(now - self._stream.delay)
        observed = own[EVENT_TIME] + pd.Timedelta(self._stream.delay)
        return own.assign(**{LABEL: own[LABEL].where(~unknown), "observed_at": observed})

    def _look_at_probation(self, now: datetime) -> None:
        """Keep the new champion, watch on, or take it back."""
        if self._watch is None or self._kept is None or self._watch.began_event_time is None:
            return
        policy, schema = self._spec.probation, self._champion.predictor.schema
        since = between(pd.concat(self._parts[-8:]), after=self._watch.began_event_time, until=now)
        compared = compare(
            schema, self._spec.metric, self._own(since, now), self._kept.predictor, confidence=policy.confidence
        )
        outcome = outcome_of(policy, Evidence(event_time=now, comparison=compared), self._watch)
        if outcome.step is not Step.WATCHING:
            self.story.append(f"{now:%Y-%m-%d} version {self._champion.number} {outcome.step}: {outcome.reason}")
        if outcome.step is Step.EXTEND:
            self._watch = replace(self._watch, extended=outcome.extended)
        elif outcome.step is Step.KEPT:
            self.counts["unproven" if outcome.code == "unproven" else "kept"] += 1
            self._watch = None
        elif outcome.step is Step.BREACH:
            self.counts["rolled_back"] += 1
            self._champion, self._watch = self._kept, None
            self._promoted_at = self._rolled_back = self._last_run = now
            self._degraded = self._drifted = self._estimated_worse = 0
            self._drift_began = None

    def _situation(self, now: datetime, seen: Examination) -> Situation:
        performance = seen.performance
        known = self._stream.known_at(now)
        return Situation(
            now=now,
            verdict=seen.verdict,
            quarantined=seen.verdict is Verdict.QUARANTINED,
            loss=None if performance is None else performance.loss,
            reference_loss=self._champion.reference_loss,
            degraded_in_a_row=self._degraded,
            drifted_in_a_row=self._drifted,
            new_labels=len(between(known, after=self._cutoff, until=None)),
            learned_until=self._champion.predictor.learned_until,
            last_run_ended=self._last_run,
            rejected_in_a_row=self._rejected,
            active_run=None,
            promoted_at=self._promoted_at,
            rolled_back_at=self._rolled_back,
            loss_reason="" if performance is None else performance.reason,
            estimate=None if performance is None else performance.estimate,
            estimated_worse_in_a_row=self._estimated_worse,
            drift_state=None if seen.drift is None else seen.drift.state,
            drift_confirm=self._spec.drift.confirm,
            labels_since_drift=None
            if self._drift_began is None
            else len(between(known, after=self._drift_began, until=None)),
            started=self._started,
            rejected_trigger=self._turned_down[0],
            rejected_loss=self._turned_down[1],
        )

    def _run(self, now: datetime, decision: Decision) -> None:
        self.counts["retrains"] += 1
        known = self._stream.known_at(now)
        self._last_run, self._cutoff = now, known[EVENT_TIME].iloc[-1].to_pydatetime()
        try:
            challenger = challenge(
                self._spec,
                self._stream.schema,
                known,
                champion=self._champion.predictor,
                until=now,
                seed=self._stream.seed,
                arrivals=self._arrivals(now),
                circumstances=Circumstances(uses=tuple(self._uses)),
            )
        except TrainingFailed as error:
            self.counts["failed"] += 1
            self.story.append(f"{now:%Y-%m-%d} {decision.reason}: failed, {error}")
            return
        outcome = challenger.gate.outcome
        use = Use(run=f"{now:%Y-%m-%d}", after=challenger.holdout_after, until=challenger.holdout_until)
        self._uses.append(use)
        self.story.append(
            f"{now:%Y-%m-%d} {decision.reason}: {challenger.window}, {outcome.value}: {challenger.gate.reason}"
        )
        if outcome is Outcome.PASS:
            self.counts["promotions"] += 1
            self._rejected = 0
            self._promote(challenger, at=now)
        elif outcome is Outcome.FAIL:
            self.counts["rejected"] += 1
            self._rejected += 1
        else:
            self.counts["inconclusive"] += 1

    def _arrivals(self, now: datetime) -> pd.DataFrame:
        """Return when the labels of the newest answered rows came, as the service reads it from its lake."""
        end = now - self._stream.delay
        times = between(
            self._stream.rows,
            after=max(end - parse_duration(self._spec.training.holdout), self._stream.start),
            until=end,
        )[[EVENT_TIME]]
        return times.assign(observed_at=times[EVENT_TIME] + pd.Timedelta(self._stream.delay))

    def _promote(self, challenger: Challenge, *, at: datetime) -> None:
        """Pack the challenger and load it back, as the service does, and let it answer from now on."""
        known = self._stream.known_at(at)
        learned = between(known, after=challenger.reference_after, until=challenger.reference_until)
        holdout = between(known, after=challenger.holdout_after, until=challenger.holdout_until)
        packed = package(challenger.predictor, learned)
        self._versions += 1
        loaded = predictor_of(
            packed.artifact, packed.manifest, version=self._versions, learned_until=challenger.learned_until
        )
        if self._versions > 1 and self._watch is None:
            self._kept = self._champion  # what a champion on probation is compared with, and goes back to
        self._champion = Standing(
            number=self._versions,
            predictor=loaded,
            reference=reference_rows(self._spec.drift, learned, loaded),
            reference_loss=challenger.metrics["loss"],
            baseline=challenger.metrics.get("baseline"),
            calibration=calibrated(self._spec, loaded, learned, holdout=holdout, seed=self._stream.seed),
        )
        self._promoted_at, self._rolled_back = at, None
        if self._kept is not None and self._spec.probation.duration is not None:
            self._watch = Watch(began_at=at, began_event_time=at, now=at)
        self._degraded = self._drifted = self._estimated_worse = 0
        self._drift_began = None
