"""Runs: all of them, and one with its way through the states, its gate and what it came to."""

import hashlib
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request

from service.console.site import Shown
from service.domain.run import TERMINAL, RunState
from service.storage import models, runs, versions
from service.storage.runs import Run

__all__ = ["run", "run_list", "stamp_of"]

PAGE = 50
WAY = (
    RunState.QUEUED, RunState.PREPARING, RunState.VALIDATING, RunState.TRAINING, RunState.PACKAGING,
    RunState.EVALUATING, RunState.PROMOTING, RunState.PROBATION, RunState.SUCCEEDED,
)  # fmt: skip
"""Of a run in which nothing goes wrong."""


def run_list(conn: Connection, request: Request) -> Shown:
    """Return the page of runs, the newest first."""
    name, before = request.query_params.get("model") or None, request.query_params.get("before")
    if name is not None:
        models.get(conn, name)
    listed = runs.list_of(conn, name, limit=PAGE, before=before)
    stamp = hashlib.sha256(repr([(one.id, one.state) for one in listed]).encode()).hexdigest()[:16]
    more = listed[-1].id if len(listed) == PAGE else None
    facts = {"title": "Runs", "runs": listed, "model": name, "more": more, "names": _names(conn)}
    return Shown("runs.html", facts, stamp=stamp)


def run(conn: Connection, request: Request) -> Shown:
    """Return a run's page."""
    found = runs.get(conn, request.path_params["run_id"])
    events = runs.events(conn, found.id)
    row = None if found.version is None else versions.find(conn, found.model, found.version)
    return Shown(
        "run.html",
        {
            "title": f"Run {found.id[-8:]}",
            "run": found,
            "events": events,
            "revision": runs.revision(conn, found.id),
            "way": _way(found, {event.after for event in events}),
            "is_over": found.state in TERMINAL,
            "can_cancel": found.state not in TERMINAL | {RunState.PROBATION, RunState.CANCELLING},
            "version": row,
            "total": sum((found.seconds or {}).values()),
        },
        stamp=stamp_of(found),
    )


def stamp_of(found: Run) -> str:
    """Return what changes whenever the run's page does."""
    seen = (found.state, found.progress, found.version, found.attempt, found.code)
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def _way(found: Run, seen: set[RunState]) -> list[dict[str, Any]]:
    """Return the steps: those behind it, the one where it stands, and those ahead while it can still come there."""
    over = found.state in TERMINAL
    way = [state for state in WAY if state in seen or not over]
    strange = [state for state in RunState if state in seen and state not in WAY]
    ends = [state for state in strange if state in TERMINAL]
    between = [state for state in strange if state not in TERMINAL and state is found.state]
    if between:
        place = way.index(RunState.EVALUATING) + 1 if RunState.EVALUATING in way else len(way)
        way[place:place] = between
    steps = [*way, *ends]
    return [
        {
            "state": state.value,
            "place": "now" if state is found.state else "done" if state in seen else "ahead",
            "seconds": (found.seconds or {}).get(state.value),
        }
        for state in steps
    ]


def _names(conn: Connection) -> list[str]:
    return [row.name for row in models.list_all(conn)]
