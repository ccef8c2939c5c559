"""What a decision rests on, put together from the database: nothing lives in memory, so a restart forgets nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.control.breaker import BREAKER
from service.domain.check import SCHEDULE, CheckState, Examination, Verdict
from service.domain.run import AUTOMATIC, BROKE, JUDGED, RunState, Trigger
from service.domain.situation import Situation
from service.storage.checks import Check
from service.storage.runs import Run

__all__ = ["OPEN", "Past", "assemble", "drift_began", "leaves_quarantine", "training_cutoff"]

OPEN = frozenset({RunState.AWAITING_LABELS, RunState.AWAITING_APPROVAL, RunState.SUPERSEDED, RunState.EXPIRED})
"""Runs that tried and came to no end, or to none of their own: cooldowns count from them, rejections do not."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """What the database knows of a model when a check ends."""

    checks: Sequence[Check]
    """Newest first, the ending one not among them."""
    runs: Sequence[Run]
    """Newest first."""
    switches: frozenset[str]
    generation: int
    learned_until: datetime | None
    promoted_at: datetime | None
    """Event time at which the champion was promoted."""
    failures_in_a_row: int = 0


def assemble(
    examination: Examination,
    past: Past,
    *,
    now: datetime,
    degraded: bool | None,
    new_labels: int,
    clean_windows: int,
    drift_confirm: int = 2,
    labels_since_drift: int | None = None,
) -> Situation:
    """Return the situation at the end of a check's window.

    Parameters
    ----------
    now
        End of the window, event time.
    degraded
        Whether realised quality is below the limit; None while it cannot be told.
    clean_windows
        How many windows in a row end a quarantine.
    drift_confirm
        How many drifted windows in a row confirm drift.
    labels_since_drift
        Labelled rows after the beginning of the drift.
    """
    performance = examination.performance
    estimate = None if performance is None else performance.estimate
    tried = JUDGED | BROKE | OPEN
    ended = [run for run in past.runs if run.state in tried and run.trigger is not Trigger.INITIAL]
    active = next((run for run in past.runs if run.active), None)
    verdicts = _own(past, generation=past.generation)
    in_quarantine = "quarantine" in past.switches and not leaves_quarantine(examination, past, needed=clean_windows)
    return Situation(
        now=now,
        verdict=examination.verdict,
        quarantined=examination.verdict is Verdict.QUARANTINED or in_quarantine,
        loss=None if performance is None else performance.loss,
        reference_loss=None if performance is None else performance.reference_loss,
        degraded_in_a_row=_in_a_row([degraded, *(check.degraded for check in verdicts)]),
        drifted_in_a_row=_in_a_row(
            [
                examination.verdict is Verdict.DRIFTED,
                *(check.verdict == Verdict.DRIFTED.value for check in verdicts),
            ]
        ),
        new_labels=new_labels,
        learned_until=past.learned_until,
        last_run_ended=next((run.decided_event_time for run in ended if run.decided_event_time), None),
        rejected_in_a_row=_rejected(ended),
        active_run=None if active is None else active.id,
        promoted_at=past.promoted_at,
        rolled_back_at=_rolled_back(ended),
        paused="pause" in past.switches,
        frozen="freeze" in past.switches,
        loss_reason="" if performance is None else performance.reason,
        estimate=estimate,
        estimated_worse_in_a_row=_in_a_row(
            [
                estimate is not None and estimate.valid and estimate.worse,
                *(_estimated_worse(check) for check in verdicts),
            ]
        ),
        drift_state=None if examination.drift is None else examination.drift.state,
        drift_reason=examination.reason if examination.verdict is Verdict.DRIFTED else "",
        drift_confirm=drift_confirm,
        labels_since_drift=labels_since_drift,
        started=_started(past.runs),
        failures_in_a_row=past.failures_in_a_row,
        breaker=BREAKER in past.switches,
        **_turned_down(ended, past.checks),
    )


def drift_began(checks: Iterable[Check], *, generation: int) -> datetime | None:
    """Return where the windows begin that have drifted one after the other until now; None if the last has not.

    Parameters
    ----------
    checks
        Newest first, the one that is to be made not among them.
    """
    began = None
    for check in checks:
        if check.state is not CheckState.DONE or check.actor != SCHEDULE or check.generation != generation:
            continue
        if check.verdict != Verdict.DRIFTED.value:
            break
        began = check.window_from
    return began


def leaves_quarantine(examination: Examination, past: Past, *, needed: int) -> bool:
    """Return whether this window is the last of so many in a row with sound data."""
    sound = {Verdict.CLEAN.value, Verdict.DRIFTED.value}
    verdicts = [examination.verdict.value, *(check.verdict for check in past.checks if check.verdict is not None)]
    return _in_a_row(verdict in sound for verdict in verdicts) >= needed


def training_cutoff(runs: Iterable[Run], *, learned_until: datetime | None) -> datetime | None:
    """Return the event time up to which labels have been tried already, whether that run promoted or not.

    Parameters
    ----------
    runs
        Newest first.
    learned_until
        Of the champion: what counts while there was no run but the first.
    """
    tried = [run.until for run in runs if run.snapshot_digest and run.until is not None and _tried(run)]
    return max([*tried, *([learned_until] if learned_until else [])], default=None)


def _tried(run: Run) -> bool:
    return run.state not in {RunState.CANCELLED, RunState.SKIPPED}


def _own(past: Past, *, generation: int) -> list[Check]:
    """Return the scheduled checks of the present champion, newest first: a new reference starts its own row."""
    return [
        check
        for check in past.checks
        if check.state is CheckState.DONE and check.actor == SCHEDULE and check.generation == generation
    ]


def _in_a_row(facts: Iterable[bool | None]) -> int:
    count = 0
    for fact in facts:
        if not fact:
            break
        count += 1
    return count


def _estimated_worse(check: Check) -> bool:
    estimate = ((check.examination or {}).get("performance") or {}).get("estimate") or {}
    return bool(estimate.get("valid") and estimate.get("worse"))


def _started(past: Iterable[Run]) -> tuple[datetime, ...]:
    """Return up to where the runs looked that a check called for; one that was called off before it began is none."""
    called = [run for run in past if run.trigger in AUTOMATIC and (run.active or run.started_at is not None)]
    return tuple(sorted((run.until for run in called if run.until is not None), reverse=True))


def _turned_down(ended: Sequence[Run], past: Sequence[Check]) -> dict[str, Any]:
    """Return why the last run was asked for, and on which loss, if the gate turned it down."""
    last = next((run for run in ended if run.state not in OPEN), None)
    if last is None or last.state is not RunState.REJECTED:
        return {}
    basis = next((check for check in past if check.id == last.check_id), None)
    loss = None if basis is None else (basis.situation or {}).get("loss")
    return {"rejected_trigger": last.trigger, "rejected_loss": loss}


def _rolled_back(ended: Sequence[Run]) -> datetime | None:
    for run in ended:
        if run.state is RunState.ROLLED_BACK:
            return run.decided_event_time
        if run.state in {RunState.SUCCEEDED, RunState.PROBATION}:
            break
    return None


def _rejected(ended: Sequence[Run]) -> int:
    count = 0
    for run in ended:
        if run.state in OPEN:
            continue
        if run.state not in {RunState.REJECTED, *BROKE} or run.trigger is Trigger.MANUAL:
            break
        count += 1
    return count
