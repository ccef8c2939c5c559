"""The retrain decision: what follows from a check. Drift is evidence, not an order."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from service.domain.check import Performance, Verdict
from service.domain.duration import format_duration, parse_duration
from service.domain.policy import Retrain
from service.domain.run import Trigger

__all__ = ["Action", "Decision", "Situation", "decide", "is_degraded", "retry_of"]


class Action(StrEnum):
    """What a check leads to. A closed set: it is a metric label."""

    NONE = "none"
    SUGGEST = "suggest"
    RETRAIN = "retrain"


@dataclass(frozen=True, kw_only=True)
class Situation:
    """All that the decision rests on; stored with it, so that it can be replayed. Times are event time."""

    now: datetime
    """End of the window that was checked."""
    verdict: Verdict
    quarantined: bool
    """Whether the model is in quarantine, this window or an earlier one."""
    loss: float | None
    reference_loss: float | None
    degraded_in_a_row: int
    """Checks one after the other, this one included, with a realised loss above the limit."""
    drifted_in_a_row: int
    """Windows one after the other, this one included, with the verdict `drifted`."""
    new_labels: int
    """Labels that arrived since the last training cut-off, whether that run promoted or not."""
    learned_until: datetime | None
    """Newest event time that the champion learned from."""
    last_run_ended: datetime | None
    """Event time at which the model's last finished run was decided."""
    rejected_in_a_row: int
    active_run: str | None
    promoted_at: datetime | None = None
    """Event time at which the champion was promoted."""
    rolled_back_at: datetime | None = None
    """Event time at which the last champion was taken back; None once a later run has promoted."""
    paused: bool = False
    frozen: bool = False


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do, and why."""

    action: Action
    code: str
    """A slug: the metric label of what was decided or of what stood in the way."""
    reason: str
    trigger: Trigger | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(Decision).dump_python(self, mode="json")
        return plain


def retry_of(policy: Retrain, rejected_in_a_row: int) -> timedelta:
    """Return the pause after a run that promoted nothing: it grows with each rejection after the first, to the cap."""
    base, cap = parse_duration(policy.retry), parse_duration(policy.cooldown_cap)
    grown: timedelta = base * policy.backoff ** min(max(rejected_in_a_row - 1, 0), 16)
    return min(grown, max(base, cap))


def is_degraded(policy: Retrain, performance: Performance | None) -> bool:
    """Return whether realised quality alone would call for a run, were it confirmed.

    Without enough labels, or without a loss to compare with, nothing is known, and nothing is called degraded.
    """
    if performance is None or performance.loss is None or performance.reference_loss is None:
        return False
    return performance.loss > performance.reference_loss * (1 + policy.degradation)


def decide(policy: Retrain, situation: Situation) -> Decision:
    """Return what follows from a check.

    Parameters
    ----------
    policy
        The model's retrain policy.
    situation
        What is known at the end of the window.

    Notes
    -----
    The order matters: broken data comes before everything, so that no other evidence can start a run on it.
    """
    if situation.quarantined:
        return _stay("quarantined", "the data are in quarantine: nothing is learned from them")
    cause = _cause(policy, situation)
    if cause is None:
        return _stay("no_cause", "realised quality and data give no cause for a run")
    trigger, words = cause
    obstacle = _obstacle(policy, situation)
    if obstacle is not None:
        code, why_not = obstacle
        return Decision(action=Action.NONE, code=code, reason=f"{words}, but {why_not}", trigger=trigger)
    if policy.mode == "suggest":
        return Decision(
            action=Action.SUGGEST,
            code="mode_suggest",
            reason=f"{words}; the mode is suggest, so a person decides",
            trigger=trigger,
        )
    return Decision(action=Action.RETRAIN, code=trigger.value, reason=words, trigger=trigger)


def _stay(code: str, reason: str) -> Decision:
    return Decision(action=Action.NONE, code=code, reason=reason)


def _cause(policy: Retrain, s: Situation) -> tuple[Trigger, str] | None:
    if s.loss is not None and s.reference_loss is not None and s.degraded_in_a_row >= policy.confirm:
        rise = s.loss / s.reference_loss - 1 if s.reference_loss > 0 else float("inf")
        return (
            Trigger.PERFORMANCE,
            f"realised loss {s.loss:.4g} is {rise:.0%} above the reference {s.reference_loss:.4g}",
        )
    if policy.on_drift and s.drifted_in_a_row >= 1 and s.verdict is Verdict.DRIFTED:
        return Trigger.DRIFT, f"{s.drifted_in_a_row} drifted windows in a row"
    since = s.promoted_at or s.learned_until
    if policy.max_age is not None and since is not None and s.now - since >= parse_duration(policy.max_age):
        return Trigger.AGE, f"the champion has been there for {format_duration(s.now - since)}"
    return None


def _obstacle(policy: Retrain, s: Situation) -> tuple[str, str] | None:
    if policy.mode == "off":
        return "mode_off", "the mode is off"
    if s.frozen:
        return "frozen", "the model is frozen"
    if s.paused:
        return "paused", "its schedule is paused"
    if s.active_run is not None:
        return "run_in_progress", f"run {s.active_run} is under way"
    if s.new_labels < policy.min_labels:
        return "few_labels", f"only {s.new_labels} labels are new, {policy.min_labels} are needed"
    pauses = (
        ("the cooldown after a promotion", s.promoted_at, parse_duration(policy.cooldown)),
        ("twice the cooldown, after a rollback", s.rolled_back_at, 2 * parse_duration(policy.cooldown)),
        ("the pause after the last run", s.last_run_ended, retry_of(policy, s.rejected_in_a_row)),
    )
    for name, since, pause in pauses:
        if since is not None and s.now < since + pause:
            return "cooldown", f"{name}, {format_duration(pause)}, is not over"
    return None
