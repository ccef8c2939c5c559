"""Rows out of a file or standard input: JSON, JSON lines or CSV, with the types that a model's schema asks for."""

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = ["Format", "Typed", "guess", "read_rows", "types_of"]

Typed = Mapping[str, Callable[[str], Any]]
"""How the cells of a CSV column become values; a column that is not named is guessed cell by cell."""

LARGEST_CELL = 10_000_000
STDIN = "-"


class Format(StrEnum):
    """How rows are written."""

    AUTO = "auto"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


SUFFIXES = {".json": Format.JSON, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".csv": Format.CSV}


def read_rows(path: str, *, written: Format, under: str, typed: Typed) -> list[Any]:
    """Return the rows in the file at `path`; ``-`` is standard input.

    Parameters
    ----------
    written
        The format; by the file's name or its first character when AUTO.
    under
        Name of the list where the document is an object, as in a request's body: ``instances`` or ``labels``.
    typed
        For CSV: what each column's cells become.

    Raises
    ------
    ValueError
        If there is no such file, or it can't be read as rows: one sentence that says where.
    """
    text = _text(path)
    if not text.strip():
        msg = f"{_name(path)} is empty"
        raise ValueError(msg)
    if written is Format.AUTO:
        written = SUFFIXES.get(Path(path).suffix.lower()) or _sniffed(text)
    try:
        rows = {Format.CSV: _of_csv, Format.JSONL: _of_lines}[written](text, typed) if written in _BY_LINE else None
        rows = _of_json(text, under) if rows is None else rows
    except ValueError as error:
        msg = f"{_name(path)}: {error}"
        raise ValueError(msg) from None
    if not rows:
        msg = f"{_name(path)} holds no row"
        raise ValueError(msg)
    return rows


def types_of(schema: Mapping[str, Any]) -> Typed:
    """Return how the columns of a CSV file become what the model of this schema takes."""
    whole = set(schema.get("integer_categories") or ())
    kinds = {"numeric": _number, "boolean": _boolean, "categorical": _as_text}
    types: dict[str, Callable[[str], Any]] = {str(schema.get("timestamp")): _as_text}
    for feature in schema.get("features") or ():
        name = feature["name"]
        types[name] = _number if name in whole else kinds.get(feature["kind"], guess)
    types |= {"id": str, "observed_at": _as_text}
    types["label"] = str if schema.get("label") == "string" else _number
    return types


def guess(text: str) -> Any:
    """Return the number, truth value or null that `text` looks like; else the text itself.

    Examples
    --------
    >>> [guess(text) for text in ("2", "2.5", "true", "", "UP")]
    [2, 2.5, True, None, 'UP']
    """
    number = _number(text)
    return number if not isinstance(number, str) else _boolean(text)


def _number(text: str) -> Any:
    plain = text.strip()
    if not plain:
        return None
    try:
        return int(plain)
    except ValueError:
        pass
    try:
        value = float(plain)
    except ValueError:
        return text  # the service names the row and the field
    return value if abs(value) < float("inf") else None if value != value else text


def _boolean(text: str) -> Any:
    return {"": None, "true": True, "false": False, "1": True, "0": False}.get(text.strip().lower(), text)


def _as_text(text: str) -> Any:
    return text or None


def _text(path: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    except FileNotFoundError:
        msg = f"there is no file {path}"
        raise ValueError(msg) from None
    except OSError as error:
        msg = f"{path} can't be read: {error.strerror}"
        raise ValueError(msg) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{_name(path)} is not UTF-8: byte {error.start} is none of it"
        raise ValueError(msg) from None


def _name(path: str) -> str:
    return "standard input" if path == STDIN else path


def _sniffed(text: str) -> Format:
    head = text.lstrip()
    if head[:1] not in "[{":
        return Format.CSV
    first, _, more = head.partition("\n")
    try:
        _parsed(first)
    except ValueError:
        return Format.JSON  # one document over several lines
    return Format.JSONL if more.strip() else Format.JSON


def _of_json(text: str, under: str) -> list[Any]:
    found = _parsed(text)
    if isinstance(found, dict) and found.keys() == {under}:
        found = found[under]
    elif isinstance(found, dict) and under == "instances" and found.keys() == {"columns"}:
        found = _of_columns(found["columns"])
    rows = [found] if isinstance(found, dict) else found
    if not isinstance(rows, list):
        msg = f'write a list of rows, or {{"{under}": [...]}}'
        raise ValueError(msg)  # noqa: TRY004  whatever is wrong with an input is a ValueError here
    # One row in the features' order is a list of values, not a list of rows.
    return [rows] if rows and not any(isinstance(row, dict | list) for row in rows) else rows


def _of_columns(columns: Any) -> list[Any]:
    if not isinstance(columns, dict) or not all(isinstance(values, list) for values in columns.values()):
        msg = "columns must be an object of lists"
        raise ValueError(msg)
    if len({len(values) for values in columns.values()}) > 1:
        msg = "columns differ in length"
        raise ValueError(msg)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _of_lines(text: str, _typed: Typed) -> list[Any]:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                rows.append(_parsed(line))
            except ValueError as error:
                msg = f"line {number}: {error}"
                raise ValueError(msg) from None
    return rows


def _of_csv(text: str, typed: Typed) -> list[Any]:
    csv.field_size_limit(LARGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        _refuse_header(names)
        rows = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                msg = f"line {reader.line_num} has {len(cells)} fields, the header {len(names)}"
                raise ValueError(msg)
            rows.append({name: typed.get(name, guess)(cell) for name, cell in zip(names, cells, strict=True)})
    except csv.Error as error:
        msg = f"line {reader.line_num}: {error}"
        raise ValueError(msg) from None
    return [{name: value for name, value in row.items() if value is not None or name not in _LEFT_OUT} for row in rows]


_BY_LINE = frozenset({Format.CSV, Format.JSONL})
_LEFT_OUT = frozenset({"observed_at"})
"""A field whose empty cell means that it is not given."""


def _refuse_header(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names):
        msg = f"the header names {twice[0]!r} twice" if twice and twice[0] else "the header has a column without a name"
        raise ValueError(msg)


def _parsed(text: str) -> Any:
    def refuse(name: str) -> Any:
        msg = f"{name} is no JSON number: write null"
        raise ValueError(msg)

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        where = f" at line {error.lineno}, column {error.colno}" if error.lineno > 1 else f" at column {error.colno}"
        msg = f"not JSON: {error.msg}{where}"
        raise ValueError(msg) from None
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None
