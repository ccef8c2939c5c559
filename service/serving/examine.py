"""The second look at a body that the typed decoder refused: what exactly is wrong, for every field of every row."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from service.domain.errors import InvalidRequest, InvalidRows
from service.domain.spec import Feature, Schema
from service.serving.block import Block, Layout
from service.serving.split import FORM

__all__ = [
    "LISTED",
    "MOMENT",
    "Fault",
    "examine",
    "misnamed",
    "moment_of",
    "odd_faults",
    "parse",
    "parse_json",
    "refuse",
    "shown",
]

LISTED = 100
"""So many faults are listed; of the others only the number is told."""
NAMED = 5
"""So many names stand in one error."""
_EXACT = 2**53
_MISSING: Any = object()
_NAMES = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
_TAKES: dict[str, frozenset[type]] = {
    "numeric": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "integer": frozenset({int}),
    "text": frozenset({str}),
}
_WANTED = {
    "numeric": "a number",
    "boolean": "true or false",
    "integer": "an integer",
    "text": "a string",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one field of one row."""

    row: int
    field: str
    code: str
    detail: str


def parse_json(body: bytes) -> Any:
    """Return the body's JSON; Python's own reader, since it also takes NaN, which is to be named, not only refused.

    Raises
    ------
    InvalidRequest
        If it is none.
    """
    if not body.strip():
        msg = "the body is empty: send JSON"
        raise InvalidRequest(msg)
    try:
        return json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        msg = f"the body is not UTF-8: byte {error.start} is none of it"
        raise InvalidRequest(msg) from None
    except json.JSONDecodeError as error:
        msg = f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise InvalidRequest(msg) from None
    except RecursionError:
        msg = "the body is nested too deeply"
        raise InvalidRequest(msg) from None
    except ValueError:
        msg = "the body holds a number with too many digits"
        raise InvalidRequest(msg) from None


def parse(body: bytes, schema: Schema) -> list[Any]:
    """Return the body's rows as it gives them: objects, where their shape allows it.

    Raises
    ------
    InvalidRequest
        If the body as a whole is not what the protocol asks for.
    """
    plain = parse_json(body)
    if not isinstance(plain, dict) or len(plain) != 1 or not plain.keys() <= {"instances", "columns", FORM}:
        forms = f'{{"instances": [...]}}, {{"columns": {{...}}}} or {{"{FORM}": {{...}}}}'
        msg = f"the body must be {forms}, and nothing beside it"
        raise InvalidRequest(msg)
    if "columns" in plain:
        return _rows_of_columns(plain["columns"])
    if FORM in plain:
        return _rows_of_split(plain[FORM], schema)
    rows = plain["instances"]
    if not isinstance(rows, list):
        msg = "instances must be a list of rows"
        raise InvalidRequest(msg)
    names = schema.names
    return [dict(zip(names, row, strict=True)) if _is_listed(row, names) else row for row in rows]


def examine(schema: Schema, rows: Sequence[Any]) -> tuple[list[dict[str, Any]], list[Fault]]:
    """Return the rows' values as the features want them, and all faults in the order of the rows."""
    faults: list[Fault] = []
    objects: list[tuple[int, dict[str, Any]]] = []
    known = {*schema.names, schema.timestamp}
    for place, row in enumerate(rows):
        if isinstance(row, dict):
            objects.append((place, row))
            faults += [Fault(place, shown(name), "unknown", _unknown(name, known)) for name in row.keys() - known]
        else:
            faults.append(Fault(place, "", "type", _shape(row, len(schema.names))))
    values: list[dict[str, Any]] = [{} for _ in objects]
    for feature in schema.features:
        faults += _examine_column(schema, feature, objects, values)
    for (place, row), value in zip(objects, values, strict=True):
        if schema.timestamp in row:
            moment = moment_of(row[schema.timestamp])
            if moment is None:
                faults.append(Fault(place, schema.timestamp, "type", MOMENT))
            value[schema.timestamp] = moment
    faults.sort(key=lambda fault: (fault.row, fault.field))
    return values, faults


def odd_faults(layout: Layout, block: Block) -> list[Fault]:
    """Return the odd values of those features that refuse them."""
    words = {
        "out_of_range": "lies outside the feature's bounds, which it refuses",
        "unseen": "is none of the feature's categories, and it refuses others",
    }
    return [
        Fault(odd.row, odd.feature, odd.signal, words[odd.signal])
        for odd in layout.odd(block)
        if odd.feature in layout.refusing
    ]


def refuse(faults: Sequence[Fault], *, rows: int | None = None, total: int | None = None) -> InvalidRows:
    """Return the error that names `faults`: all there are, unless the numbers of bad rows and of faults are given."""
    first, bad = faults[0], len({fault.row for fault in faults}) if rows is None else rows
    where = f"row {first.row}" + (f", field {first.field!r}" if first.field else "")
    detail = f"{bad} {'row breaks' if bad == 1 else 'rows break'} the model's schema; {where}: {first.detail}"
    errors = [{"row": f.row, "field": f.field, "code": f.code, "detail": f.detail} for f in faults[:LISTED]]
    return InvalidRows(detail, errors=errors, rows=bad, more=max((total or len(faults)) - LISTED, 0))


def shown(name: Any) -> str:
    """Return a field's name as an answer may show it: short and printable, whatever the client sent."""
    text = str(name)
    return text if len(text) <= 64 and text.isprintable() else "(a name that is long or not printable)"


