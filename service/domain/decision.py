"""The retrain decision: what follows from a check. Drift is evidence, not an order."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from service.domain.check import Verdict
from service.domain.duration import format_duration, parse_duration
from service.domain.policy import Retrain
from service.domain.run import Trigger

__all__ = ["Action", "Decision", "Situation", "cooldown_of", "decide"]


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


def cooldown_of(policy: Retrain, rejected_in_a_row: int) -> timedelta:
    """Return the pause after a run: the cooldown, doubled for each rejection in a row, up to the cap."""
    base, cap = parse_duration(policy.cooldown), parse_duration(policy.cooldown_cap)
    return min(base * 2 ** min(rejected_in_a_row, 16), max(base, cap))


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
        return Trigger.PERFORMANCE, f"realised loss {s.loss:.4g} is {rise:.0%} above the reference {s.reference_loss:.4g}"
    if policy.on_drift and s.drifted_in_a_row >= 1 and s.verdict is Verdict.DRIFTED:
        return Trigger.DRIFT, f"{s.drifted_in_a_row} drifted windows in a row"
    if policy.max_age is not None and s.learned_until is not None:
        age = s.now - s.learned_until
        if age >= parse_duration(policy.max_age):
            return Trigger.AGE, f"the champion learned nothing newer than {format_duration(age)} ago"
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
    if s.last_run_ended is not None:
        pause = cooldown_of(policy, s.rejected_in_a_row)
        if s.now < s.last_run_ended + pause:
            return "cooldown", f"the cooldown of {format_duration(pause)} is not over"
    return None
