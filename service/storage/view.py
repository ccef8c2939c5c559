"""One version of a Delta table as a reader holds it: its files with their statistics, and reads narrowed by them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake.exceptions import DeltaError

from service.domain.errors import LakeUnavailable

__all__ = ["Group", "View", "lake_errors"]

_STATS_STEP = timedelta(milliseconds=1)
"""Delta cuts the maxima in its statistics down to milliseconds: rows may lie up to this above them."""
_STATS_TEXT = 32
"""Delta may cut texts in its statistics after so many characters."""


@contextmanager
def lake_errors(uri: str, *further: type[Exception]) -> Iterator[None]:
    """Turn what Delta and the disk raise, and `further` errors, into `LakeUnavailable`."""
    faults: tuple[type[Exception], ...] = (DeltaError, OSError, *further)
    try:
        yield
    except faults as error:
        raise _away(uri, error) from error
    except BaseException as error:
        # Delta's own code is Rust, which on a full disk panics now and then: no Exception, but no reason to die either.
        if type(error).__name__ != "PanicException":
            raise
        raise _away(uri, error) from error


def _away(uri: str, error: BaseException) -> LakeUnavailable:
    words = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return LakeUnavailable(f"the table {uri} can't be used: {words}", retry_after_s=5)


@dataclass(frozen=True)
class Group:
    """Some thousand rows of one file that lie together, and the ends of one column in them."""

    least: Any
    """None: without statistics they may hold anything."""
    most: Any
    rows: int


@dataclass(frozen=True)
class View:
    """One version of a table: what a read needs, taken at one moment."""

    uri: str
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

    def holding(self, column: str, values: pa.Array) -> pa.Table:
        """Return the files that may hold one of the texts `values`, which are sorted.

        Unlike `between` it is not misled by one value far from the others: only files around a value are named.
        """
        files = self.files
        if f"min.{column}" not in files.column_names:
            return files
        cut = pc.utf8_slice_codeunits(values, 0, _STATS_TEXT)
        places, key = range(len(cut)), lambda place: cut[place].as_py()
        lows, highs = files[f"min.{column}"].to_pylist(), files[f"max.{column}"].to_pylist()
        mask = [
            low is None
            or high is None
            or bisect_left(places, low[:_STATS_TEXT], key=key) < bisect_right(places, high[:_STATS_TEXT], key=key)
            for low, high in zip(lows, highs, strict=True)
        ]
        return files.filter(pa.array(mask, pa.bool_()))

    def read(
        self, files: pa.Table, *, columns: list[str] | None = None, where: ds.Expression | None = None
    ) -> pa.Table:
        """Return the rows of `files` that hold `where`.

        Raises
        ------
        LakeUnavailable
            If a file can't be read: the disk's fault, or the view is older than what the lake still keeps.
        """
        wanted = [name for name in columns if name in self.schema.names] if columns is not None else None
        if not files.num_rows:
            schema = self.schema if wanted is None else pa.schema([self.schema.field(name) for name in wanted])
            return schema.empty_table()
        with lake_errors(self.uri, pa.ArrowInvalid):
            return self._dataset(files).to_table(columns=wanted, filter=where)

    def count(self, files: pa.Table, where: ds.Expression) -> int:
        """Return how many rows of `files` hold `where`; rows that lie wholly inside are counted unread."""
        if not files.num_rows:
            return 0
        with lake_errors(self.uri, pa.ArrowInvalid):
            return int(self._dataset(files).count_rows(filter=where))

    def groups(self, file: str, column: str) -> list[Group]:
        """Return the row groups of one of the files, by its path: exact where the file's statistics are coarse."""
        with lake_errors(self.uri, pa.ArrowInvalid):
            (fragment,) = self._dataset(self.only(file)).get_fragments()
            return _groups(fragment, column)

    def find(self, column: str, text: str) -> pa.Table:
        """Return the rows whose `column` is `text`, from the row groups that hold it.

        A filter alone would do, but Arrow weighs it against every group of a file and reads all columns of those that
        may hold it: that costs more than looking into this one column first.
        """
        files = self.between(column, text, text)
        parts = [self.schema.empty_table()]
        with lake_errors(self.uri, pa.ArrowInvalid):
            for fragment in self._dataset(files).get_fragments() if files.num_rows else ():
                for place, group in enumerate(_groups(fragment, column)):
                    if group.least is None or group.least <= text <= group.most:
                        parts += self._found(fragment.subset(row_group_ids=[place]), column, text)
        return pa.concat_tables(parts)

    def _found(self, group: ds.Fragment, column: str, text: str) -> list[pa.Table]:
        values = group.to_table(schema=self.schema, columns=[column], use_threads=False)[column]
        places = pc.indices_nonzero(pc.equal(values, text))
        if not len(places):
            return []
        others = [name for name in self.schema.names if name != column]
        rows = group.to_table(schema=self.schema, columns=others, use_threads=False).take(places)
        return [rows.append_column(self.schema.field(column), values.take(places)).select(self.schema.names)]

    def only(self, file: str) -> pa.Table:
        """Return that one of the files."""
        return self.files.filter(pc.equal(self.files["path"], file))

    def _dataset(self, files: pa.Table) -> ds.Dataset:
        paths = [f"{self.root}/{path}" if self.root else path for path in files["path"].to_pylist()]
        return ds.dataset(
            paths,
            schema=self.schema,
            format="parquet",
            filesystem=self.filesystem,
            partitioning=ds.HivePartitioning.discover() if "=" in paths[0] else None,
            partition_base_dir=self.root,
        )


def _groups(fragment: ds.Fragment, column: str) -> list[Group]:
    metadata = fragment.metadata
    names = [metadata.schema.column(place).path for place in range(metadata.num_columns)]
    if column not in names:
        return [Group(None, None, metadata.row_group(place).num_rows) for place in range(metadata.num_row_groups)]
    found = []
    for place in range(metadata.num_row_groups):
        group = metadata.row_group(place)
        ends = group.column(names.index(column)).statistics
        has_ends = ends is not None and ends.has_min_max
        found.append(Group(ends.min if has_ends else None, ends.max if has_ends else None, group.num_rows))
    return found


def _lowered(low: Any) -> Any:
    return low if isinstance(low, str) else low - _STATS_STEP


def _bound(value: Any, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(value[:_STATS_TEXT] if isinstance(value, str) else value, kind)


def _cut(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_slice_codeunits(column, 0, _STATS_TEXT) if pa.types.is_string(column.type) else column
