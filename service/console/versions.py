"""Versions: all of a model's, and one with its champion side by side, its gate, its lineage and when it served."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request

from service.console.look import look
from service.console.site import Shown
from service.domain.errors import UnknownVersion
from service.storage import champions, models, probations, versions
from service.storage.champions import Swap
from service.storage.versions import VersionRow

__all__ = ["version", "version_list"]


def version_list(conn: Connection, request: Request) -> Shown:
    """Return the page of a model's versions, the newest first."""
    row = models.get(conn, request.path_params["model"])
    facts = {
        "title": f"Versions of {row.name}",
        "model": row.name,
        "versions": versions.list_of(conn, row.name),
        "champion": champions.current(conn, row.name),
        "served": _served(champions.history(conn, row.name)),
    }
    return Shown("versions.html", facts)


def version(conn: Connection, request: Request) -> Shown:
    """Return a version's page."""
    name, given = request.path_params["model"], request.path_params["version"]
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        msg = "that is no version's number"
        raise UnknownVersion(msg)
    found = look(conn, name, recent=1)
    row = versions.get(conn, name, int(given))
    parent = None if row.parent is None else versions.find(conn, name, row.parent)
    lineage = row.lineage or {}
    evaluation = lineage.get("evaluation") or {}
    figures = evaluation.get("figures") or {}
    return Shown(
        "version.html",
        {
            "title": f"{name} version {row.version}",
            "look": found,
            "row": row,
            "parent": parent,
            "is_champion": found.champion is not None and found.champion.version == row.version,
            "can_go_back": row.version in found.targets,
            "can_promote": row.state.value in {"approved", "rejected", "candidate", "retired"},
            "lineage": lineage,
            "gate": evaluation.get("gate"),
            "holdout": evaluation.get("holdout"),
            "paired": figures.get("paired"),
            "slices": figures.get("slices") or [],
            "sides": _sides(row, parent, figures.get("paired")),
            "served": _served(champions.history(conn, name)).get(row.version, []),
            "probation": probations.latest_of_version(conn, name, row.version),
        },
    )


def _served(history: Sequence[Swap]) -> Mapping[int, list[dict[str, Any]]]:
    """Return for each version the times in which it was champion, the newest first."""
    found: dict[int, list[dict[str, Any]]] = {}
    until = None
    for swap in history:
        found.setdefault(swap.version, []).append({"swap": swap, "until": until})
        until = swap.ended_at
    return found


def _sides(row: VersionRow, parent: VersionRow | None, paired: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return challenger and champion beside each other, a line for each thing that both have."""
    if parent is None:
        return []
    lines = []
    if paired:
        lines.append(
            {
                "what": f"{(row.metrics or {}).get('metric')} on the same {paired.get('n')} rows",
                "left": paired.get("challenger"), "right": paired.get("champion"), "is_main": True,
            }
        )  # fmt: skip
    for what, key in (("on its own holdout", "value"), ("loss there", "loss"), ("rows there", "n")):
        lines.append(
            {
                "what": what, "left": (row.metrics or {}).get(key), "right": (parent.metrics or {}).get(key),
                "is_main": False,
            }
        )  # fmt: skip
    for what, place in (("rows learned from", "fit_rows"), ("history", "window")):
        left, right = (((one.lineage or {}).get("training") or {}).get(place) for one in (row, parent))
        lines.append({"what": what, "left": left, "right": right, "is_main": False})
    return lines
