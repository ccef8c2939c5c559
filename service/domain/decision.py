"""The retrain decision: what follows from a check. Drift is evidence, not an order."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from service.domain.check import Performance
from service.domain.policy import Retrain
from service.domain.rules import causes, guard, is_tripped, obstacles
from service.domain.run import Trigger
from service.domain.situation import Situation

__all__ = ["Action", "Decision", "decide", "degraded_of"]


class Action(StrEnum):
    """What a check leads to. A closed set: it is a metric label."""

    NONE = "none"
    SUGGEST = "suggest"
    RETRAIN = "retrain"


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

    @staticmethod
    def from_json(plain: dict[str, Any]) -> "Decision":
        """Return the decision that `to_json` wrote."""
        return TypeAdapter(Decision).validate_python(plain)


def degraded_of(policy: Retrain, performance: Performance | None) -> bool | None:
    """Return whether realised quality alone would call for a run, were it confirmed.

    None without enough labels, or without a loss to compare with: nothing is known then.
    """
    if performance is None or performance.loss is None or performance.reference_loss is None:
        return None
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
    first = guard(situation)
    if first.met:
        return Decision(action=Action.NONE, code=first.code, reason=first.reason)
    cause = next((rule for rule in causes(policy, situation) if rule.met), None)
    if cause is None or cause.trigger is None:
        words = "realised quality and data give no cause for a run"
        return Decision(action=Action.NONE, code="no_cause", reason=words)
    way = next((rule for rule in obstacles(policy, situation, cause.trigger) if rule.met), None)
    if way is not None:
        words = f"{cause.reason}, but {way.reason}"
        return Decision(action=Action.NONE, code=way.code, reason=words, trigger=cause.trigger)
    if policy.mode == "suggest":
        words = f"{cause.reason}; the mode is suggest, so a person decides"
        return Decision(action=Action.SUGGEST, code="mode_suggest", reason=words, trigger=cause.trigger)
    if is_tripped(policy, situation):
        words = f"{cause.reason}; too many runs have broken one after the other, so a person decides"
        return Decision(action=Action.SUGGEST, code="breaker", reason=words, trigger=cause.trigger)
    return Decision(action=Action.RETRAIN, code=cause.trigger.value, reason=cause.reason, trigger=cause.trigger)
