"""Notices: what other systems are told, written in the very transaction of the change that it tells of.

Each kind has its own closed set of fields: no actor, no key, nothing that a request brought along but its reason.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from service.domain.notice import RUN_KINDS, Kind
from service.storage.ids import new_id
from service.storage.tables import notices

if TYPE_CHECKING:
    from service.storage.champions import Champion
    from service.storage.checks import Check
    from service.storage.probations import ProbationRow
    from service.storage.runs import Run

__all__ = [
    "Notice",
    "breaker_opened",
    "champion_changed",
    "data_quarantined",
    "drift_confirmed",
    "probation_failed",
    "run_moved",
]


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One thing that is told."""

    id: str
    kind: Kind
    model: str
    subject: str
    """The address of what it is about, in the API."""
    at: datetime
    data: dict[str, Any]


def run_moved(conn: Connection, run: "Run", *, at: datetime) -> None:
    """Tell of a run that has ended, or that waits for a person."""
    kind = RUN_KINDS.get(run.state)
    if kind is None:
        return
    data = {
        "run": run.id,
        "state": run.state.value,
        "trigger": run.trigger.value,
        "code": run.code,
        "detail": run.detail,
        "version": run.version,
        "attempt": run.attempt,
        "requested_at": _text(run.requested_at),
        "finished_at": _text(run.finished_at),
    }
    _write(conn, kind, run.model, subject=f"/v1/runs/{run.id}", at=at, data=data)


def champion_changed(
    conn: Connection, after: "Champion", *, is_rollback: bool, run_id: str | None, at: datetime
) -> None:
    """Tell of a new champion."""
    kind = Kind.CHAMPION_ROLLED_BACK if is_rollback else Kind.CHAMPION_PROMOTED
    data = {
        "version": after.version,
        "previous_version": after.previous_version,
        "generation": after.generation,
        "run": run_id,
        "reason": after.reason,
    }
    _write(conn, kind, after.model, subject=f"/v1/models/{after.model}", at=at, data=data)


def drift_confirmed(conn: Connection, check: "Check", *, at: datetime) -> None:
    """Tell of a drift alarm that so many windows in a row have confirmed."""
    _write(conn, Kind.DRIFT_CONFIRMED, check.model, subject=_address(check), at=at, data=_of_check(check))


def data_quarantined(conn: Connection, check: "Check", *, at: datetime) -> None:
    """Tell of data that are broken upstream."""
    _write(conn, Kind.DATA_QUARANTINED, check.model, subject=_address(check), at=at, data=_of_check(check))


def breaker_opened(conn: Connection, model: str, *, run_id: str, failures: int, reason: str, at: datetime) -> None:
    """Tell that runs are only suggested from now on."""
    data = {"run": run_id, "failures": failures, "reason": reason}
    _write(conn, Kind.BREAKER_OPENED, model, subject=f"/v1/models/{model}", at=at, data=data)


def probation_failed(
    conn: Connection, row: "ProbationRow", *, outcome: str, code: str, reason: str, at: datetime
) -> None:
    """Tell of a champion that disappointed.

    Parameters
    ----------
    outcome
        ``rolled_back``, or why it serves on: ``pinned``, ``no_target``.
    """
    data = {
        "version": row.version,
        "previous_version": row.previous_version,
        "generation": row.generation,
        "run": row.run_id,
        "outcome": outcome,
        "code": code,
        "reason": reason,
    }
    _write(conn, Kind.PROBATION_FAILED, row.model, subject=f"/v1/models/{row.model}", at=at, data=data)


def _of_check(check: "Check") -> dict[str, Any]:
    return {
        "check": check.id,
        "version": check.version,
        "window_from": _text(check.window_from),
        "window_until": _text(check.window_until),
        "rows": check.rows,
        "reason": check.reason,
        "decision": (check.decision or {}).get("code"),
        "run": check.run_id,
    }


def _address(check: "Check") -> str:
    return f"/v1/models/{check.model}/checks/{check.id}"


def _write(conn: Connection, kind: Kind, model: str, *, subject: str, at: datetime, data: dict[str, Any]) -> None:
    values = {"kind": kind.value, "model": model, "subject": subject, "at": at, "data": {"model": model, **data}}
    conn.execute(notices.insert().values(id=new_id(), spread=False, **values))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
