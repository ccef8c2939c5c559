"""Checks: what was looked at, what it showed, and what was decided."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, tuple_, update

from service.domain.check import CheckState
from service.domain.errors import LeaseLost, NotAllowedNow, UnknownCheck
from service.storage.database import insert_new
from service.storage.ids import new_id
from service.storage.tables import checks

__all__ = [
    "Check", "create", "fail", "finish", "get", "latest_done", "list_of", "newest", "start", "unfinished", "verdicts",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check."""

    id: str
    model: str
    state: CheckState
    active: bool
    actor: str
    version: int | None
    generation: int | None
    window_from: datetime | None
    window_until: datetime | None
    rows: int | None
    verdict: str | None
    reason: str | None
    examination: dict[str, Any] | None
    situation: dict[str, Any] | None
    decision: dict[str, Any] | None
    degraded: bool | None
    run_id: str | None
    lake_version: int | None
    report: str | None
    error: str | None
    token: int | None
    requested_at: datetime
    finished_at: datetime | None
    seconds: dict[str, Any] | None
    peak_bytes: int | None


def create(conn: Connection, model: str, *, actor: str, at: datetime, **columns: Any) -> Check:
    """Queue a check; return the model's active one instead if it has one, for a check may be asked for twice."""
    check_id = new_id()
    is_new = insert_new(
        conn,
        checks,
        id=check_id,
        model=model,
        state=CheckState.QUEUED.value,
        active=True,
        actor=actor,
        requested_at=at,
        **columns,
    )
    if is_new:
        return get(conn, check_id)
    row = conn.execute(select(checks).where(checks.c.model == model, checks.c.active)).mappings().one()
    return _check(row)


def start(conn: Connection, check_id: str, *, token: int | None = None, **columns: Any) -> Check:
    """Mark the check as running."""
    return _change(conn, check_id, token=token, state=CheckState.RUNNING, **columns)


def finish(conn: Connection, check_id: str, *, at: datetime, token: int | None = None, **columns: Any) -> Check:
    """End the check with what it showed: any of the table's columns.

    Raises
    ------
    UnknownCheck, NotAllowedNow, LeaseLost
        If there is no such check, it has ended already, or a newer leader works on it.
    """
    return _change(conn, check_id, token=token, state=CheckState.DONE, active=False, finished_at=at, **columns)


def fail(
    conn: Connection, check_id: str, *, error: str, at: datetime, token: int | None = None, **columns: Any
) -> Check:
    """End the check without a verdict; raises as `finish` does."""
    return _change(
        conn, check_id, token=token, state=CheckState.FAILED, active=False, finished_at=at, error=error, **columns
    )


def get(conn: Connection, check_id: str) -> Check:
    """Return the check.

    Raises
    ------
    UnknownCheck
        If no check has that id.
    """
    row = conn.execute(select(checks).where(checks.c.id == check_id)).mappings().one_or_none()
    if row is None:
        msg = "no check has that id"
        raise UnknownCheck(msg)
    return _check(row)


def list_of(conn: Connection, model: str | None = None, *, limit: int = 100, before: str | None = None) -> list[Check]:
    """Return the newest checks first, by the database's clock; `before` is the id to go on from."""
    place = (checks.c.requested_at, checks.c.id)
    query = select(checks).order_by(*(column.desc() for column in place)).limit(limit)
    if model is not None:
        query = query.where(checks.c.model == model)
    if before is not None:
        query = query.where(tuple_(*place) < select(*place).where(checks.c.id == before).scalar_subquery())
    return [_check(row) for row in conn.execute(query).mappings()]


def newest(conn: Connection, model: str) -> Check | None:
    """Return the model's newest check, whatever its state."""
    return next(iter(list_of(conn, model, limit=1)), None)


def latest_done(conn: Connection, model: str) -> Check | None:
    """Return the model's newest check with a verdict."""
    query = select(checks).where(checks.c.model == model, checks.c.state == CheckState.DONE.value)
    query = query.order_by(checks.c.requested_at.desc(), checks.c.id.desc()).limit(1)
    row = conn.execute(query).mappings().one_or_none()
    return None if row is None else _check(row)


def verdicts(
    conn: Connection, model: str, *, actor: str, after: datetime
) -> list[tuple[datetime, str | None, int | None]]:
    """Return end of window, verdict and generation of an actor's checks since a moment of event time, oldest first."""
    c = checks.c
    query = select(c.window_until, c.verdict, c.generation).where(
        c.model == model, c.actor == actor, c.state == CheckState.DONE.value, c.window_until > after
    )
    return [(row.window_until, row.verdict, row.generation) for row in conn.execute(query.order_by(c.window_until))]


def unfinished(conn: Connection) -> list[Check]:
    """Return the checks that are queued or running."""
    return [_check(row) for row in conn.execute(select(checks).where(checks.c.active)).mappings()]


def _change(conn: Connection, check_id: str, *, token: int | None, **values: Any) -> Check:
    found = conn.execute(
        select(checks.c.active, checks.c.token).where(checks.c.id == check_id).with_for_update()
    ).one_or_none()
    if found is None:
        msg = "no check has that id"
        raise UnknownCheck(msg)
    if token is not None:
        if found.token is not None and found.token > token:
            msg = f"a newer leader works on this check: its token is {found.token}, this one's {token}"
            raise LeaseLost(msg, check=check_id, token=token, newest=found.token)
        values["token"] = token
    if not found.active:
        msg = "the check has ended already"
        raise NotAllowedNow(msg, check=check_id)
    values["state"] = values["state"].value
    conn.execute(update(checks).where(checks.c.id == check_id).values(**values))
    return get(conn, check_id)


def _check(row: Any) -> Check:
    return Check(**{**row, "state": CheckState(row["state"])})
