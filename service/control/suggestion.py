"""A suggested run: what a check called for and left to a person, until he accepts it or it is out of date."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from service.control.requests import refuse_switched
from service.domain.decision import Action, Decision
from service.domain.errors import NotAllowedNow, OutOfDate
from service.domain.run import RunState, Trigger
from service.storage import audit, checks, models, runs
from service.storage.checks import Check
from service.storage.database import now
from service.storage.runs import Run

__all__ = ["Suggestion", "accept", "open_of"]

UNTRIED = frozenset({RunState.CANCELLED, RunState.EXPIRED})
"""A later run that ended so did nothing about the suggestion."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """One that waits for a person."""

    check: str
    """The check that it rests on."""
    trigger: Trigger
    code: str
    """Why it was left to a person: the mode, or the breaker."""
    reason: str
    window_until: datetime | None
    made_at: datetime | None


def open_of(conn: Connection, check: Check | None) -> Suggestion | None:
    """Return what the model's latest check that is done suggests, as long as no run has acted since."""
    if check is None or check.decision is None or check.run_id is not None:
        return None
    decision = Decision.from_json(check.decision)
    if decision.action is not Action.SUGGEST:
        return None
    newest = next((run for run in runs.list_of(conn, check.model, limit=20) if run.state not in UNTRIED), None)
    if newest is not None and check.finished_at is not None and newest.requested_at >= check.finished_at:
        return None
    return Suggestion(
        check=check.id,
        trigger=decision.trigger or Trigger.MANUAL,
        code=decision.code,
        reason=decision.reason,
        window_until=check.window_until,
        made_at=check.finished_at,
    )


def accept(conn: Connection, model: str, *, check: str | None, actor: str, reason: str) -> Run:
    """Queue the run that was suggested.

    Parameters
    ----------
    check
        The check whose suggestion the person looked at; None for whatever is suggested now.

    Raises
    ------
    UnknownModel
        If there is no such model.
    NotAllowedNow
        If nothing is suggested, or the model is frozen.
    OutOfDate
        If another check suggests it by now.
    RunInProgress
        If a run is in the way.
    """
    models.get(conn, model)
    refuse_switched(conn, model, "freeze", what="trains nothing")
    found = open_of(conn, checks.latest_done(conn, model))
    if found is None:
        msg = "nothing is suggested: it was accepted, a run has begun since, or a later check suggests none"
        raise NotAllowedNow(msg, model=model)
    if check is not None and check != found.check:
        msg = f"another check has looked since: {found.check}"
        raise OutOfDate(msg, model=model, check=found.check)
    at = now(conn)
    run = runs.create(
        conn,
        model,
        trigger=found.trigger,
        actor=actor,
        reason=f"{reason}: {found.reason}",
        at=at,
        check_id=found.check,
        until=found.window_until,
    )
    checks.note_run(conn, found.check, run.id)
    audit.append(
        conn,
        actor=actor,
        action="suggestion_accepted",
        model=model,
        subject=run.id,
        reason=reason,
        facts={"check": found.check, "trigger": found.trigger.value},
        at=at,
    )
    return run
