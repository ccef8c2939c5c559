"""Rows that are kept for themselves, such as a version's reference: no retention touches them."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from service.storage.delta import DeltaFolder
from service.storage.snapshot import Snapshot, digest_of
from service.storage.view import View

__all__ = ["forget", "keep", "read"]


def keep(folder: DeltaFolder, model: str, rows: pa.Table) -> Snapshot:
    """Store the rows, once, and return how to read them again."""
    rows = rows.combine_chunks()
    table = {"uri": folder.uri, "filter": {"reference": digest_of(rows)}, "rows": rows.num_rows}
    snapshot = Snapshot.of(rows, kind="kept", model=model, tables=(table,))
    view = folder.view()
    if view is None or not _files(view, snapshot.digest).num_rows:
        n = rows.num_rows
        stored = rows.append_column("position", pa.array(range(n), pa.int64()))
        stored = stored.append_column("reference", pa.array([snapshot.digest] * n, pa.string()))
        folder.append(stored, transactions={})
    return snapshot


def read(folder: DeltaFolder, snapshot: Snapshot) -> pa.Table | None:
    """Return the snapshot's rows in their order; None while nothing is kept."""
    view = folder.view()
    if view is None:
        return None
    files = _files(view, snapshot.digest)
    rows = view.read(files, columns=["position", *snapshot.columns], where=ds.field("reference") == snapshot.digest)
    return rows.sort_by("position").select(list(snapshot.columns)).combine_chunks()


def forget(folder: DeltaFolder, wanted: Collection[str], *, before: float) -> list[str]:
    """Remove the rows whose digest is not `wanted`, if they are older than `before`; return their digests."""
    view = folder.view()
    if view is None:
        return []
    stored: dict[str, float] = {}
    columns = (view.files["partition.reference"].to_pylist(), view.files["modification_time"].to_pylist())
    for digest, at_ms in zip(*columns, strict=True):
        stored[digest] = max(at_ms / 1000, stored.get(digest, 0.0))
    old = sorted(digest for digest, at in stored.items() if digest not in wanted and at < before)
    if old:
        folder.forget(f"reference IN ({', '.join(repr(digest) for digest in old)})")
        folder.maintain()
    return old


def _files(view: View, digest: str) -> pa.Table:
    return view.files.filter(pc.equal(view.files["partition.reference"], digest))
