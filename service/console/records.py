"""The audit, and the settings in force with where each came from."""

import re
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection
from starlette.requests import Request

from service.console.site import Shown, address
from service.storage import audit, models
from service.storage.audit import AuditRow

__all__ = ["audit_list", "settings_page"]

PAGE = 100
SECRET = re.compile(r"(secret|password|token|_key|credential)s?$", re.IGNORECASE)
HIDDEN = "••••••"


def audit_list(conn: Connection, request: Request) -> Shown:
    """Return the page of changes, the newest first."""
    name, before = request.query_params.get("model") or None, request.query_params.get("before", "")
    if name is not None:
        models.get(conn, name)
    at = int(before) if before.isascii() and before.isdigit() and len(before) < 16 else None
    listed = audit.list_of(conn, name, limit=PAGE, before=at)
    facts = {
        "title": "Audit",
        "rows": [(row, _subject(row)) for row in listed],
        "model": name,
        "names": [row.name for row in models.list_all(conn)],
        "more": listed[-1].seq if len(listed) == PAGE else None,
    }
    return Shown("audit.html", facts)


def settings_page(settings: Sequence[Mapping[str, str]]) -> Callable[[Connection, Request], Shown]:
    """Return the page of the settings; a secret's value never comes near it."""
    shown = [
        {**one, "value": HIDDEN if one["value"] and SECRET.search(one["name"]) else one["value"]} for one in settings
    ]

    def page(_conn: Connection, _request: Request) -> Shown:
        own = sum(one["origin"] != "default" for one in shown)
        return Shown("settings.html", {"title": "Settings", "settings": shown, "own": own})

    return page


def _subject(row: AuditRow) -> str | None:
    """Return the address of what was changed, where it has one."""
    subject = row.subject or ""
    if row.action.startswith(("run_", "suggestion_")):
        return address("runs", subject)
    if row.action.startswith("check_"):
        return address("checks", subject)
    version = row.facts.get("version")
    if row.model is not None and isinstance(version, int | float):
        return address("versions", row.model, int(version))
    return None if row.model is None else address("models", row.model)
