"""The rules of the retrain decision, one by one: what calls for a run, and what stands in its way, with the figures."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from service.domain.budget import parse_budget
from service.domain.check import Verdict
from service.domain.duration import format_duration, parse_duration
from service.domain.policy import Retrain
from service.domain.run import Trigger
from service.domain.situation import Situation

__all__ = ["Rule", "causes", "guard", "is_tripped", "obstacles", "retry_of"]


_SEVERE = 5.0
"""A loss so many times as far above the reference as is tolerated waits for `retry` alone. A world that turned round in
the middle of the rows that were fitted on let two runs be turned down; the third would have waited for four weeks."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule, applied to one situation."""

    kind: Literal["guard", "cause", "obstacle"]
    name: str
    met: bool
    """A guard or an obstacle that is met stops the run; a cause that is met calls for one."""
    reason: str
    """In words: as part of the decision's sentence where it is met, why it is not where it is not."""
    figures: dict[str, Any] = field(default_factory=dict)
    trigger: Trigger | None = None
    """Of a cause."""
    code: str = ""
    """Of an obstacle: the slug of a decision that it stopped."""


def guard(s: Situation) -> Rule:
    """Return the rule that comes before all others: nothing is learned from broken data."""
    words = "the data are in quarantine: nothing is learned from them" if s.quarantined else "the data are not broken"
    return Rule(kind="guard", name="quarantined", code="quarantined", met=s.quarantined, reason=words)


def causes(policy: Retrain, s: Situation) -> tuple[Rule, ...]:
    """Return what may call for a run, in the order in which it is asked; the first that is met gives the trigger."""
    return (_performance(policy, s), _estimate(policy, s), _drift(policy, s), _age(policy, s))


def obstacles(policy: Retrain, s: Situation, trigger: Trigger) -> tuple[Rule, ...]:
    """Return what may stand in the way of a run with that trigger; the first that is met names the decision."""
    run = f"run {s.active_run} is under way"
    labels = f"{s.new_labels} labels are new, {policy.min_labels} are needed"
    counts = {"new_labels": s.new_labels, "needed": policy.min_labels}
    few, cooldown = s.new_labels < policy.min_labels, parse_duration(policy.cooldown)
    return (
        _obstacle("mode_off", "the mode is off", f"the mode is {policy.mode}", met=policy.mode == "off"),
        _obstacle("frozen", "the model is frozen", "the model is not frozen", met=s.frozen),
        _obstacle("paused", "its schedule is paused", "its schedule is not paused", met=s.paused),
        _obstacle("run_in_progress", run, "no run is under way", met=s.active_run is not None),
        _obstacle("few_labels", f"only {labels}", labels, met=few, **counts),
        _pause(s, "cooldown", "the cooldown after a promotion", s.promoted_at, cooldown),
        _pause(s, "rollback", "twice the cooldown, after a rollback", s.rolled_back_at, 2 * cooldown),
        _retry(policy, s, trigger),
        _budget(policy, s),
    )


def retry_of(policy: Retrain, rejected_in_a_row: int) -> timedelta:
    """Return the pause after a run that promoted nothing: it grows with each rejection after the first, to the cap."""
    base, cap = parse_duration(policy.retry), parse_duration(policy.retry_cap)
    grown: timedelta = base * policy.backoff ** min(max(rejected_in_a_row - 1, 0), 16)
    return min(grown, max(base, cap))


def is_tripped(policy: Retrain, s: Situation) -> bool:
    """Return whether runs have broken so often that only a person starts one."""
    return s.breaker or s.failures_in_a_row >= policy.breaker


def _performance(policy: Retrain, s: Situation) -> Rule:
    met = s.loss is not None and s.reference_loss is not None and s.degraded_in_a_row >= policy.confirm
    if s.loss is None or s.reference_loss is None:
        words = "too few labels have arrived to know the realised loss, or there is nothing to compare it with"
    else:
        rise = s.loss / s.reference_loss - 1 if s.reference_loss > 0 else float("inf")
        side = f"{rise:.0%} above" if rise >= 0 else f"{-rise:.0%} below"
        words = f"realised loss {s.loss:.4g} is {side} the reference {s.reference_loss:.4g}"
        if met:
            words += f" ({s.loss_reason})" if s.loss_reason else ""
        elif s.degraded_in_a_row:
            words += f", in {s.degraded_in_a_row} of {policy.confirm} checks that confirm it"
        else:
            words += f": it does not count as worse{f' ({s.loss_reason})' if s.loss_reason else ''}"
    figures = {
        "loss": s.loss,
        "reference_loss": s.reference_loss,
        "tolerated": policy.degradation,
        "in_a_row": s.degraded_in_a_row,
        "needed": policy.confirm,
    }
    return _cause("performance", words, met=met, trigger=Trigger.PERFORMANCE, **figures)


def _estimate(policy: Retrain, s: Situation) -> Rule:
    estimate = s.estimate
    if estimate is None:
        words = "performance without labels was not estimated"
        return _cause("estimate", words, met=False, trigger=Trigger.ESTIMATE)
    met = estimate.valid and estimate.worse and s.estimated_worse_in_a_row >= policy.confirm
    figures = {
        "loss": estimate.loss,
        "reference_loss": estimate.reference_loss,
        "low": estimate.low,
        "high": estimate.high,
        "valid": estimate.valid,
        "in_a_row": s.estimated_worse_in_a_row,
        "needed": policy.confirm,
    }
    if not estimate.valid:
        words = f"the estimate is not valid: {estimate.reason}"
    elif not estimate.worse:
        words = f"estimated loss {estimate.loss:.4g} does not count as worse: {estimate.reason}"
    else:
        words = (
            f"estimated loss {estimate.loss:.4g} ({estimate.low:.4g} to {estimate.high:.4g}) is above the reference "
            f"{estimate.reference_loss:.4g}"
        )
        if not met:
            words += f", in {s.estimated_worse_in_a_row} of {policy.confirm} checks that confirm it"
    return _cause("estimate", words, met=met, trigger=Trigger.ESTIMATE, **figures)


