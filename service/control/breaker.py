"""The circuit breaker: after too many runs that broke, one after the other, runs are only suggested.

A switch like the others: it outlives restarts, stands in the audit, and a person clears it, or a run that promotes.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, func, select

from service.domain.policy import Retrain
from service.domain.run import BROKE, JUDGED
from service.storage import audit, champions, models, notices, runs, tables
from service.storage.models import ModelRow, policy_of
from service.storage.runs import Run

__all__ = ["BREAKER", "failures_in_a_row", "settle"]

ACTOR = "controller"
BREAKER = "breaker"
"""Name of the switch."""


def failures_in_a_row(conn: Connection, model: str, past: Sequence[Run]) -> int:
    """Return how many of the newest runs broke, one after the other.

    Parameters
    ----------
    past
        The model's runs, newest first. Those that tried nothing neither count nor break the row.

    Notes
    -----
    A person who clears the switch says that what broke them is mended, and a promotion shows it: runs that ended
    before count no more, also where the run that promoted had waited for its approval since before they began.
    """
    mended = max((at for at in (_cleared_at(conn, model), _promoted_at(conn, model)) if at), default=None)
    count = 0
    for run in past:
        if run.state in JUDGED:
            break
        if run.state in BROKE:
            if mended is not None and run.finished_at is not None and run.finished_at <= mended:
                break
            count += 1
    return count


def settle(conn: Connection, row: ModelRow, *, at: datetime) -> None:
    """Set or clear the switch as the model's runs say; the caller's transaction holds it with its audit row."""
    policy, past = policy_of(row, Retrain), runs.list_of(conn, row.name)
    switch = models.switches(conn, row.name).get(BREAKER)
    if switch is None:
        count = failures_in_a_row(conn, row.name, past)
        if count >= policy.breaker:
            last = next(run for run in past if run.state in BROKE)
            reason = f"{count} runs broke one after the other, the last with {last.code or last.state.value}"
            value = {"run": last.id, "failures": count}
            models.set_switch(conn, row.name, BREAKER, value=value, actor=ACTOR, reason=reason, at=at)
            _note(conn, "breaker_set", row.name, reason, at=at)
            notices.breaker_opened(conn, row.name, run_id=last.id, failures=count, reason=reason, at=at)
        return
    promoted = _promoted_at(conn, row.name)
    if promoted is not None and promoted > switch.at:
        models.clear_switch(conn, row.name, BREAKER)
        _note(conn, "breaker_cleared", row.name, "a run's version was promoted", at=at)


def _note(conn: Connection, action: str, model: str, reason: str, *, at: datetime) -> None:
    audit.append(conn, actor=ACTOR, action=action, model=model, subject=BREAKER, reason=reason, facts={}, at=at)


def _promoted_at(conn: Connection, model: str) -> datetime | None:
    """Return when a run's version was last made champion; one by hand shows nothing of runs."""
    swaps = (swap for swap in champions.history(conn, model) if swap.kind == "promote" and swap.run_id is not None)
    return next((swap.ended_at for swap in swaps), None)


def _cleared_at(conn: Connection, model: str) -> datetime | None:
    a = tables.audit.c
    query = select(func.max(a.at)).where(a.model == model, a.action == "switch_cleared", a.subject == BREAKER)
    found: datetime | None = conn.scalar(query)
    return found
