"""Recorded checks read back for a second look: one explained, or many decided anew under a changed policy."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection

from service.domain.check import SCHEDULE, CheckState, Examination, Performance
from service.domain.decision import Action, Decision
from service.domain.errors import NotAllowedNow
from service.domain.explanation import Explanation, explain
from service.domain.policy import Retrain
from service.domain.reading import Reading
from service.domain.rehearsal import LIMITS, Assumed, PastCheck, PastRun, Rehearsed, rehearse
from service.domain.run import BROKE, RunState
from service.domain.situation import Situation
from service.storage import champions, checks, models, runs
from service.storage.checks import Check
from service.storage.models import ModelRow
from service.storage.runs import Run

__all__ = ["Counts", "DryRun", "changed_policy", "dry_run", "explained"]

PAGE = 500


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many checks led to what."""

    runs: int
    suggestions: int
    none: int


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a changed policy would have decided."""

    model: str
    policy: Retrain
    checks: int
    left_out: int
    """Checks among the last so many that were never decided, because they failed or still run."""
    changed: int
    recorded: Counts
    replayed: Counts
    replayed_if_promoted: Counts
    """Where each run that was never made is taken to promote instead."""
    replayed_if_rejected: Counts
    assume: Assumed
    decisions: list[Rehearsed]
    limits: tuple[str, ...] = LIMITS


def explained(conn: Connection, check_id: str) -> tuple[Check, Explanation]:
    """Return a check with its explanation.

    Raises
    ------
    UnknownCheck
        If there is no such check.
    NotAllowedNow
        If it was not decided: it is still under way, or it failed.
    """
    check = checks.get(conn, check_id)
    if check.examination is None or check.situation is None or check.decision is None:
        why = check.error or "it is still under way"
        msg = f"the check is {check.state.value} and has no decision to explain: {why}"
        raise NotAllowedNow(msg, check=check_id, state=check.state.value)
    reading = None if check.reading is None else TypeAdapter(Reading).validate_python(check.reading)
    return check, explain(
        TypeAdapter(Examination).validate_python(check.examination),
        Situation.from_json(check.situation),
        Decision.from_json(check.decision),
        policy=_policy(check, models.get(conn, check.model)),
        policy_recorded=check.policy is not None,
        reading=reading,
    )


def changed_policy(conn: Connection, model: str, changes: dict[str, Any]) -> Retrain:
    """Return the model's retrain policy with some fields changed.

    Raises
    ------
    UnknownModel
        If there is no such model.
    pydantic.ValidationError
        If a change is none that a model file could make.
    """
    now = TypeAdapter(Retrain).dump_python(models.policy_of(models.get(conn, model), Retrain), mode="json")
    return TypeAdapter(Retrain).validate_python({**now, **changes})


def dry_run(conn: Connection, model: str, policy: Retrain, *, last: int, assume: Assumed = "rejected") -> DryRun:
    """Decide the model's last checks anew under `policy`; nothing is written.

    Raises
    ------
    UnknownModel
        If there is no such model.
    """
    row = models.get(conn, model)
    found = list(reversed(checks.list_of(conn, model, limit=last)))
    decided = [check for check in found if check.state is CheckState.DONE and check.situation and check.decision]
    made = _runs_of(conn, model)
    promoted = {swap.run_id: swap.event_time for swap in champions.history(conn, model) if swap.run_id}
    past = [_past(check, row, made.get(check.id), promoted) for check in decided]
    ends: dict[Assumed, list[Rehearsed]] = {end: rehearse(past, policy, assume=end) for end in ("rejected", "promoted")}
    chosen = ends[assume]
    return DryRun(
        model=model,
        policy=policy,
        checks=len(past),
        left_out=len(found) - len(past),
        changed=sum(one.changed for one in chosen),
        recorded=_counted([one.recorded for one in chosen]),
        replayed=_counted([one.replayed for one in chosen]),
        replayed_if_promoted=_counted([one.replayed for one in ends["promoted"]]),
        replayed_if_rejected=_counted([one.replayed for one in ends["rejected"]]),
        assume=assume,
        decisions=chosen,
    )


def _runs_of(conn: Connection, model: str) -> dict[str, Run]:
    return {run.check_id: run for run in runs.list_of(conn, model, limit=PAGE) if run.check_id is not None}


def _past(check: Check, row: ModelRow, run: Run | None, promoted: dict[str, datetime | None]) -> PastCheck:
    performance = (check.examination or {}).get("performance")
    return PastCheck(
        id=check.id,
        generation=check.generation,
        policy=_policy(check, row),
        situation=Situation.from_json(check.situation or {}),
        decision=Decision.from_json(check.decision or {}),
        performance=None if performance is None else TypeAdapter(Performance).validate_python(performance),
        run=None if run is None else _past_run(run, check, promoted),
        scheduled=check.actor == SCHEDULE,
    )


def _past_run(run: Run, check: Check, promoted: dict[str, datetime | None]) -> PastRun:
    if run.id in promoted:
        return PastRun(
            id=run.id,
            asked_at=_asked_at(run, check),
            ended_at=run.decided_event_time,
            end="promoted",
            promoted_at=promoted[run.id],
        )
    is_rejected, is_broken = run.state is RunState.REJECTED, run.state in BROKE
    return PastRun(
        id=run.id,
        asked_at=_asked_at(run, check),
        ended_at=run.decided_event_time,
        end="rejected" if is_rejected else "broke" if is_broken else "open",
    )


def _asked_at(run: Run, check: Check) -> datetime:
    return run.until or check.window_until or run.requested_at


def _policy(check: Check, row: ModelRow) -> Retrain:
    if check.policy is None:
        return models.policy_of(row, Retrain)
    return TypeAdapter(Retrain).validate_python(check.policy)


def _counted(decisions: list[Decision]) -> Counts:
    found = [decision.action for decision in decisions]
    return Counts(
        runs=found.count(Action.RETRAIN), suggestions=found.count(Action.SUGGEST), none=found.count(Action.NONE)
    )
