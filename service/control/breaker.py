"""The circuit breaker: after too many runs that broke, one after the other, runs are only suggested.

A switch like the others: it outlives restarts, stands in the audit, and a person clears it, or a run that promotes.
"""

from collections.abc import Sequence
from datetime import datetime

from pydantic import TypeAdapter
from sqlalchemy import Connection, func, select

from service.domain.policy import Retrain
from service.domain.run import RunState
from service.storage import audit, champions, models, runs, tables
from service.storage.models import ModelRow
from service.storage.runs import Run

__all__ = ["BREAKER", "BROKE", "failures_in_a_row", "retrain_policy", "settle"]

ACTOR = "controller"
BREAKER = "breaker"
"""Name of the switch."""

BROKE = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.BLOCKED_DATA})
"""Ends of runs that came to no verdict on a challenger, through a fault of code, data or machine."""
WORKED = frozenset({RunState.SUCCEEDED, RunState.PROBATION, RunState.REJECTED, RunState.ROLLED_BACK})
"""Ends of runs that came to a verdict: they break the row."""


def retrain_policy(row: ModelRow) -> Retrain:
    """Return the model's retrain policy as it was registered; the default where it was never registered."""
    return TypeAdapter(Retrain).validate_python(((row.spec or {}).get("policies") or {}).get("retrain") or {})


def failures_in_a_row(conn: Connection, model: str, past: Sequence[Run]) -> int:
    """Return how many of the newest runs broke, one after the other.

    Parameters
    ----------
    past
        The model's runs, newest first. Those that tried nothing neither count nor break the row.

    Notes
    -----
    A person who clears the switch says that what broke them is mended: runs that ended before it count no more.
    """
    mended = _cleared_at(conn, model)
    count = 0
    for run in past:
        if run.state in WORKED:
            break
        if run.state in BROKE:
            if mended is not None and run.finished_at is not None and run.finished_at <= mended:
                break
            count += 1
    return count


def settle(conn: Connection, row: ModelRow, *, at: datetime) -> None:
    """Set or clear the switch as the model's runs say; the caller's transaction holds it with its audit row."""
    policy, past = retrain_policy(row), runs.list_of(conn, row.name)
    switch = models.switches(conn, row.name).get(BREAKER)
    if switch is None:
        count = failures_in_a_row(conn, row.name, past)
        if count >= policy.breaker:
            last = next(run for run in past if run.state in BROKE)
            reason = f"{count} runs broke one after the other, the last with {last.code or last.state.value}"
            value = {"run": last.id, "failures": count}
            models.set_switch(conn, row.name, BREAKER, value=value, actor=ACTOR, reason=reason, at=at)
            _note(conn, "breaker_set", row.name, last.id, reason, at=at)
        return
    swaps = champions.history(conn, row.name)
    mended = next(
        (s for s in swaps if s.kind == "promote" and s.run_id and s.ended_at and s.ended_at > switch.at), None
    )
    if mended is not None:
        models.clear_switch(conn, row.name, BREAKER)
        _note(conn, "breaker_cleared", row.name, mended.run_id or "", f"version {mended.version} was promoted", at=at)


def _note(conn: Connection, action: str, model: str, run_id: str, reason: str, *, at: datetime) -> None:
    audit.append(conn, actor=ACTOR, action=action, model=model, subject=f"run {run_id}", reason=reason, facts={}, at=at)


def _cleared_at(conn: Connection, model: str) -> datetime | None:
    a = tables.audit.c
    query = select(func.max(a.at)).where(a.model == model, a.action == "switch_cleared", a.subject == BREAKER)
    found: datetime | None = conn.scalar(query)
    return found