def misnamed(given: Iterable[str], needed: Sequence[str], timestamp: str, *, what: str) -> str | None:
    """Return what is wrong with the names of columns, in words; None if they are the model's, whatever their order."""
    names, known = set(given), {*needed, timestamp}
    words = []
    if missing := [name for name in needed if name not in names]:
        words.append(f"{what} are missing: {_few(missing)}")
    if unknown := sorted(names - known):
        near = get_close_matches(shown(unknown[0]), sorted(known), n=1)
        words.append(f"{what} are no features: {_few(unknown)}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return "; ".join(words) or None


def _few(names: Sequence[str]) -> str:
    words = ", ".join(repr(shown(name)) for name in names[:NAMED])
    return words + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


MOMENT = "must be an RFC 3339 moment with its zone, such as 2026-01-31T12:00:00Z"


def moment_of(value: Any) -> datetime | None:
    """Return the moment that an RFC 3339 text names; None if it is none, or has no zone."""
    if not isinstance(value, str) or len(value) < len("2026-01-31T12:00:00Z"):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    try:
        return None if moment.utcoffset() is None else moment
    except OverflowError:
        return None


def _rows_of_columns(columns: Any) -> list[Any]:
    if not isinstance(columns, dict) or not columns or not all(isinstance(c, list) for c in columns.values()):
        msg = "columns must be an object that holds one list for each feature"
        raise InvalidRequest(msg)
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        msg = f"the columns must be equally long; they have {min(lengths)} to {max(lengths)} values"
        raise InvalidRequest(msg)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _rows_of_split(split: Any, schema: Schema) -> list[Any]:
    if not isinstance(split, dict) or not {"columns", "data"} <= split.keys() <= {"columns", "data", "index"}:
        msg = f'{FORM} must be {{"columns": [...], "data": [[...]]}}, at most with an index beside them'
        raise InvalidRequest(msg)
    columns, data = split["columns"], split["data"]
    if not isinstance(data, list) or not isinstance(columns, list) or not all(isinstance(c, str) for c in columns):
        msg = f"{FORM}: columns must be a list of names, data a list of rows"
        raise InvalidRequest(msg)
    if len(set(columns)) < len(columns):
        msg = f"{FORM}: two columns have the same name"
        raise InvalidRequest(msg)
    # Once for the frame: the same words for each of ten thousand rows would help nobody.
    words = misnamed(columns, schema.names, schema.timestamp, what="columns")
    if words is not None:
        msg = f"{FORM}: {words}"
        raise InvalidRequest(msg)
    for place, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            found = f"has {len(row)} values" if isinstance(row, list) else "is no list"
            msg = f"{FORM}: row {place} {found}; there are {len(columns)} columns"
            raise InvalidRequest(msg)
    return [dict(zip(columns, row, strict=True)) for row in data]


def _is_listed(row: Any, names: tuple[str, ...]) -> bool:
    return isinstance(row, list) and len(row) == len(names)


def _shape(row: Any, width: int) -> str:
    if isinstance(row, list):
        return f"has {len(row)} values; the model has {width} features"
    return f"must be an object or a list, not {_NAMES.get(type(row), 'null')}"


def _unknown(name: Any, known: set[str]) -> str:
    near = get_close_matches(shown(name), sorted(known), n=1)
    return "is no feature of the model" + (f"; did you mean {near[0]!r}?" if near else "")


def _kind(schema: Schema, feature: Feature) -> str:
    if feature.kind == "categorical":
        return "text" if schema.is_text(feature) else "integer"
    return feature.kind


def _examine_column(
    schema: Schema, feature: Feature, objects: list[tuple[int, dict[str, Any]]], values: list[dict[str, Any]]
) -> list[Fault]:
    kind, name = _kind(schema, feature), feature.name
    column = [row.get(name, _MISSING) for _, row in objects]
    for value, found in zip(values, column, strict=True):
        value[name] = found
    # A column of one right type needs no look at each value, unless its values themselves may be wrong.
    if kind == "boolean" and set(map(type, column)) <= _TAKES[kind]:
        return []
    faults = []
    for (place, _), value, found in zip(objects, values, column, strict=True):
        fault = _fault(feature, kind, found)
        if fault is not None:
            faults.append(Fault(place, name, *fault))
        elif kind == "integer" and isinstance(found, float):
            value[name] = int(found)
    return faults


def _fault(feature: Feature, kind: str, value: Any) -> tuple[str, str] | None:
    if value is _MISSING:
        return "missing", "is missing" + ("; write null where it is unknown" if feature.nullable else "")
    if value is None:
        return None if feature.nullable else ("null", "must not be null")
    if kind == "integer" and isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return None
    if type(value) not in _TAKES[kind]:
        return "type", f"must be {_WANTED[kind]}, not {_NAMES.get(type(value), 'null')}"
    if kind == "text":
        return None if _is_text(value) else ("type", "holds half of a character")
    if isinstance(value, float) and not math.isfinite(value):
        return "not_finite", "must be finite" + ("; write null where it is unknown" if feature.nullable else "")
    if kind == "integer" and abs(value) > _EXACT:
        return "type", "is too large for an integer category"
    return _huge(value) if isinstance(value, int) and kind == "numeric" else None


def _huge(value: int) -> tuple[str, str] | None:
    try:
        float(value)
    except OverflowError:
        return "not_finite", "is too large for a number"
    return None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
