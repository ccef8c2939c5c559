"""What another policy would have decided: recorded situations decided anew, with the consequences that can be derived.

What a run that was never made would have led to can't be known. Its place in the calendar can: pauses, the budget and
the labels that are new follow from it. So they are carried on, and all that rests on them is marked as derived.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from service.domain.check import Performance
from service.domain.decision import Action, Decision, decide, degraded_of
from service.domain.policy import Retrain
from service.domain.run import Trigger
from service.domain.situation import Situation

__all__ = ["LIMITS", "Assumed", "PastCheck", "PastRun", "Rehearsed", "rehearse"]

Assumed = Literal["rejected", "promoted"]
"""What is taken for the end of a run that was never made."""

LIMITS = (
    "A run that was not made has no outcome: it is taken to end at once, as `assume` says; the counts show both.",
    "After the first check that is decided otherwise, losses, drift and estimates are still those of the champions "
    "that really answered; pauses, budget, age and new labels are derived. Such checks are marked `derived`.",
    "What was quarantined, what the switches were and when labels came stays as it was recorded.",
)
"""What no replay can know; part of every answer."""


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run that a check called for, as far as it matters for later decisions. Times are event time."""

    id: str
    asked_at: datetime
    """How far it looked."""
    ended_at: datetime | None
    end: Literal["promoted", "rejected", "broke", "open"]
    promoted_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class PastCheck:
    """A check with all that its decision rested on."""

    id: str
    generation: int | None
    policy: Retrain
    """As it was when the check was decided."""
    situation: Situation
    decision: Decision
    performance: Performance | None
    run: PastRun | None
    scheduled: bool = True
    """Whether nobody asked for the check: only such checks count in a row."""


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """One check decided anew."""

    check: str
    now: datetime
    recorded: Decision
    replayed: Decision
    changed: bool
    """Whether another action, or one for another cause, follows."""
    derived: bool
    """Whether the situation rests on runs that were made under one of the policies only."""


@dataclass(frozen=True, kw_only=True)
class _Added:
    """A run that only the other policy would have made."""

    at: datetime
    trigger: Trigger | None
    loss: float | None
    labels: int
    """Labels that it would have had to learn from, and that are not new after it."""


@dataclass(frozen=True, kw_only=True)
class _Gone:
    """A run that the other policy would not have made."""

    run: PastRun
    before: Situation
    """What its check would have met."""


def rehearse(past: Sequence[PastCheck], policy: Retrain, *, assume: Assumed = "rejected") -> list[Rehearsed]:
    """Decide checks anew under `policy`.

    Parameters
    ----------
    past
        The oldest first.
    policy
        The changed one. With the recorded one nothing changes, whatever happened in between.
    assume
        How a run ends that was never made.
    """
    parted: list[_Added | _Gone] = []
    done = []
    for place, check in enumerate(past):
        is_derived = bool(parted)
        situation = _recounted(past, place, policy)
        for one in parted:  # in order of time: each rests on those before it
            situation = _without(situation, one) if isinstance(one, _Gone) else _with(situation, one, assume)
        decision = decide(policy, situation)
        recorded = check.decision
        is_run = decision.action is Action.RETRAIN
        # What a person made of a suggestion stays what he made of it, as long as it is still suggested.
        is_kept = is_run or decision.action is recorded.action
        if is_run and check.run is None and recorded.action is not Action.RETRAIN:
            parted.append(
                _Added(at=situation.now, trigger=decision.trigger, loss=situation.loss, labels=situation.new_labels)
            )
        elif check.run is not None and not is_kept:
            parted.append(_Gone(run=check.run, before=situation))
        done.append(
            Rehearsed(
                check=check.id,
                now=situation.now,
                recorded=recorded,
                replayed=decision,
                changed=(decision.action, decision.trigger) != (recorded.action, recorded.trigger),
                derived=is_derived,
            )
        )
    return done


def _recounted(past: Sequence[PastCheck], place: int, policy: Retrain) -> Situation:
    """Return the recorded situation, with the degraded checks counted by `policy` where it tolerates another loss.

    Checks before the first of `past` count as they were counted then.
    """
    check = past[place]
    found = [one for one in past[:place] if one.generation == check.generation and one.scheduled]
    found.append(check)
    worse = [degraded_of(policy, one.performance) for one in found]
    if worse == [degraded_of(one.policy, one.performance) for one in found]:
        return check.situation
    earlier = max(found[0].situation.degraded_in_a_row - 1, 0)
    count = next((n for n, is_worse in enumerate(reversed(worse)) if not is_worse), len(worse) + earlier)
    return replace(check.situation, degraded_in_a_row=count)


def _without(s: Situation, gone: _Gone) -> Situation:
    """Return the situation as if that run had not been made."""
    run, before = gone.run, gone.before
    is_last = bool(s.started) and s.started[0] == run.asked_at
    is_champion = run.promoted_at is not None and s.promoted_at == run.promoted_at
    in_streak = run.end in {"rejected", "broke"} and (s.promoted_at is None or s.promoted_at < run.asked_at)
    rejected = max(s.rejected_in_a_row - 1, 0) if in_streak else s.rejected_in_a_row
    changes: dict[str, object] = {
        "started": tuple(at for at in s.started if at != run.asked_at),
        "active_run": None if s.active_run == run.id else s.active_run,
        "rejected_in_a_row": before.rejected_in_a_row + rejected if is_champion else rejected,
    }
    if run.end == "broke":
        changes["failures_in_a_row"] = max(s.failures_in_a_row - 1, 0)
    if is_last:
        changes["new_labels"] = s.new_labels + before.new_labels
        changes |= {"rejected_trigger": before.rejected_trigger, "rejected_loss": before.rejected_loss}
    if run.ended_at is not None and s.last_run_ended == run.ended_at:
        changes["last_run_ended"] = before.last_run_ended
    if is_champion:
        changes |= {
            "promoted_at": before.promoted_at,
            "learned_until": before.learned_until,
            "rolled_back_at": before.rolled_back_at,
        }
    return replace(s, **changes)  # type: ignore[arg-type]  # names of its fields


def _with(s: Situation, run: _Added, assume: Assumed) -> Situation:
    """Return the situation as if that run had been made, and had ended at once."""
    is_last = not s.started or s.started[0] <= run.at
    changes: dict[str, object] = {
        "started": tuple(sorted((*s.started, run.at), reverse=True)),
        "last_run_ended": _later(s.last_run_ended, run.at),
    }
    if is_last:
        # Labels are counted from the last training cut-off on: those that had come by then are not new any more.
        changes["new_labels"] = max(s.new_labels - run.labels, 0)
        changes |= {"rejected_trigger": None, "rejected_loss": None}
    is_newer = s.promoted_at is None or s.promoted_at <= run.at
    if assume == "promoted":
        changes |= {"promoted_at": _later(s.promoted_at, run.at), "learned_until": _later(s.learned_until, run.at)}
        changes |= {"rejected_in_a_row": 0, "rolled_back_at": None} if is_newer else {}
    elif is_newer:
        changes["rejected_in_a_row"] = s.rejected_in_a_row + 1
        changes |= {"rejected_trigger": run.trigger, "rejected_loss": run.loss} if is_last else {}
    return replace(s, **changes)  # type: ignore[arg-type]  # names of its fields


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)
