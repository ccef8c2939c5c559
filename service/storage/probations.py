"""Probations: champions that can still be taken back. One ends together with its run, in the caller's transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from service.domain.errors import Conflict, NotAllowedNow
from service.domain.probation import ProbationState
from service.domain.run import RunState
from service.domain.version import VersionState
from service.storage import audit, champions, notices, runs, versions
from service.storage.database import insert_new
from service.storage.tables import probations

__all__ = [
    "ProbationRow",
    "all_open",
    "begin",
    "end",
    "end_run",
    "find",
    "give_way",
    "latest_of_version",
    "list_of",
    "note",
    "of_run",
    "open_of",
    "rollback_targets",
]


NO_TARGET = "no_target"
"""Code of a champion that disappointed and serves on, for no version is left to go back to."""


@dataclass(frozen=True, kw_only=True)
class ProbationRow:
    """One champion on probation, or one that was."""

    model: str
    generation: int
    """What the promotion made it."""
    version: int
    previous_version: int
    """What it is compared with, and goes back to while that can answer."""
    run_id: str | None
    """None for a promotion by hand."""
    state: ProbationState
    began_at: datetime
    began_event_time: datetime | None
    """Where the data stood: the watch lasts in event time."""
    extended: int
    evidence: dict[str, Any] | None
    code: str | None
    """While it is watched: the breach that a pin keeps from its consequence."""
    reason: str | None
    ended_at: datetime | None
    ended_event_time: datetime | None


def begin(
    conn: Connection,
    model: str,
    *,
    generation: int,
    version: int,
    previous_version: int,
    run_id: str | None,
    at: datetime,
    event_time: datetime | None,
    actor: str,
) -> ProbationRow:
    """Open the probation of a new champion.

    Raises
    ------
    Conflict
        If another one of the model is open: end it first.
    """
    is_new = insert_new(
        conn,
        probations,
        model=model,
        generation=generation,
        version=version,
        previous_version=previous_version,
        run_id=run_id,
        state=ProbationState.WATCHING.value,
        began_at=at,
        began_event_time=event_time,
        extended=0,
    )
    row = find(conn, model, generation)
    if not is_new or row is None:
        msg = "another champion of this model is on probation"
        raise Conflict(msg, model=model)
    reason = f"version {version} is watched against version {previous_version}"
    _audit(conn, row, "probation_began", reason, actor=actor, at=at)
    return row


def find(conn: Connection, model: str, generation: int) -> ProbationRow | None:
    """Return the probation of a generation, or None."""
    c = probations.c
    return _one(conn, select(probations).where(c.model == model, c.generation == generation))


def open_of(conn: Connection, model: str) -> ProbationRow | None:
    """Return the model's open probation, or None."""
    c = probations.c
    return _one(conn, select(probations).where(c.model == model, c.state == ProbationState.WATCHING.value))


def all_open(conn: Connection) -> list[ProbationRow]:
    """Return the open probations by model."""
    query = select(probations).where(probations.c.state == ProbationState.WATCHING.value)
    return [_row(row) for row in conn.execute(query.order_by(probations.c.model)).mappings()]


def of_run(conn: Connection, run_id: str) -> ProbationRow | None:
    """Return the probation that a run's promotion began, or None."""
    return _one(conn, select(probations).where(probations.c.run_id == run_id))


def list_of(conn: Connection, model: str) -> list[ProbationRow]:
    """Return the model's probations, the newest first."""
    query = select(probations).where(probations.c.model == model).order_by(probations.c.generation.desc())
    return [_row(row) for row in conn.execute(query).mappings()]


def latest_of_version(conn: Connection, model: str, version: int) -> ProbationRow | None:
    """Return the version's newest probation, or None."""
    return next((row for row in list_of(conn, model) if row.version == version), None)


def note(conn: Connection, row: ProbationRow, **columns: Any) -> ProbationRow | None:
    """Write what a look showed (evidence, code, reason, extended …); None if it has ended meanwhile."""
    c = probations.c
    query = update(probations).where(
        c.model == row.model, c.generation == row.generation, c.state == ProbationState.WATCHING.value
    )
    if not conn.execute(query.values(**columns)).rowcount:
        return None
    return find(conn, row.model, row.generation)


