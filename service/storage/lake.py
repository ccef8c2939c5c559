"""The lake: one Delta table a model and kind, with typed columns. Rows are only ever added.

``predictions/<model>`` what was answered · ``labels/<model>`` the truth as it arrived · ``datasets/<model>`` what
version 1 starts from · ``references/<model>`` the rows that a version is compared with.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from service.domain.errors import LakeUnavailable
from service.domain.spec import Schema
from service.storage.delta import DeltaFolder, MisfitError, View
from service.storage.queries import Kind, Question, between, by_id, known_labels, reach, training, watermark
from service.storage.rows import MOMENT, arrow_type, newest_labels, sorted_rows
from service.storage.snapshot import Snapshot, digest_of

__all__ = ["Kind", "Lake", "MisfitError", "Snapshot"]


_STATS: dict[Kind, tuple[str, ...]] = {
    "predictions": ("id", "event_time", "answered_at", "version"),
    "labels": ("id", "observed_at", "received_at"),
    "datasets": ("event_time",),
    "references": ("position",),
}
_HISTORY = timedelta(hours=2)
"""How long old versions of the tables that grow all day are kept: at two commits a second more would make folders of
100,000 files. A snapshot older than this is read from the newest version, and its digest tells whether it is equal."""
_TRAINING: tuple[Kind, ...] = ("datasets", "predictions", "labels")
_NO_ROWS = pa.schema([("id", pa.string()), ("event_time", MOMENT)])
_NO_LABELS = pa.schema([("id", pa.string()), ("label", pa.string()), ("observed_at", MOMENT), ("received_at", MOMENT)])


class Lake:
    """All tables below one root. Reads may come from several threads; predictions and labels have one writer.

    Parameters
    ----------
    root
        A folder, or an object store's address.
    storage_options
        What the object store needs.
    now
        Wall clock.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        storage_options: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.root = str(root)
        self._options, self._now = storage_options, now
        self._folders: dict[tuple[Kind, str], DeltaFolder] = {}
        self._watermarks: dict[str, tuple[int, datetime | None]] = {}

    def append_predictions(self, model: str, rows: pa.Table, *, transactions: Mapping[str, int]) -> int:
        """Add answered rows in one commit; see `DeltaFolder.append`."""
        return self._append("predictions", model, rows, transactions)

    def append_labels(self, model: str, rows: pa.Table, *, transactions: Mapping[str, int]) -> int:
        """Add labels in one commit; see `DeltaFolder.append`."""
        return self._append("labels", model, rows, transactions)

    def committed(self, model: str, kind: Kind, application: str) -> int | None:
        """Return the highest number that `application` has committed to the table."""
        return self._folder(kind, model).committed(application)

    def version_of(self, model: str, kind: Kind) -> int | None:
        """Return the table's newest version; None while it does not exist."""
        return self._folder(kind, model).version()

    def watermark(self, model: str) -> datetime | None:
        """Return the newest event time among the predictions that were not ahead of their answer.

        The rows' own clock: a row from the future is a finding of data quality and never moves it.
        """
        view = self._folder("predictions", model).view()
        if view is None:
            return None
        known = self._watermarks.get(model)
        if known is None or known[0] != view.version:
            self._watermarks[model] = known = (view.version, watermark(view))
        return known[1]

    def read_window(
        self,
        model: str,
        *,
        after: datetime | None,
        until: datetime | None,
        columns: list[str] | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Return the predictions of ``after < event_time <= until``, sorted by event time and id.

        Parameters
        ----------
        columns
            All when left out; ``event_time`` and ``id`` are always among them.
        version
            The table's version; the newest when left out.

        Raises
        ------
        LakeUnavailable
            If the table can't be read.
        """
        view = self._folder("predictions", model).view(version)
        if view is None:
            return _NO_ROWS.empty_table()
        wanted = None if columns is None else list(dict.fromkeys(["id", "event_time", *columns]))
        return sorted_rows(between(view, after=after, until=until, columns=wanted))

    def newest_rows(
        self, model: str, n: int, until: datetime | None = None, *, columns: list[str] | None = None
    ) -> pa.Table:
        """Return the newest `n` predictions up to `until`, sorted by event time and id."""
        view = self._folder("predictions", model).view()
        after = None if view is None else reach(view, n, until)
        table = self.read_window(model, after=after, until=until, columns=columns)
        return table.slice(max(table.num_rows - n, 0))

    def labels_known(self, model: str, *, observed_until: datetime | None = None) -> pa.Table:
        """Return one label for each id, the newest of those observed up to then.

        Returns
        -------
        pyarrow.Table
            Columns id, label, observed_at, received_at.
        """
        view = self._folder("labels", model).view()
        return _NO_LABELS.empty_table() if view is None else known_labels(view, observed_until)

    def training_rows(
        self,
        model: str,
        schema: Schema,
        *,
        after: datetime | None,
        until: datetime | None,
        observed_until: datetime | None,
    ) -> tuple[pa.Table, Snapshot]:
        """Return what a run may learn from: rows of the data set and labelled predictions.

        Parameters
        ----------
        after, until
            Event time, exclusive and inclusive.
        observed_until
            Labels that were observed later are not known yet.

        Returns
        -------
        pyarrow.Table
            Columns id (null in rows of the data set), event_time, ``x_<feature>``, label; sorted by event time and id.
        Snapshot
            How to read the same rows again.
        """
        question = Question(
            columns={f"x_{feature.name}": arrow_type(schema, feature) for feature in schema.features},
            label=schema.label,
            after=after,
            until=until,
            observed_until=observed_until,
        )
        views = {kind: self._folder(kind, model).view() for kind in _TRAINING}
        table, counts = training(views, question)
        tables = tuple(
            {"uri": self._folder(kind, model).uri, "version": view.version, "rows": counts[kind]}
            | {"kind": kind, "filter": question.to_json()}
            for kind, view in views.items()
            if view is not None
        )
        return table, Snapshot.of(table, kind="training", model=model, tables=tables)

    def write_dataset(self, model: str, rows: pa.Table) -> bool:
        """Store what version 1 starts from; return False if just these rows are stored already.

        Another data set takes the place of the one before: snapshots on it keep its table version.

        Parameters
        ----------
        rows
            Columns event_time, ``x_<feature>`` and label.
        """
        folder = self._folder("datasets", model)
        rows = sorted_rows(rows)
        view = folder.view()
        if view is not None and set(view.schema.names) == set(rows.column_names):
            stored = sorted_rows(view.read(view.files)).select(rows.column_names)
            if stored.num_rows == rows.num_rows and digest_of(stored) == digest_of(rows):
                return False
        folder.overwrite(rows)
        return True

    def keep(self, model: str, rows: pa.Table) -> Snapshot:
        """Store rows themselves, such as a version's reference, so that no retention touches them."""
        folder = self._folder("references", model)
        rows = rows.combine_chunks()
        table = {"uri": folder.uri, "filter": {"reference": digest_of(rows)}, "rows": rows.num_rows}
        snapshot = Snapshot.of(rows, kind="kept", model=model, tables=(table,))
        view = folder.view()
        if view is None or not _reference_files(view, snapshot.digest).num_rows:
            n = rows.num_rows
            stored = rows.append_column("position", pa.array(range(n), pa.int64()))
            stored = stored.append_column("reference", pa.array([snapshot.digest] * n, pa.string()))
            folder.append(stored, transactions={})
        return snapshot

    def read_snapshot(self, plain: dict[str, Any]) -> pa.Table:
        """Return the rows of a snapshot, verified by its digest.

        Raises
        ------
        LakeUnavailable
            If the same rows can't be read any more.
        """
        snapshot = Snapshot.from_json(plain)
        attempts = [self._kept] if snapshot.kind == "kept" else [self._as_it_was, self._as_it_is]
        for attempt in attempts:
            try:
                table = attempt(snapshot)
            except LakeUnavailable:
                continue  # that version of the table was cleaned up
            if table is not None and digest_of(table) == snapshot.digest:
                return table
        msg = "the snapshot's rows can't be read any more: they were removed, or others have joined them"
        raise LakeUnavailable(msg, digest=snapshot.digest)

    def find_prediction(self, model: str, prediction_id: str) -> dict[str, Any] | None:
        """Return one prediction as plain values, with its newest label; None if the lake has it not (yet).

        Ids sort by time, so that the file statistics leave one or two files to read.
        """
        view = self._folder("predictions", model).view()
        if view is None:
            return None
        found = by_id(view, prediction_id)
        if not found.num_rows:
            return None
        row: dict[str, Any] = found.slice(0, 1).to_pylist()[0]
        plain = {key: value for key, value in row.items() if not key.startswith("x_")}
        plain["features"] = {key[2:]: value for key, value in row.items() if key.startswith("x_")}
        labels = self._folder("labels", model).view()
        known = [] if labels is None else newest_labels(by_id(labels, prediction_id)).to_pylist()
        return {"model": model, **plain, "label": known[0] if known else None}

    def maintain(self, model: str, *, forget_before: datetime | None = None) -> dict[str, dict[str, int]]:
        """Compact, write checkpoints, clean up logs and unused files; return what was done, by kind.

        Parameters
        ----------
        forget_before
            Predictions of an older event time are removed, and labels observed earlier.
        """
        done: dict[str, dict[str, int]] = {}
        times: dict[Kind, str] = {"predictions": "event_time", "labels": "observed_at"}
        for kind, column in times.items():
            folder = self._folder(kind, model)
            if forget_before is not None:
                folder.forget(f"{column} < '{forget_before.astimezone(UTC).isoformat()}'")
            done[kind] = folder.maintain()
        return done

    def _kept(self, snapshot: Snapshot) -> pa.Table | None:
        view = self._folder("references", snapshot.model).view()
        if view is None:
            return None
        files = _reference_files(view, snapshot.digest)
        rows = view.read(files, columns=["position", *snapshot.columns], where=ds.field("reference") == snapshot.digest)
        return rows.sort_by("position").select(list(snapshot.columns)).combine_chunks()

    def _as_it_was(self, snapshot: Snapshot) -> pa.Table | None:
        return self._trained(snapshot, {table["kind"]: table["version"] for table in snapshot.tables})

    def _as_it_is(self, snapshot: Snapshot) -> pa.Table | None:
        return self._trained(snapshot, {table["kind"]: None for table in snapshot.tables})

    def _trained(self, snapshot: Snapshot, versions: Mapping[Kind, int | None]) -> pa.Table | None:
        if not snapshot.tables:
            return None
        views = {kind: self._folder(kind, snapshot.model).view(version) for kind, version in versions.items()}
        return training(views, Question.from_json(snapshot.tables[0]["filter"]))[0]

    def _append(self, kind: Kind, model: str, rows: pa.Table, transactions: Mapping[str, int]) -> int:
        stamp_ms = int(self._now().timestamp() * 1000)
        return self._folder(kind, model).append(rows, transactions=transactions, stamp_ms=stamp_ms)

    def _folder(self, kind: Kind, model: str) -> DeltaFolder:
        key = (kind, model)
        if key not in self._folders:
            self._folders[key] = DeltaFolder(
                f"{self.root}/{kind}/{model}",
                stats=_STATS[kind],
                partition_by=("reference",) if kind == "references" else (),
                history=_HISTORY if kind in {"predictions", "labels"} else None,
                storage_options=self._options,
            )
        return self._folders[key]


def _reference_files(view: View, digest: str) -> pa.Table:
    return view.files.filter(pc.equal(view.files["partition.reference"], digest))
