"""A snapshot: an exact set of rows that can be read again, and the digest that proves it is the same."""

import hashlib
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Snapshot", "digest_of"]


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
        array = table[name].combine_chunks()
        digest.update(f"{name}\0{array.type}\0{len(array)}\0".encode())
        for part in _bytes(array):
            digest.update(part)
    return digest.hexdigest()


def _bytes(array: pa.Array) -> list[Any]:
    """Return buffers that depend on the values only: what lies under a null is not defined, so it is overwritten."""
    valid = pc.is_valid(array).cast(pa.uint8()).to_numpy(zero_copy_only=False)
    kind = array.type
    if pa.types.is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        return [valid, lengths, *_bytes(pc.list_flatten(array))]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        lengths = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False)
        return [valid, lengths, "".join(pc.fill_null(array, "").to_pylist()).encode()]
    if pa.types.is_timestamp(kind):
        array = array.cast(pa.timestamp("us", kind.tz)).view(pa.int64())
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    return [valid, pc.fill_null(array, 0).to_numpy(zero_copy_only=False)]


def _ends(table: pa.Table) -> tuple[str | None, str | None]:
    if "event_time" not in table.column_names or not table.num_rows:
        return None, None
    ends = pc.min_max(table["event_time"]).as_py()
    first: datetime | None = ends["min"]
    last: datetime | None = ends["max"]
    return (first.isoformat() if first else None), (last.isoformat() if last else None)
