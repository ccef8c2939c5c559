"""One Delta table: opened, appended to exactly once, read with its file statistics, kept in order."""

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError, SchemaMismatchError
from deltalake.fs import DeltaStorageHandler

from service.storage.durable import forget_unfinished, mend, sync_checkpoint, sync_commit
from service.storage.view import View, lake_errors

__all__ = ["DeltaFolder", "MisfitError", "View"]

_WRITER = WriterProperties(compression="ZSTD", max_row_group_size=1 << 14)
_TARGET_BYTES = 32 << 20
"""Compacted files grow to about this: a few 100,000 rows, so that a window opens one or two of them."""
_SMALL_FILES = 8
"""Compaction starts when so many files are well below the target."""
_UNFINISHED_S = 3600.0
"""A file that has been half-written for so long was left by a writer that is gone."""
_OPENED_ANEW = 20
"""After so many versions a handle is opened anew, from a checkpoint: it holds every entry that it has read since, and
each further commit reads them all again (a commit after 2,000 took 190 ms, instead of 10)."""
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""Delta would write checkpoints within an append: not forced to the disk, and failing as if the append had."""


class MisfitError(ValueError):
    """Rows whose columns can't become the table's: they will not fit tomorrow either."""


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
        self._opened_at = 0
        self._path = None if "://" in uri else Path(uri).absolute()
        """None on an object store, which has written a commit down when it answers."""
        self._synced: int | None = None
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
                uri=self.uri,
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

    def committed(self, *applications: str) -> dict[str, int | None]:
        """Return the highest number that each application has committed; None for one that never has."""
        with self._lock, self._translated():
            table = self._newest()
            return {name: None if table is None else table.transaction_version(name) for name in applications}

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
                    post_commithook_properties=_NO_HOOKS,
                )
            except SchemaMismatchError as error:
                msg = f"the rows do not fit the table {self.uri}"
                raise MisfitError(msg) from error
            except BaseException:
                self._table = None  # what the handle believes now is not sure
                raise
            return self._written(table)

    def overwrite(self, rows: pa.Table) -> None:
        """Replace all rows by these; older versions keep theirs."""
        with self._lock, self._translated():
            table = self._newest() or self._create(rows.schema)
            write_deltalake(table, rows, mode="overwrite", schema_mode="overwrite", writer_properties=_WRITER)
            self._written(table)

    def forget(self, predicate: str) -> int:
        """Delete the rows that hold the SQL predicate; return how many."""
        with self._lock, self._translated():
            table = self._newest()
            if table is None:
                return 0
            done = table.delete(predicate, writer_properties=_WRITER, post_commithook_properties=_NO_HOOKS)
            self._written(table)
            return int(done["num_deleted_rows"] or 0)

    def sync(self) -> None:
        """Force to the disk what is committed: after a crash this process can't know whether the one before it did."""
        with self._lock, self._translated():
            table = self._newest()
            if table is not None:
                self._sync(table.version())

    def mend(self) -> list[str]:
        """Take back what a power cut tore off, before the first write; see `durable.mend`."""
        with self._lock, self._translated():
            return [] if self._path is None else mend(self._path)

    def maintain(self) -> dict[str, int]:
        """Merge small files, write a checkpoint, drop old log entries and unused files; return what was done.

        Raises
        ------
        LakeUnavailable
            If one of it failed; the rest was done all the same, for it is what frees a full disk.
        """
        with self._lock, self._translated():
            table = self._newest()
            if table is None:
                return {}
            sizes = pa.table(table.get_add_actions(flatten=True))["size_bytes"].to_pylist()
            try:
                merged = self._compact(table, sizes)
                self._checkpoint(table)
            finally:
                self._table = None
                table.cleanup_metadata()
                # Full: a checkpoint forgets files that were merged long ago, and a light vacuum would leave them.
                removed = len(table.vacuum(dry_run=False, full=True, post_commithook_properties=_NO_HOOKS))
                if self._path is not None:
                    removed += forget_unfinished(self._path, time.time() - _UNFINISHED_S)
            self._sync(table.version())
            return {"files": len(sizes), "merged": merged, "removed": removed}

    def _compact(self, table: DeltaTable, sizes: list[int]) -> int:
        if sum(size < _TARGET_BYTES // 2 for size in sizes) < _SMALL_FILES:
            return 0
        done = table.optimize.compact(
            target_size=_TARGET_BYTES,
            max_concurrent_tasks=1,  # the committer is one process among many, and a file is in memory a task
            writer_properties=_WRITER,
            post_commithook_properties=_NO_HOOKS,
        )
        self._sync(table.version())
        return int(done["numFilesRemoved"])

    def _written(self, table: DeltaTable) -> int:
        """Make what was committed durable, and the next commit as quick as this one."""
        version: int = table.version()
        self._sync(version)
        if version - self._opened_at >= _OPENED_ANEW:
            self._table = None
            with suppress(DeltaError, OSError):  # the rows are in; the next commit tries it again
                self._checkpoint(table)
        return version

    def _checkpoint(self, table: DeltaTable) -> None:
        table.create_checkpoint()
        if self._path is not None:
            sync_checkpoint(self._path)

    def _sync(self, version: int) -> None:
        if self._path is None:
            return
        first = version - _OPENED_ANEW if self._synced is None else self._synced + 1
        for each in range(max(first, 0), version + 1):
            sync_commit(self._path, each)
        self._synced = version

    def _newest(self) -> DeltaTable | None:
        if self._table is not None:
            try:
                self._table.update_incremental()
            except DeltaError:
                self._table = None  # its log was cleaned up meanwhile: read it from the checkpoint
            else:
                if self._table.version() - self._opened_at > 2 * _OPENED_ANEW:
                    self._table = None
        if self._table is None and DeltaTable.is_deltatable(self.uri, self._options):
            self._table = DeltaTable(self.uri, storage_options=self._options)
            self._opened_at = self._table.version()
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
        self._opened_at = self._table.version()
        return self._table

    def _filesystem(self, table: DeltaTable) -> tuple[str, pafs.FileSystem]:
        if self._path is not None:
            return str(self._path), pafs.LocalFileSystem()
        return "", pafs.PyFileSystem(DeltaStorageHandler.from_table(table._table, self._options))

    def _translated(self) -> AbstractContextManager[None]:
        return lake_errors(self.uri)


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
