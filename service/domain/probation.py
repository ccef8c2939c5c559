"""Probation: whether a new champion is kept, watched on, or taken back. Pure; what it rests on is passed in.

Two clocks: the watch lasts in event time, as far as checks have looked; the wall clock only ends one that no data
came for.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from service.domain.duration import format_duration, parse_duration
from service.domain.policy import Probation

__all__ = [
    "LATENCY_FLOOR_S",
    "MIN_BATCHES",
    "Comparison",
    "Evidence",
    "Health",
    "Outcome",
    "ProbationState",
    "Step",
    "Watch",
    "outcome_of",
    "watched_until",
]

MIN_BATCHES = 200
"""Batches a side below which nothing is said of latency: the first ones after a swap meet cold caches."""
LATENCY_FLOOR_S = 0.005
"""So much slower a batch must be, whatever the ratio: on a busy machine 0.2 ms becomes 0.7 ms by itself."""


class ProbationState(StrEnum):
    """Where a probation stands. A closed set: it is a metric label."""

    WATCHING = "watching"
    KEPT = "kept"
    ROLLED_BACK = "rolled_back"
    ENDED = "ended"  # another champion came, or there was none to go back to


class Step(StrEnum):
    """What follows from a look at a champion on probation."""

    WATCHING = "watching"
    BREACH = "breach"
    EXTEND = "extend"
    KEPT = "kept"


@dataclass(frozen=True, kw_only=True)
class Health:
    """How a generation has answered so far, summed over the replicas."""

    answered: int = 0
    """Rows."""
    failed: int = 0
    """Rows whose answer broke."""
    batches: int = 0
    seconds: float = 0.0
    """Of the estimator, over all batches."""

    @property
    def rows(self) -> int:
        """Rows that came."""
        return self.answered + self.failed

    @property
    def failing(self) -> float:
        """Share of the rows that were not answered; 0 where none came."""
        return self.failed / self.rows if self.rows else 0.0

    @property
    def batch_s(self) -> float:
        """Seconds per batch; 0 where there was none."""
        return self.seconds / self.batches if self.batches else 0.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The new champion's answers against those that the version before gives to the same rows."""

    rows: int = 0
    """Whose outputs were compared."""
    distance: float | None = None
    """Between the outputs: Jensen-Shannon, from 0 to 1, for classes; Wasserstein in standard deviations for values."""
    labelled: int = 0
    """Rows on which both were judged."""
    loss: float | None = None
    """The new champion's."""
    previous_loss: float | None = None
    low: float | None = None
    """Lower end of the interval of loss less previous loss."""
    high: float | None = None
    error: str = ""
    """Why nothing could be compared."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of a champion on probation; stored with it, so that its end can be replayed."""

    event_time: datetime | None = None
    """Checks have looked up to here."""
    health: Health = field(default_factory=Health)
    before: Health = field(default_factory=Health)
    """Of the generation before."""
    comparison: Comparison = field(default_factory=Comparison)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(Evidence).dump_python(self, mode="json")
        return plain

    @staticmethod
    def from_json(plain: dict[str, Any] | None) -> "Evidence":
        """Return the evidence that `to_json` wrote; none for None."""
        return Evidence() if plain is None else TypeAdapter(Evidence).validate_python(plain)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How long a champion has been watched."""

    began_at: datetime
    """Wall clock."""
    began_event_time: datetime | None
    now: datetime
    """Wall clock."""
    extended: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What to do, and why."""

    step: Step
    code: str
    """A slug: what was breached, or how it was kept."""
    reason: str
    extended: int = 0
    """So often prolonged, this time included."""


def watched_until(policy: Probation, began: datetime | None, extended: int = 0) -> datetime | None:
    """Return where in event time the watch ends; None where it has no beginning, or there is no probation."""
    if policy.duration is None or began is None:
        return None
    return began + parse_duration(policy.duration) * (1 + extended)


def outcome_of(policy: Probation, evidence: Evidence, watch: Watch) -> Outcome:
    """Return what follows from a look at a champion on probation.

    Parameters
    ----------
    policy
        With a duration.
    evidence
        What is known now.
    watch
        How long it has lasted.

    Notes
    -----
    A breach comes before everything: a champion that disappoints is not kept because its time is over.
    """
    breach = (
        _errors(policy, evidence)
        or _latency(policy, evidence)
        or _performance(policy, evidence.comparison)
        or _outputs(policy, evidence.comparison)
    )
    if breach is not None:
        code, reason = breach
        return Outcome(step=Step.BREACH, code=code, reason=reason, extended=watch.extended)
    return _time(policy, evidence, watch)


