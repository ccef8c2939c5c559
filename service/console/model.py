"""A model's page: what serves, since when, why, whether it is good, and what would happen on each button."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request

from service.console import charts, consequences, words
from service.console.charts import Cell, Line, Mark, Point
from service.console.fleet import wants
from service.console.look import Look, Quality, look, quality_of
from service.console.site import Shown, address
from service.domain.policy import Probation
from service.domain.probation import watched_until
from service.storage import champions, versions
from service.storage.checks import Check
from service.storage.versions import VersionRow

__all__ = ["model"]

TOP = 16
"""Features that the heat map shows; the check's own page has all."""
LEVELS = (0.5, 0.8, 1.0, 1.5, 2.5)


def model(conn: Connection, request: Request) -> Shown:
    """Return a model's page."""
    found = look(conn, request.path_params["model"])
    known = {row.version: row for row in versions.list_of(conn, found.name)}
    target = known.get(found.targets[0]) if found.targets else None
    seen = [one for one in (quality_of(check) for check in reversed(found.done)) if one is not None]
    names, windows, cells = _heat(found.done)
    return Shown(
        "model.html",
        {
            "title": found.name,
            "look": found,
            "wants": wants(found),
            "retrain": consequences.of_retrain(found),
            "rollback": consequences.of_rollback(found, target=target),
            "check": consequences.of_check(found),
            "target": found.targets[0] if found.targets else None,
            "until": _until(found),
            "chart": _chart(conn, found, seen, known),
            "seen": list(reversed(seen))[:12],
            "heat": charts.heat(names, windows, cells),
            "moved": list(zip(names, cells, strict=True)),
            "windows": windows,
            "coverage": charts.spark([one.coverage for one in seen][-24:]),
            "versions": list(known.values())[:5],
            "many": len(known),
        },
        stamp=found.stamp,
    )


def _until(found: Look) -> Any:
    if found.probation is None:
        return None
    return watched_until(found.policy(Probation), found.probation.began_event_time, found.probation.extended)


def _chart(conn: Connection, found: Look, seen: Sequence[Quality], known: Mapping[int, VersionRow]) -> Any:
    points, lines = [], []
    told = [one for one in seen if one.value is not None and one.check.window_until is not None]
    for place, one in enumerate(told):
        at = one.check.window_until
        if at is None or one.value is None:
            continue
        words_ = (
            f"{words.moment(at)}: {one.metric} {words.number(one.value)}, version {one.check.version}, "
            f"{one.labelled} of {one.rows} rows labelled, {one.check.verdict}"
        )
        points.append(
            Point(
                at=at, value=one.value, href=address("checks", one.check.id), words=words_,
                kind=words.kind_of(one.check.verdict),
            )
        )  # fmt: skip
        version = known.get(one.check.version or 0)
        expected = None if version is None else (version.metrics or {}).get("value")
        if isinstance(expected, int | float):
            before = told[place - 1].check.window_until if place else None
            lines.append(Line(since=before or at - timedelta(days=1), until=at, value=float(expected)))
    marks = [
        Mark(
            at=swap.event_time,
            version=swap.version,
            kind=swap.kind,
            href=address("versions", found.name, swap.version),
            words=f"{words.moment(swap.event_time)}: {swap.kind} to version {swap.version} by {swap.actor}: "
            f"{swap.reason}",
        )
        for swap in reversed(champions.history(conn, found.name))
        if swap.event_time is not None
    ]
    metric = told[-1].metric if told else str(found.spec.get("metric") or "")
    return charts.quality(points, lines, marks, metric=metric)


def _heat(done: Sequence[Check]) -> tuple[list[str], list[tuple[Any, str, str]], list[list[Cell]]]:
    """Return features with the largest movement, windows and cells; columns of a quarantined window stand empty."""
    shown = [check for check in reversed(done) if check.window_until is not None][-44:]
    by_check = [{str(one["column"]): one for one in (check.examination or {}).get("columns") or ()} for check in shown]
    worst: dict[str, float] = {}
    for columns in by_check:
        for name, one in columns.items():
            worst[name] = max(worst.get(name, 0.0), _ratio(one) or 0.0)
    names = sorted(worst, key=lambda name: (-worst[name], name))[:TOP]
    windows = [(check.window_until, address("checks", check.id), str(check.verdict)) for check in shown]
    cells = [
        [_cell(name, check, columns.get(name)) for check, columns in zip(shown, by_check, strict=True)]
        for name in names
    ]
    return names, windows, cells


def _ratio(column: Mapping[str, Any]) -> float | None:
    statistic, threshold = column.get("statistic"), column.get("threshold")
    if not isinstance(statistic, int | float) or not isinstance(threshold, int | float) or not threshold:
        return None
    return statistic / threshold


def _cell(name: str, check: Check, column: Mapping[str, Any] | None) -> Cell:
    at = words.moment(check.window_until)
    ratio = None if column is None else _ratio(column)
    if column is None or ratio is None:
        why = check.verdict if column is None else column.get("reason") or "not evaluated"
        return Cell(level=None, words=f"{name}, {at}: {why}")
    figures = f"{column.get('method')} {words.number(column['statistic'])} against {words.number(column['threshold'])}"
    return Cell(level=sum(ratio >= limit for limit in LEVELS), words=f"{name}, {at}: {figures}")