def end(
    conn: Connection,
    row: ProbationRow,
    state: ProbationState,
    *,
    run_state: RunState,
    code: str,
    reason: str,
    actor: str,
    at: datetime,
    event_time: datetime | None,
    token: int | None = None,
) -> ProbationRow:
    """End an open probation, and its run with it, with an audit row.

    Parameters
    ----------
    run_state
        What its run becomes; nothing happens to a run that is not on probation.
    event_time
        Where the data stand now: the next cooldown counts from it.

    Raises
    ------
    NotAllowedNow
        If it has ended already.
    """
    c = probations.c
    query = update(probations).where(
        c.model == row.model, c.generation == row.generation, c.state == ProbationState.WATCHING.value
    )
    values = {"state": state.value, "code": code, "reason": reason, "ended_at": at, "ended_event_time": event_time}
    if not conn.execute(query.values(**values)).rowcount:
        msg = "that probation has ended already"
        raise NotAllowedNow(msg, model=row.model, generation=row.generation)
    _audit(conn, row, f"probation_{state.value}", reason, actor=actor, at=at, code=code, run=row.run_id)
    if state is ProbationState.ROLLED_BACK or code == NO_TARGET:
        outcome = "rolled_back" if state is ProbationState.ROLLED_BACK else NO_TARGET
        notices.probation_failed(conn, row, outcome=outcome, code=code, reason=reason, at=at)
    if row.run_id is not None:
        end_run(
            conn, row.run_id, run_state, code=code, reason=reason, actor=actor, at=at, event_time=event_time,
            token=token,
        )  # fmt: skip
    ended = find(conn, row.model, row.generation)
    assert ended is not None  # noqa: S101  it was updated a moment ago, in this transaction
    return ended


def end_run(
    conn: Connection,
    run_id: str,
    after: RunState,
    *,
    code: str,
    reason: str,
    actor: str,
    at: datetime,
    event_time: datetime | None,
    token: int | None = None,
) -> None:
    """Move a run on from its probation; a run that is not on probation stays as it is."""
    run = runs.get(conn, run_id)
    if run.state is not RunState.PROBATION:
        return
    columns: dict[str, Any] = {"code": code, "detail": reason}
    if after is RunState.ROLLED_BACK and event_time is not None:
        columns["decided_event_time"] = event_time
    runs.transition(conn, run_id, after, actor=actor, reason=reason, at=at, token=token, **columns)


def give_way(
    conn: Connection,
    model: str,
    *,
    is_rollback: bool,
    actor: str,
    reason: str,
    at: datetime,
    event_time: datetime | None,
    token: int | None = None,
) -> ProbationRow | None:
    """End the model's open probation because another champion takes its place; return it as it ended, or None.

    Call it after `champions.swap`, in the same transaction. A version that a person takes back from its probation is
    quarantined: it was disliked before it had proved itself, and nothing may choose it automatically again.
    """
    row = open_of(conn, model)
    if row is None:
        return None
    if is_rollback:
        versions.set_state(conn, model, row.version, VersionState.QUARANTINED)
    return end(
        conn,
        row,
        ProbationState.ENDED,
        run_state=RunState.ROLLED_BACK if is_rollback else RunState.SUPERSEDED,
        code="rolled_back_by_person" if is_rollback else "superseded",
        reason=reason,
        actor=actor,
        at=at,
        event_time=event_time,
        token=token,
    )


def rollback_targets(conn: Connection, model: str) -> list[int]:
    """Return the versions that the champion can be taken back to, the best first.

    Those that were champion and were kept: they completed their probation, or had none (the first version of a model,
    or a policy without one). Not the champion, and none that is quarantined or whose artifact is gone. Those that were
    taken back come last: whoever goes back twice wants to come further back, not to what was bad an hour ago.
    """
    current = champions.current(conn, model)
    watched = {row.generation: row.state for row in list_of(conn, model)}
    found: dict[int, None] = {}
    for swap in champions.history(conn, model):
        is_proven = watched.get(swap.generation or 0, ProbationState.KEPT) is ProbationState.KEPT
        if current is None or swap.version == current.version or not is_proven or swap.version in found:
            continue
        if versions.get(conn, model, swap.version).state not in {VersionState.QUARANTINED, VersionState.ARCHIVED}:
            found[swap.version] = None
    taken = champions.taken_back(conn, model)
    return sorted(found, key=taken.__contains__)


def _audit(
    conn: Connection, row: ProbationRow, action: str, reason: str, *, actor: str, at: datetime, **facts: Any
) -> None:
    audit.append(
        conn,
        actor=actor,
        action=action,
        model=row.model,
        subject=f"generation {row.generation}",
        reason=reason,
        facts={"version": row.version, "previous_version": row.previous_version, **facts},
        at=at,
    )


def _one(conn: Connection, query: Any) -> ProbationRow | None:
    row = conn.execute(query).mappings().one_or_none()
    return None if row is None else _row(row)


def _row(row: Any) -> ProbationRow:
    return ProbationRow(**{**row, "state": ProbationState(row["state"])})