def _errors(policy: Probation, evidence: Evidence) -> tuple[str, str] | None:
    new, old = evidence.health, evidence.before
    if new.rows < policy.min_rows or new.failing - old.failing <= policy.errors:
        return None
    return (
        "errors",
        f"{new.failed:,} of {new.rows:,} rows were not answered ({new.failing:.1%}; before it {old.failing:.1%}; "
        f"at most {policy.errors:.1%} more)",
    )


def _latency(policy: Probation, evidence: Evidence) -> tuple[str, str] | None:
    new, old = evidence.health, evidence.before
    if min(new.batches, old.batches) < MIN_BATCHES or new.answered < policy.min_rows:
        return None
    if new.batch_s <= old.batch_s * policy.latency or new.batch_s - old.batch_s <= LATENCY_FLOOR_S:
        return None
    return (
        "latency",
        f"a batch takes {new.batch_s * 1e3:.1f} ms; before it {old.batch_s * 1e3:.1f} ms "
        f"(at most {policy.latency:g} times as long)",
    )


def _performance(policy: Probation, seen: Comparison) -> tuple[str, str] | None:
    if not _is_judged(policy, seen) or seen.loss is None or seen.previous_loss is None or seen.low is None:
        return None
    if seen.loss <= seen.previous_loss * (1 + policy.degradation) or seen.low <= 0:
        return None
    rise = seen.loss / seen.previous_loss - 1 if seen.previous_loss > 0 else math.inf
    share = f"{rise:.0%}" if math.isfinite(rise) else "infinitely far"
    return (
        "performance",
        f"its loss {seen.loss:.4g} is {share} above the {seen.previous_loss:.4g} of the version before on the same "
        f"{seen.labelled:,} rows (at most {policy.degradation:.0%}), by {seen.low:.4g} or more with "
        f"{policy.confidence:.0%} confidence",
    )


def _outputs(policy: Probation, seen: Comparison) -> tuple[str, str] | None:
    # Where labels can tell, they do: after a shift of the world the right answers look unlike the old ones.
    if _is_judged(policy, seen) or seen.rows < policy.min_rows or seen.distance is None:
        return None
    if seen.distance <= policy.outputs:
        return None
    return (
        "outputs",
        f"its answers lie {seen.distance:.2f} from those of the version before on the same {seen.rows:,} rows "
        f"(at most {policy.outputs:g}), and only {seen.labelled:,} labels are there to say which are right",
    )


def _is_judged(policy: Probation, seen: Comparison) -> bool:
    return seen.loss is not None and seen.previous_loss is not None and seen.labelled >= policy.min_rows


def _time(policy: Probation, evidence: Evidence, watch: Watch) -> Outcome:
    until = watched_until(policy, watch.began_event_time, watch.extended)
    if policy.duration is None:
        return Outcome(step=Step.KEPT, code="unproven", reason="the model has no probation any more")
    seen, duration = evidence.comparison, parse_duration(policy.duration)
    began, looked = watch.began_event_time, evidence.event_time
    if began is not None and looked is not None and until is not None and looked >= until:
        if _is_judged(policy, seen):
            return _kept(seen, watch)
        times = (looked - began) // duration
        if times <= policy.extensions:
            reason = f"{seen.labelled:,} labelled rows so far, {policy.min_rows:,} are needed{_why(seen)}"
            return Outcome(step=Step.EXTEND, code="few_rows", reason=reason, extended=times)
        return _unproven(policy, seen, watch, f"after {format_duration(looked - began)}")
    # No traffic, no labels, no checks: event time stands still, and nothing may wait for it for ever.
    if watch.now - watch.began_at >= duration * (1 + policy.extensions):
        if _is_judged(policy, seen):
            return _kept(seen, watch)
        return _unproven(policy, seen, watch, f"after {format_duration(watch.now - watch.began_at)} by the wall clock")
    words = "no check has looked yet" if until is None or looked is None else f"watched until {until:%Y-%m-%d %H:%M}"
    return Outcome(step=Step.WATCHING, code="watching", reason=words, extended=watch.extended)


def _kept(seen: Comparison, watch: Watch) -> Outcome:
    reason = (
        f"its loss {seen.loss:.4g} against {seen.previous_loss:.4g} of the version before on the same "
        f"{seen.labelled:,} rows"
    )
    return Outcome(step=Step.KEPT, code="clean", reason=reason, extended=watch.extended)


def _unproven(policy: Probation, seen: Comparison, watch: Watch, when: str) -> Outcome:
    reason = f"{when} only {seen.labelled:,} labelled rows, {policy.min_rows:,} are needed{_why(seen)}"
    return Outcome(step=Step.KEPT, code="unproven", reason=reason, extended=watch.extended)


def _why(seen: Comparison) -> str:
    return f" ({seen.error})" if seen.error else ""
