"""A run: one attempt to produce and promote a version. A row with a state, never just a process."""

from enum import StrEnum

__all__ = ["ACTIVE", "AUTOMATIC", "BROKE", "JUDGED", "NEXT", "TERMINAL", "WORKING", "RunState", "Trigger", "may_follow"]


class Trigger(StrEnum):
    """Why a run was asked for. A closed set: it is a metric label."""

    INITIAL = "initial"
    MANUAL = "manual"
    PERFORMANCE = "performance"
    ESTIMATE = "estimate"
    DRIFT = "drift"
    AGE = "age"
    SPEC = "spec"


AUTOMATIC = frozenset({Trigger.PERFORMANCE, Trigger.ESTIMATE, Trigger.DRIFT, Trigger.AGE})
"""Triggers of runs that a check called for."""


class RunState(StrEnum):
    """Where a run stands. A closed set: it is a metric label."""

    QUEUED = "queued"
    PREPARING = "preparing"  # the snapshot is taken
    VALIDATING = "validating"  # its data quality is looked at
    TRAINING = "training"  # candidates are fitted
    PACKAGING = "packaging"  # the artifact is written, digested and loaded back
    EVALUATING = "evaluating"  # challenger and champion answer the same holdout rows
    AWAITING_LABELS = "awaiting_labels"  # the gate was inconclusive: more labels may settle it
    AWAITING_APPROVAL = "awaiting_approval"  # the gate passed: a person decides
    PROMOTING = "promoting"  # replicas pre-load and acknowledge, then the champion's generation moves
    PROBATION = "probation"  # the new champion can still be taken back automatically
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    SKIPPED = "skipped"  # nothing new to learn from
    BLOCKED_DATA = "blocked_data"  # the data are broken upstream
    ROLLED_BACK = "rolled_back"


S = RunState

TERMINAL = frozenset(
    {
        S.SUCCEEDED,
        S.REJECTED,
        S.FAILED,
        S.TIMED_OUT,
        S.CANCELLED,
        S.EXPIRED,
        S.SUPERSEDED,
        S.SKIPPED,
        S.BLOCKED_DATA,
        S.ROLLED_BACK,
    }
)
"""States that a run never leaves."""

ACTIVE = frozenset(
    {S.QUEUED, S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING, S.PROMOTING, S.CANCELLING}
)
"""States of which a model has at most one run (a unique index holds it). Waiting runs and a champion on probation
hold no worker and are not among them."""

WORKING = frozenset({S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING})
"""States in which a trainer process works on the run."""

JUDGED = frozenset({S.SUCCEEDED, S.PROBATION, S.REJECTED, S.ROLLED_BACK})
"""Ends of runs that came to a verdict on a challenger: cooldowns count from them, and they break a row of runs that
broke. A skipped or cancelled run tried nothing."""

BROKE = frozenset({S.FAILED, S.TIMED_OUT, S.BLOCKED_DATA})
"""Ends of runs that came to no verdict, through a fault of code, data or machine."""

_WORK_ENDS = {S.FAILED, S.TIMED_OUT, S.CANCELLING}

NEXT: dict[RunState, frozenset[RunState]] = {
    S.QUEUED: frozenset({S.PREPARING, S.CANCELLED, S.EXPIRED, S.SUPERSEDED, S.FAILED}),
    S.PREPARING: frozenset({S.VALIDATING, S.SKIPPED, S.QUEUED, *_WORK_ENDS}),
    S.VALIDATING: frozenset({S.TRAINING, S.BLOCKED_DATA, S.AWAITING_LABELS, S.QUEUED, *_WORK_ENDS}),
    S.TRAINING: frozenset({S.PACKAGING, S.QUEUED, *_WORK_ENDS}),
    S.PACKAGING: frozenset({S.EVALUATING, S.QUEUED, *_WORK_ENDS}),
    S.EVALUATING: frozenset({S.REJECTED, S.AWAITING_LABELS, S.AWAITING_APPROVAL, S.PROMOTING, S.QUEUED, *_WORK_ENDS}),
    S.AWAITING_LABELS: frozenset({S.PREPARING, S.REJECTED, S.SUPERSEDED, S.CANCELLED}),
    S.AWAITING_APPROVAL: frozenset({S.PROMOTING, S.EVALUATING, S.REJECTED, S.SUPERSEDED, S.CANCELLED, S.EXPIRED}),
    S.PROMOTING: frozenset({S.PROBATION, S.SUCCEEDED, S.EVALUATING, S.CANCELLED, S.FAILED}),
    S.PROBATION: frozenset({S.SUCCEEDED, S.ROLLED_BACK, S.SUPERSEDED}),
    S.CANCELLING: frozenset({S.CANCELLED}),
    **{state: frozenset() for state in TERMINAL},
}
"""Which state may follow which; a terminal state has no successor."""


def may_follow(before: RunState, after: RunState) -> bool:
    """Return whether a run may go from `before` to `after`.

    Examples
    --------
    >>> may_follow(RunState.QUEUED, RunState.PREPARING)
    True
    >>> may_follow(RunState.REJECTED, RunState.PROMOTING)
    False
    """
    return after in NEXT[before]
