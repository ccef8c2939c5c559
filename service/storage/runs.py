"""Runs: each one a row with a state. Every transition is written with who, why, when and under which token."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from service.domain.errors import Conflict, LeaseLost, NotAllowedNow, RunInProgress, UnknownRun
from service.domain.run import ACTIVE, TERMINAL, RunState, Trigger, may_follow
from service.storage import notices
from service.storage.database import insert_new
from service.storage.ids import new_id
from service.storage.tables import run_events, runs

__all__ = [
    "Run",
    "RunEvent",
    "active",
    "create",
    "events",
    "get",
    "heartbeat",
    "list_of",
    "lock",
    "progress",
    "retried",
    "revision",
    "since",
    "transition",
    "unfinished",
]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run."""

    id: str
    model: str
    state: RunState
    active: bool
    trigger: Trigger
    actor: str
    reason: str
    force: bool
    idempotency_key: str | None
    request_digest: str | None
    check_id: str | None
    until: datetime | None
    attempt: int
    token: int | None
    version: int | None
    code: str | None
    detail: str | None
    snapshot: dict[str, Any] | None
    snapshot_digest: str | None
    candidates: Any
    gate: dict[str, Any] | None
    progress: dict[str, Any] | None
    seconds: dict[str, Any] | None
    peak_bytes: int | None
    requested_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None
    finished_at: datetime | None
    decided_event_time: datetime | None
    not_before: datetime | None


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """One transition."""

    run_id: str
    seq: int
    at: datetime
    before: RunState | None
    after: RunState
    actor: str
    reason: str
    token: int | None
    code: str | None = None


def create(
    conn: Connection,
    model: str,
    *,
    trigger: Trigger,
    actor: str,
    reason: str,
    at: datetime,
    force: bool = False,
    check_id: str | None = None,
    until: datetime | None = None,
    idempotency_key: str | None = None,
    request_digest: str | None = None,
) -> Run:
    """Queue a run.

    Returns
    -------
    Run
        The new one, or the one that the same idempotency key with the same request made before.

    Raises
    ------
    RunInProgress
        If the model has an active run; ``facts["run"]`` names it.
    Conflict
        If the idempotency key was used for another request.
    """
    stored = _same_request(conn, model, idempotency_key, request_digest)
    if stored is not None:
        return stored
    run_id = new_id()
    is_new = insert_new(
        conn,
        runs,
        id=run_id,
        model=model,
        state=RunState.QUEUED.value,
        active=True,
        trigger=trigger.value,
        actor=actor,
        reason=reason,
        force=force,
        idempotency_key=idempotency_key,
        request_digest=request_digest,
        check_id=check_id,
        until=until,
        requested_at=at,
    )
    if not is_new:
        # Another transaction was faster, with the same key or with a run of its own.
        stored = _same_request(conn, model, idempotency_key, request_digest)
        if stored is not None:
            return stored
        raise _in_progress(conn, model)
    _record(conn, run_id, at=at, before=None, after=RunState.QUEUED, actor=actor, reason=reason, token=None)
    return get(conn, run_id)


def transition(
    conn: Connection,
    run_id: str,
    after: RunState,
    *,
    actor: str,
    reason: str,
    at: datetime,
    token: int | None = None,
    **columns: Any,
) -> Run:
    """Move the run to `after` and write `columns` with it.

    Parameters
    ----------
    token
        The leader's fencing token; None for what a person asks for.

    Raises
    ------
    NotAllowedNow
        If `after` may not follow the run's state.
    LeaseLost
        If a newer leader works on the run.
    RunInProgress
        If the run would become active while another one of its model is.
    """
    row = _locked(conn, run_id, token)
    before = RunState(row.state)
    if not may_follow(before, after):
        msg = f"the run is {before.value}: it can't become {after.value}"
        raise NotAllowedNow(msg, run=run_id, state=before.value, after=after.value)
    last = conn.execute(
        select(run_events.c.at).where(run_events.c.run_id == run_id).order_by(run_events.c.seq.desc()).limit(1)
    ).scalar_one()
    spent = dict(row.seconds or {})
    spent[before.value] = round(spent.get(before.value, 0.0) + max((at - last).total_seconds(), 0.0), 3)
    values: dict[str, Any] = {"state": after.value, "active": after in ACTIVE, "heartbeat_at": at, "seconds": spent}
    if token is not None:
        values["token"] = token
    if row.started_at is None and after is RunState.PREPARING:
        values["started_at"] = at
    if after in TERMINAL:
        values["finished_at"] = at
    try:
        with conn.begin_nested():
            conn.execute(update(runs).where(runs.c.id == run_id).values(**{**values, **columns}))
    except IntegrityError as error:
        raise _in_progress(conn, row.model) from error
    code = columns.get("code")
    _record(conn, run_id, at=at, before=before, after=after, actor=actor, reason=reason, token=token, code=code)
    moved = get(conn, run_id)
    notices.run_moved(conn, moved, at=at)
    return moved


def heartbeat(conn: Connection, run_id: str, *, at: datetime, token: int | None = None) -> None:
    """Say that the run is still worked on; raises `LeaseLost` if a newer leader works on it."""
    _locked(conn, run_id, token)
    conn.execute(update(runs).where(runs.c.id == run_id).values(heartbeat_at=at))