def _drift(policy: Retrain, s: Situation) -> Rule:
    needed = max(policy.confirm, s.drift_confirm)
    labelled = s.labels_since_drift
    figures = {
        "in_a_row": s.drifted_in_a_row,
        "needed": needed,
        "state": s.drift_state,
        "labels_since": labelled,
        "labels_needed": policy.min_labels,
        "on_drift": policy.on_drift,
    }
    row = f"{s.drifted_in_a_row} drifted windows in a row"
    if s.verdict is not Verdict.DRIFTED:
        words, met = "the window has not drifted", False
    elif not policy.on_drift:
        words, met = f"{row}, but drift alone starts no run here (on_drift is false)", False
    elif s.drift_state != "calibrated":
        words, met = f"{row}, but the drift test is not calibrated: such drift alone starts no run", False
    elif s.drifted_in_a_row < needed:
        words, met = f"{row}; {needed} confirm it", False
    elif labelled is None or labelled < policy.min_labels:
        words, met = (
            f"{row}, but only {labelled or 0} rows after it are labelled, {policy.min_labels} are needed",
            False,
        )
    else:
        more = f" ({s.drift_reason})" if s.drift_reason else ""
        words, met = f"{row}, {labelled} rows after the first are labelled{more}", True
    return _cause("drift", words, met=met, trigger=Trigger.DRIFT, **figures)


def _age(policy: Retrain, s: Situation) -> Rule:
    since = s.promoted_at or s.learned_until
    if policy.max_age is None or since is None:
        return _cause("age", "no age is set, or it is not known", met=False, trigger=Trigger.AGE)
    age, limit = s.now - since, parse_duration(policy.max_age)
    figures = {"age": format_duration(age), "limit": format_duration(limit)}
    met = age >= limit
    words = f"the champion has been there for {format_duration(age)}"
    words += "" if met else f"; {format_duration(limit)} call for a run"
    return _cause("age", words, met=met, trigger=Trigger.AGE, **figures)


def _retry(policy: Retrain, s: Situation, trigger: Trigger) -> Rule:
    base, pause = parse_duration(policy.retry), retry_of(policy, s.rejected_in_a_row)
    news = _news(policy, s, trigger) if pause > base else None
    name = "the pause after the last run"
    if pause > base and news is None:
        name += f", grown by {s.rejected_in_a_row} that promoted nothing"
    rule = _pause(s, "retry", name, s.last_run_ended, base if news else pause)
    if news is None:
        return rule
    words = rule.reason if rule.met else f"{rule.reason}; it is not {format_duration(pause)}, for {news}"
    return replace(rule, reason=words, figures={**rule.figures, "news": news})


def _news(policy: Retrain, s: Situation, trigger: Trigger) -> str | None:
    """Return what is known now that was not when the last run was turned down; None if nothing is.

    A pause grows because the same question was answered with no again and again. Another question is not that one. And
    a champion that has become useless is asked about each time: what was too new to learn from is older a week later.
    """
    if trigger is Trigger.PERFORMANCE and s.loss is not None and s.reference_loss:
        rise = s.loss / s.reference_loss - 1
        if rise > _SEVERE * policy.degradation:
            return f"a loss {rise:.0%} above the reference costs more than a run"
    if s.rejected_trigger is None:
        return None
    if trigger is not s.rejected_trigger and trigger is not Trigger.AGE:  # that a champion grows old is no news
        return f"the last one was turned down for another cause ({s.rejected_trigger.value})"
    if trigger is Trigger.PERFORMANCE and s.loss is not None and s.rejected_loss is not None:
        limit = s.rejected_loss * (1 + policy.degradation)
        if s.loss > limit:
            return f"the loss has risen further, from {s.rejected_loss:.4g} to {s.loss:.4g}"
    return None


def _budget(policy: Retrain, s: Situation) -> Rule:
    budget = parse_budget(policy.budget)
    spent = budget.spent(s.started, now=s.now)
    words = (
        f"the budget of {budget} is spent" if spent >= budget.count else f"{spent} of the budget of {budget} are spent"
    )
    return _obstacle("budget", words, words, met=spent >= budget.count, spent=spent, budget=str(budget))


def _pause(s: Situation, name: str, words: str, since: datetime | None, pause: timedelta) -> Rule:
    met = since is not None and s.now < since + pause
    length = format_duration(pause)
    figures = {"since": since, "pause": length, "ends": None if since is None else since + pause}
    free = f"{words}, {length}, is over" if since is not None else f"{words}: there was none"
    return Rule(
        kind="obstacle",
        name=name,
        code="cooldown",
        met=met,
        reason=f"{words}, {length}, is not over" if met else free,
        figures=figures,
    )


def _obstacle(name: str, reason: str, free: str, *, met: bool, **figures: Any) -> Rule:
    return Rule(kind="obstacle", name=name, code=name, met=met, reason=reason if met else free, figures=figures)


def _cause(name: str, reason: str, *, met: bool, trigger: Trigger, **figures: Any) -> Rule:
    return Rule(kind="cause", name=name, met=met, reason=reason, figures=figures, trigger=trigger)
