"""Checks: all of them, and one with every step that led to its decision."""

import hashlib
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request

from service.console.look import quality_of
from service.console.site import Shown
from service.control import replay
from service.domain.check import CheckState
from service.storage import checks, models
from service.storage.checks import Check

__all__ = ["check", "check_list"]

PAGE = 50


def check_list(conn: Connection, request: Request) -> Shown:
    """Return the page of checks, the newest first."""
    name, before = request.query_params.get("model") or None, request.query_params.get("before")
    if name is not None:
        models.get(conn, name)
    listed = checks.list_of(conn, name, limit=PAGE, before=before)
    stamp = hashlib.sha256(repr([(one.id, one.state) for one in listed]).encode()).hexdigest()[:16]
    facts = {
        "title": "Checks",
        "checks": [(one, quality_of(one)) for one in listed],
        "model": name,
        "names": [row.name for row in models.list_all(conn)],
        "more": listed[-1].id if len(listed) == PAGE else None,
    }
    return Shown("checks.html", facts, stamp=stamp)


def check(conn: Connection, request: Request) -> Shown:
    """Return a check's page."""
    found = checks.get(conn, request.path_params["check_id"])
    is_decided = found.examination is not None and found.situation is not None and found.decision is not None
    explanation = replay.explained(conn, found.id)[1] if is_decided else None
    seen = found.examination or {}
    facts = {
        "title": f"Check {found.id[-8:]}",
        "check": found,
        "explanation": explanation,
        "findings": seen.get("findings") or [],
        "columns": _columns(found),
        "drift": seen.get("drift"),
        "quality": quality_of(found),
        "performance": seen.get("performance") or {},
        "is_done": found.state is CheckState.DONE,
    }
    stamp = hashlib.sha256(repr((found.state, found.run_id)).encode()).hexdigest()[:16]
    return Shown("check.html", facts, stamp=stamp)


def _columns(found: Check) -> list[dict[str, Any]]:
    """Return each column with how far it stands from its threshold, the farthest first."""
    listed = []
    for one in (found.examination or {}).get("columns") or ():
        statistic, threshold = one.get("statistic"), one.get("threshold")
        ratio = statistic / threshold if isinstance(statistic, int | float) and threshold else None
        listed.append({**one, "ratio": ratio})
    return sorted(listed, key=lambda one: (-(one["ratio"] or 0.0), str(one.get("column"))))