def progress(conn: Connection, run_id: str, *, at: datetime, token: int | None = None, **facts: Any) -> None:
    """Write how far the run is: step, done, of, words; counts as a heartbeat."""
    _locked(conn, run_id, token)
    conn.execute(update(runs).where(runs.c.id == run_id).values(progress=facts, heartbeat_at=at))


def get(conn: Connection, run_id: str) -> Run:
    """Return the run.

    Raises
    ------
    UnknownRun
        If no run has that id.
    """
    row = conn.execute(select(runs).where(runs.c.id == run_id)).mappings().one_or_none()
    if row is None:
        msg = "no run has that id"
        raise UnknownRun(msg)
    return _run(row)


def lock(conn: Connection, run_id: str) -> Run:
    """Return the run, and keep it as it is until the caller's transaction ends; raises as `get` does."""
    _locked(conn, run_id, None)
    return get(conn, run_id)


def list_of(conn: Connection, model: str | None = None, *, limit: int = 100, before: str | None = None) -> list[Run]:
    """Return the newest runs first, by the database's clock; `before` is the id to go on from.

    Not by the ids' own time: they are made on hosts, whose clocks may differ.
    """
    place = (runs.c.requested_at, runs.c.id)
    query = select(runs).order_by(*(column.desc() for column in place)).limit(limit)
    if model is not None:
        query = query.where(runs.c.model == model)
    if before is not None:
        query = query.where(tuple_(*place) < select(*place).where(runs.c.id == before).scalar_subquery())
    return [_run(row) for row in conn.execute(query).mappings()]


def active(conn: Connection, model: str) -> Run | None:
    """Return the model's active run."""
    row = conn.execute(select(runs).where(runs.c.model == model, runs.c.active)).mappings().one_or_none()
    return None if row is None else _run(row)


def events(conn: Connection, run_id: str) -> list[RunEvent]:
    """Return the run's transitions, the oldest first."""
    get(conn, run_id)
    query = select(run_events).where(run_events.c.run_id == run_id).order_by(run_events.c.seq)
    return [
        RunEvent(
            **{
                **row,
                "before": None if row["before"] is None else RunState(row["before"]),
                "after": RunState(row["after"]),
            }
        )
        for row in conn.execute(query).mappings()
    ]


def unfinished(conn: Connection) -> list[Run]:
    """Return the runs that have not ended, the oldest first: the waiting ones and those on probation among them."""
    ended = [state.value for state in TERMINAL]
    query = select(runs).where(runs.c.state.not_in(ended)).order_by(runs.c.requested_at, runs.c.id)
    return [_run(row) for row in conn.execute(query).mappings()]


def revision(conn: Connection, run_id: str) -> int:
    """Return the number of the run's newest transition: it changes with every one."""
    return conn.scalar(select(func.max(run_events.c.seq)).where(run_events.c.run_id == run_id)) or 0


def retried(conn: Connection, run_id: str, code: str) -> int:
    """Return how often the run went back to the queue because of `code`."""
    c = run_events.c
    query = select(func.count()).where(c.run_id == run_id, c.after == RunState.QUEUED.value, c.code == code)
    return conn.scalar(query) or 0


def since(conn: Connection, run_id: str, state: RunState) -> datetime | None:
    """Return when the run came to `state` for the first time."""
    c = run_events.c
    found: datetime | None = conn.scalar(select(func.min(c.at)).where(c.run_id == run_id, c.after == state.value))
    return found


def _same_request(conn: Connection, model: str, key: str | None, digest: str | None) -> Run | None:
    if key is None:
        return None
    query = select(runs).where(runs.c.model == model, runs.c.idempotency_key == key)
    row = conn.execute(query).mappings().one_or_none()
    if row is None:
        return None
    if row["request_digest"] != digest:
        msg = "this idempotency key was used for another request"
        raise Conflict(msg, run=row["id"])
    return _run(row)


def _in_progress(conn: Connection, model: str) -> RunInProgress:
    run = active(conn, model)
    msg = "the model has an active run" if run is None else f"run {run.id} is {run.state.value}"
    return RunInProgress(msg, model=model, run=None if run is None else run.id)


def _locked(conn: Connection, run_id: str, token: int | None) -> Row[Any]:
    row = conn.execute(select(runs).where(runs.c.id == run_id).with_for_update()).one_or_none()
    if row is None:
        msg = "no run has that id"
        raise UnknownRun(msg)
    if token is not None and row.token is not None and row.token > token:
        msg = f"a newer leader works on this run: its token is {row.token}, this one's {token}"
        raise LeaseLost(msg, run=run_id, token=token, newest=row.token)
    return row


def _record(
    conn: Connection,
    run_id: str,
    *,
    at: datetime,
    before: RunState | None,
    after: RunState,
    actor: str,
    reason: str,
    token: int | None,
    code: str | None = None,
) -> None:
    count = select(run_events.c.seq).where(run_events.c.run_id == run_id).order_by(run_events.c.seq.desc()).limit(1)
    conn.execute(
        run_events.insert().values(
            run_id=run_id,
            seq=(conn.scalar(count) or 0) + 1,
            at=at,
            before=None if before is None else before.value,
            after=after.value,
            actor=actor,
            reason=reason,
            token=token,
            code=code,
        )
    )


def _run(row: Any) -> Run:
    return Run(**{**row, "state": RunState(row["state"]), "trigger": Trigger(row["trigger"])})
