"""The first page: every model at a glance."""

import hashlib
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request

from service.console import charts
from service.console.look import Look, look, quality_of
from service.console.site import Shown
from service.console.words import kind_of
from service.storage import champions, models, replicas

__all__ = ["fleet", "wants"]

RECENT = 16
"""Checks that a model's line shows."""


def fleet(conn: Connection, request: Request) -> Shown:  # noqa: ARG001  every page is asked alike
    """Return the page of all models."""
    looks = [look(conn, row.name, recent=RECENT) for row in models.list_all(conn)]
    looks.sort(key=lambda one: (_urgency(one), one.name))
    workers = replicas.live(conn, 6.0)
    stamp = hashlib.sha256("".join(one.stamp for one in looks).encode()).hexdigest()[:16]
    return Shown(
        "fleet.html",
        {
            "title": "Fleet",
            "rows": [_line(one) for one in looks],
            "workers": len(workers),
            "champions": len(champions.all_current(conn)),
            "wanting": sum(_urgency(one) == 0 for one in looks),
        },
        stamp=stamp,
    )


def wants(found: Look) -> list[tuple[str, str]]:
    """Return what asks for a person: a colour and words each; nothing is the best answer."""
    told: list[tuple[str, str]] = []
    if found.row.error is not None:
        told.append(("bad", "its file can't be used"))
    if "quarantine" in found.switches:
        told.append(("bad", "data in quarantine"))
    if "breaker" in found.switches:
        told.append(("bad", "runs keep breaking"))
    if found.pending is not None:
        told.append(("wait", f"version {found.pending.version} awaits approval"))
    if found.suggestion is not None:
        told.append(("wait", "a run is suggested"))
    if "hold" in found.switches:
        told.append(("wait", "promotion is on hold"))
    if found.champion is None:
        told.append(("wait", "no champion"))
    elif found.in_step < found.workers:
        told.append(("wait", f"{found.workers - found.in_step} of {found.workers} workers behind"))
    return told


def _urgency(found: Look) -> int:
    if wants(found):
        return 0
    told = None if found.check is None else (found.check.reading or {}).get("signature") or found.check.verdict
    return 1 if kind_of(told) == "bad" or (found.runs and kind_of(found.runs[0].state) == "bad") else 2


def _line(found: Look) -> dict[str, Any]:
    seen = [one for one in (quality_of(check) for check in reversed(found.done)) if one is not None]
    return {
        "look": found,
        "wants": wants(found),
        "spark": charts.spark([one.value for one in seen if one.value is not None]),
    }
