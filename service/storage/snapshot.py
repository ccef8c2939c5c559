"""A snapshot: an exact set of rows that can be read again, and the digest that proves it is the same."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Snapshot", "digest_of"]

_PIECE = 1 << 16
"""Rows that are looked at together."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """JSON-able description of rows."""

    kind: Literal["training", "kept"]
    """`training`: a query on the tables' versions. `kept`: the rows themselves were stored beside the tables."""
    model: str
    tables: tuple[dict[str, Any], ...]
    """Each with uri, version, filter, rows."""
    columns: tuple[str, ...]
    rows: int
    digest: str
    """sha256 over the sorted content."""
    time_min: str | None
    """RFC 3339, event time."""
    time_max: str | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = asdict(self)
        return {**plain, "tables": list(plain["tables"]), "columns": list(plain["columns"])}

    @staticmethod
    def from_json(plain: dict[str, Any]) -> "Snapshot":
        """Return the snapshot that `to_json` wrote."""
        return Snapshot(**{**plain, "tables": tuple(plain["tables"]), "columns": tuple(plain["columns"])})

    @staticmethod
    def of(
        table: pa.Table,
        *,
        kind: Literal["training", "kept"],
        model: str,
        tables: tuple[dict[str, Any], ...],
    ) -> "Snapshot":
        """Return the snapshot of `table`, whose rows have their order already."""
        first, last = _ends(table)
        return Snapshot(
            kind=kind,
            model=model,
            tables=tables,
            columns=tuple(table.column_names),
            rows=table.num_rows,
            digest=digest_of(table),
            time_min=first,
            time_max=last,
        )


def digest_of(table: pa.Table) -> str:
    """Return the sha256 of a table's content: names, types and values in row order, however they are chunked."""
    digest = hashlib.sha256()
    for name in sorted(table.column_names):
        column = table[name]
        digest.update(f"{name}\0{column.type}\0{len(column)}\0".encode())
        for part in _bytes(column):
            digest.update(part)
    return digest.hexdigest()


def _bytes(column: pa.ChunkedArray) -> Iterator[Any]:
    """Yield buffers that depend on the values only: what lies under a null is not defined, so it is overwritten.

    Piece by piece, for a column may be all of a model's history, and its texts as Python's would take ten times more.
    """
    kind = column.type
    yield from (pc.is_valid(piece).cast(pa.uint8()).to_numpy(zero_copy_only=False) for piece in _pieces(column))
    if pa.types.is_list(kind):
        yield from (_zeros(pc.list_value_length(piece)) for piece in _pieces(column))
        yield from _bytes(pc.list_flatten(column))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield from (_zeros(pc.binary_length(piece)) for piece in _pieces(column))
        yield from (_text(pc.fill_null(piece, "")) for piece in _pieces(column))
    else:
        yield from (_zeros(_plain(piece)) for piece in _pieces(column))


def _pieces(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    for chunk in column.chunks:
        for at in range(0, len(chunk), _PIECE):
            yield chunk.slice(at, _PIECE)


def _plain(piece: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(piece.type):
        return piece.cast(pa.timestamp("us", piece.type.tz)).view(pa.int64())
    return piece.cast(pa.uint8()) if pa.types.is_boolean(piece.type) else piece


def _zeros(piece: pa.Array) -> Any:
    return pc.fill_null(piece, 0).to_numpy(zero_copy_only=False)


def _text(piece: pa.Array) -> Any:
    """Return the texts' bytes, one after the other, where they lie."""
    _, offsets, content = piece.buffers()
    if content is None or not len(piece):
        return b""
    places = np.frombuffer(offsets, np.int64 if pa.types.is_large_string(piece.type) else np.int32)
    return memoryview(content)[places[piece.offset] : places[piece.offset + len(piece)]]


def _ends(table: pa.Table) -> tuple[str | None, str | None]:
    if "event_time" not in table.column_names or not table.num_rows:
        return None, None
    ends = pc.min_max(table["event_time"]).as_py()
    first: datetime | None = ends["min"]
    last: datetime | None = ends["max"]
    return (first.isoformat() if first else None), (last.isoformat() if last else None)
