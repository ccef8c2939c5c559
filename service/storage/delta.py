"""One Delta table: opened, appended to exactly once, read with its file statistics, kept in order."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError, SchemaMismatchError
from deltalake.fs import DeltaStorageHandler

from service.domain.errors import LakeUnavailable

__all__ = ["DeltaFolder", "MisfitError", "View"]

_WRITER = WriterProperties(compression="ZSTD", max_row_group_size=1 << 14)
_TARGET_BYTES = 32 << 20
"""Compacted files grow to about this: a few 100,000 rows, so that a window opens one or two of them."""
_SMALL_FILES = 8
"""Compaction starts when so many files are well below the target."""
_STATS_STEP = timedelta(milliseconds=1)
"""Delta cuts the maxima in its statistics down to milliseconds: rows may lie up to this above them."""
_STATS_TEXT = 32
"""Delta may cut texts in its statistics after so many characters."""


class MisfitError(ValueError):
    """Rows whose columns can't become the table's: they will not fit tomorrow either."""


@dataclass(frozen=True)
class View:
    """One version of a table: what a read needs, taken at one moment."""

    version: int
    schema: pa.Schema
    files: pa.Table
    """One row per data file: path, num_records, min.* and max.*."""
    root: str
    filesystem: pafs.FileSystem

    def between(self, column: str, low: Any, high: Any) -> pa.Table:
        """Return the files that may hold a row with ``low <= column <= high``; None leaves a side open."""
        files = self.files
        if f"min.{column}" not in files.column_names:
            return files
        least, most = files[f"min.{column}"], files[f"max.{column}"]
        mask = pc.is_null(least)  # without statistics a file may hold anything
        inside: Any = True
        if high is not None:
            inside = pc.less_equal(_cut(least), _bound(high, least.type))
        if low is not None:
            above = pc.greater_equal(_cut(most), _bound(_lowered(low), most.type))
            inside = above if inside is True else pc.and_(inside, above)
        return files if inside is True else files.filter(pc.or_kleene(mask, inside))

    def read(
        self, files: pa.Table, *, columns: list[str] | None = None, where: ds.Expression | None = None
    ) -> pa.Table:
        """Return the rows of `files` that hold `where`."""
        wanted = [name for name in columns if name in self.schema.names] if columns is not None else None
        if not files.num_rows:
            schema = self.schema if wanted is None else pa.schema([self.schema.field(name) for name in wanted])
            return schema.empty_table()
        paths = [f"{self.root}/{path}" if self.root else path for path in files["path"].to_pylist()]
        source = ds.dataset(
            paths,
            schema=self.schema,
            format="parquet",
            filesystem=self.filesystem,
            partitioning=ds.HivePartitioning.discover() if "=" in paths[0] else None,
            partition_base_dir=self.root,
        )
        return source.to_table(columns=wanted, filter=where)


class DeltaFolder:
    """A Delta table by its address; made at the first write.

    Parameters
    ----------
    uri
        A path or an object store's address.
    stats
        Columns with file statistics: those that reads are narrowed by.
    partition_by
        Columns to split the files by.
    history
        How long old versions of the table and files no longer used are kept; None leaves Delta's own 30 and 7 days.
    """

    def __init__(
        self,
        uri: str,
        *,
        stats: tuple[str, ...],
        partition_by: tuple[str, ...] = (),
        history: timedelta | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self.uri = uri
        self._stats, self._partition_by, self._history = stats, partition_by, history
        self._options = dict(storage_options) if storage_options else None
        self._table: DeltaTable | None = None
        self._lock = threading.RLock()

    def view(self, version: int | None = None) -> View | None:
        """Return the newest version, or that one; None while the table does not exist.

        Raises
        ------
        LakeUnavailable
            If the table can't be read, or that version is no longer there.
        """
        with self._lock, self._translated():
            table = self._newest() if version is None else self._at(version)
            if table is None:
                return None
            files = pa.table(table.get_add_actions(flatten=True))
            root, filesystem = self._filesystem(table)
            return View(
                version=table.version(),
                schema=pa.schema(table.schema().to_arrow()),
                files=files,
                root=root,
                filesystem=filesystem,
            )

    def version(self) -> int | None:
        """Return the newest version's number; None while the table does not exist."""
        with self._lock, self._translated():
            table = self._newest()
            return None if table is None else table.version()

    def committed(self, application: str) -> int | None:
        """Return the highest number that `application` has committed; None if it never has."""
        with self._lock, self._translated():
            table = self._newest()
            return None if table is None else table.transaction_version(application)

    def append(self, rows: pa.Table, *, transactions: Mapping[str, int], stamp_ms: int | None = None) -> int:
        """Add rows in one commit and return the table's new version.

        Parameters
        ----------
        transactions
            Application → the highest number of its that this commit holds.
        stamp_ms
            Wall clock; lets Delta forget an application that has been silent for long. None: never forgotten.

        Raises
        ------
        MisfitError
            If a column's type can't become the table's.
        LakeUnavailable
            If the commit can't be written: then nothing was.
        """
        with self._lock, self._translated():
            table = self._newest() or self._create(rows.schema)
            known = pa.schema(table.schema().to_arrow())
            fitted = _fit(rows, known)
            grows = any(name not in known.names for name in fitted.column_names)
            done = [Transaction(name, number, stamp_ms) for name, number in transactions.items()]
            try:
                write_deltalake(
                    table,
                    fitted,
                    mode="append",
                    schema_mode="merge" if grows else None,
                    writer_properties=_WRITER,
                    commit_properties=CommitProperties(app_transactions=done),
                )
            except SchemaMismatchError as error:
                msg = f"the rows do not fit the table {self.uri}"
                raise MisfitError(msg) from error
            except BaseException:
                self._table = None  # what the handle believes now is not sure
                raise
            return table.version()

    def overwrite(self, rows: pa.Table) -> None:
        """Replace all rows by these; older versions keep theirs."""
        with self._lock, self._translated():
            table = self._newest() or self._create(rows.schema)
            write_deltalake(table, rows, mode="overwrite", schema_mode="overwrite", writer_properties=_WRITER)

    def forget(self, predicate: str) -> None:
        """Delete the rows that hold the SQL predicate."""
        with self._lock, self._translated():
            table = self._newest()
            if table is not None:
                table.delete(predicate, writer_properties=_WRITER)

    def maintain(self) -> dict[str, int]:
        """Merge small files, write a checkpoint, drop old log entries and unused files; return what was done."""
        with self._lock, self._translated():
            table = self._newest()
            if table is None:
                return {}
            sizes = pa.table(table.get_add_actions(flatten=True))["size_bytes"].to_pylist()
            merged = 0
            if sum(size < _TARGET_BYTES // 2 for size in sizes) >= _SMALL_FILES:
                done = table.optimize.compact(target_size=_TARGET_BYTES, writer_properties=_WRITER)
                merged = int(done["numFilesRemoved"])
            table.create_checkpoint()
            table.cleanup_metadata()
            # Full: a checkpoint forgets the files that were merged long ago, and a light vacuum would leave them.
            removed = len(table.vacuum(dry_run=False, full=True))
            self._table = None
            return {"files": len(sizes), "merged": merged, "removed": removed}

    def _newest(self) -> DeltaTable | None:
        if self._table is not None:
            try:
                self._table.update_incremental()
            except DeltaError:
                self._table = None  # its log was cleaned up meanwhile: read it from the checkpoint
        if self._table is None and DeltaTable.is_deltatable(self.uri, self._options):
            self._table = DeltaTable(self.uri, storage_options=self._options)
        return self._table

    def _at(self, version: int) -> DeltaTable | None:
        if not DeltaTable.is_deltatable(self.uri, self._options):
            return None
        return DeltaTable(self.uri, version=version, storage_options=self._options)

    def _create(self, schema: pa.Schema) -> DeltaTable:
        configuration = {
            "delta.dataSkippingStatsColumns": ",".join(name for name in self._stats if name in schema.names),
            "delta.setTransactionRetentionDuration": "interval 30 days",
        }
        if self._history is not None:
            interval = f"interval {int(self._history.total_seconds())} seconds"
            configuration["delta.logRetentionDuration"] = interval
            configuration["delta.deletedFileRetentionDuration"] = interval
        DeltaTable.create(
            self.uri,
            schema,
            mode="ignore",  # another process may be creating it too
            partition_by=list(self._partition_by),
            configuration=configuration,
            storage_options=self._options,
        )
        self._table = DeltaTable(self.uri, storage_options=self._options)
        return self._table

    def _filesystem(self, table: DeltaTable) -> tuple[str, pafs.FileSystem]:
        if "://" not in self.uri:
            return str(Path(self.uri).absolute()), pafs.LocalFileSystem()
        return "", pafs.PyFileSystem(DeltaStorageHandler.from_table(table._table, self._options))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DeltaError, OSError) as error:
            words = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            msg = f"the table {self.uri} can't be used: {words}"
            raise LakeUnavailable(msg, retry_after_s=5) from error


def _fit(rows: pa.Table, known: pa.Schema) -> pa.Table:
    """Return the rows with the table's own types, and nulls in its columns that they have not."""
    columns: dict[str, Any] = {}
    for field in known:
        if field.name not in rows.column_names:
            columns[field.name] = pa.nulls(rows.num_rows, field.type)
            continue
        column = rows[field.name]
        try:
            columns[field.name] = column if column.type == field.type else column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            msg = f"column {field.name!r} is {field.type} in the lake and {column.type} in these rows"
            raise MisfitError(msg) from error
    for name in rows.column_names:
        columns.setdefault(name, rows[name])
    return pa.table(columns)


def _lowered(low: Any) -> Any:
    return low if isinstance(low, str) else low - _STATS_STEP


def _bound(value: Any, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(value[:_STATS_TEXT] if isinstance(value, str) else value, kind)


def _cut(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_slice_codeunits(column, 0, _STATS_TEXT) if pa.types.is_string(column.type) else column
