"""The end of a check, in one transaction: verdict, quarantine, situation, decision and the run that follows from it."""

from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import TypeAdapter
from sqlalchemy import Connection

from service.control.breaker import failures_in_a_row, settle
from service.control.probation import note_comparison
from service.control.situation import Past, assemble, leaves_quarantine
from service.control.tasks import Seen
from service.domain.check import SCHEDULE, Examination, Verdict
from service.domain.decision import Action, Decision, decide, degraded_of
from service.domain.errors import RunInProgress
from service.domain.policy import Drift, Quality, Retrain
from service.domain.reading import read
from service.domain.run import Trigger
from service.domain.situation import Situation
from service.storage import alarms, audit, champions, checks, models, notices, runs, versions
from service.storage.checks import Check
from service.storage.models import ModelRow, policy_of

__all__ = ["Judged", "conclude"]

ACTOR = "controller"
QUARANTINE = "quarantine"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A check that is done."""

    check: Check
    examination: Examination
    decision: Decision
    alarmed: bool = False
    """Whether its window confirmed a drift alarm."""


def conclude(conn: Connection, check_id: str, saw: Seen, row: ModelRow, *, at: datetime, token: int) -> Judged:
    """Finish the check and start the run that it calls for; the caller's transaction holds all of it.

    Raises
    ------
    NotAllowedNow, LeaseLost
        If the check has ended meanwhile, or another leader works on it.
    """
    policy = policy_of(row, Retrain)
    clean_windows = policy_of(row, Quality).clean_windows
    check = checks.get(conn, check_id)
    settle(conn, row, at=at)
    past = _past(conn, check)
    degraded = degraded_of(policy, saw.examination.performance)
    situation = assemble(
        saw.examination,
        past,
        now=check.window_until or at,
        degraded=degraded,
        new_labels=saw.new_labels,
        clean_windows=clean_windows,
        drift_confirm=policy_of(row, Drift).confirm,
        labels_since_drift=saw.labels_since_drift,
    )
    decision = decide(policy, situation)
    is_broken_anew = _quarantine(conn, check, saw.examination, past, clean_windows=clean_windows, at=at)
    note_comparison(conn, check, saw)
    run_id = None
    if decision.action is Action.RETRAIN:
        situation, decision, run_id = _queue(conn, check, policy, situation, decision, at=at)
    done = checks.finish(
        conn,
        check_id,
        at=at,
        token=token,
        window_from=saw.window_from,
        rows=saw.examination.rows,
        verdict=saw.examination.verdict.value,
        reason=saw.examination.reason,
        examination=saw.examination.to_json(),
        situation=situation.to_json(),
        decision=decision.to_json(),
        policy=TypeAdapter(Retrain).dump_python(policy, mode="json"),
        reading=read(saw.examination, degraded=degraded).to_json(),
        degraded=degraded,
        run_id=run_id,
        lake_version=saw.lake_version,
        peak_bytes=saw.peak_bytes,
        seconds={"examined": saw.seconds, "in_all": round((at - check.requested_at).total_seconds(), 3)},
    )
    alarmed = _alarmed(conn, row, done)
    if alarmed:
        notices.drift_confirmed(conn, done, at=at)
    if is_broken_anew:
        notices.data_quarantined(conn, done, at=at)
    return Judged(check=done, examination=saw.examination, decision=decision, alarmed=alarmed)


def _alarmed(conn: Connection, row: ModelRow, check: Check) -> bool:
    if check.verdict != Verdict.DRIFTED.value or check.actor != SCHEDULE or check.window_until is None:
        return False
    return check.window_until in alarms.realised(conn, row, until=check.window_until)


def _past(conn: Connection, check: Check) -> Past:
    champion = champions.current(conn, check.model)
    version = None if champion is None else versions.get(conn, check.model, champion.version)
    known = runs.list_of(conn, check.model)
    return Past(
        checks=[other for other in checks.list_of(conn, check.model, limit=50) if other.id != check.id],
        runs=known,
        switches=frozenset(models.switches(conn, check.model)),
        generation=check.generation or 0,
        learned_until=None if version is None else version.learned_until,
        promoted_at=next((swap.event_time for swap in champions.history(conn, check.model)), None),
        failures_in_a_row=failures_in_a_row(conn, check.model, known),
    )


def _queue(
    conn: Connection, check: Check, policy: Retrain, situation: Situation, decision: Decision, *, at: datetime
) -> tuple[Situation, Decision, str | None]:
    try:
        run = runs.create(
            conn,
            check.model,
            trigger=decision.trigger or Trigger.PERFORMANCE,
            actor=ACTOR,
            reason=decision.reason,
            at=at,
            check_id=check.id,
            until=check.window_until,
        )
    except RunInProgress as error:
        # An operator was faster by a moment: one run is all that is wanted. What is stored must lead to what was done.
        situation = replace(situation, active_run=str(error.facts.get("run")))
        return situation, decide(policy, situation), None
    return situation, decision, run.id


def _quarantine(
    conn: Connection, check: Check, examination: Examination, past: Past, *, clean_windows: int, at: datetime
) -> bool:
    """Set or clear the switch; return whether it is newly set."""
    is_set = QUARANTINE in past.switches
    if examination.verdict is Verdict.QUARANTINED:
        models.set_switch(
            conn, check.model, QUARANTINE, value={"check": check.id}, actor=ACTOR, reason=examination.reason, at=at
        )
        action = "quarantine_set"
    elif is_set and leaves_quarantine(examination, past, needed=clean_windows):
        models.clear_switch(conn, check.model, QUARANTINE)
        action = "quarantine_cleared"
    else:
        return False
    if is_set and action == "quarantine_set":
        return False
    audit.append(
        conn,
        actor=ACTOR,
        action=action,
        model=check.model,
        subject=f"check {check.id}",
        reason=examination.reason,
        facts={},
        at=at,
    )
    return action == "quarantine_set"
