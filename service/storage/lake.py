"""The lake: one Delta table a model and kind, with typed columns. Rows are only ever added.

``predictions/<model>`` what was answered · ``labels/<model>`` the truth as it arrived · ``datasets/<model>`` what
version 1 starts from · ``references/<model>`` the rows that a version is compared with.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from service.domain.errors import LakeUnavailable
from service.domain.spec import Schema
from service.storage import references
from service.storage.delta import DeltaFolder, MisfitError
from service.storage.queries import (
    Kind,
    Question,
    Seen,
    arrived,
    between,
    by_id,
    known_labels,
    labels_of,
    labels_since,
    reach,
    training,
    watermark,
)
from service.storage.rows import MOMENT, arrow_type, newest_labels, sorted_rows
from service.storage.snapshot import Snapshot, digest_of

__all__ = ["HISTORY", "Kind", "Lake", "MisfitError", "Snapshot"]


_STATS: dict[Kind, tuple[str, ...]] = {
    "predictions": ("id", "event_time", "answered_at", "version"),
    "labels": ("id", "observed_at", "received_at"),
    "datasets": ("event_time",),
    "references": ("position",),
}
HISTORY = timedelta(minutes=10)
"""How long old versions of the tables that grow all day are kept, and files that no version names: longer than any read
takes. Delta lists the whole log at every commit: two hours of it, at some commits a second, made a commit 200 ms long.
A snapshot older than this is read from the newest version, and its digest tells whether it is equal."""
_TIMES: dict[Kind, str] = {"predictions": "event_time", "labels": "observed_at"}
"""The tables that grow all day, and the column by which their rows grow old."""
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
    history
        See `HISTORY`; written into a table when it is made.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        storage_options: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        history: timedelta = HISTORY,
    ) -> None:
        self.root = str(root)
        self._history = history
        self._options, self._now = storage_options, now
        self._folders: dict[tuple[Kind, str], DeltaFolder] = {}
        self._watermarks: dict[str, Seen] = {}

    def append_predictions(self, model: str, rows: pa.Table, *, transactions: Mapping[str, int]) -> int:
        """Add answered rows in one commit; see `DeltaFolder.append`."""
        return self._append("predictions", model, rows, transactions)

    def append_labels(self, model: str, rows: pa.Table, *, transactions: Mapping[str, int]) -> int:
        """Add labels in one commit; see `DeltaFolder.append`."""
        return self._append("labels", model, rows, transactions)

    def committed(self, model: str, kind: Kind, *applications: str) -> dict[str, int | None]:
        """Return the highest number that each application has committed to the table; None for one that never has."""
        return self._folder(kind, model).committed(*applications)

    def sync(self, model: str, kind: Kind) -> None:
        """Force to the disk what is committed to the table; see `DeltaFolder.sync`."""
        self._folder(kind, model).sync()

    def mend(self, model: str, kind: Kind) -> list[str]:
        """Take back what a power cut tore off the table; see `DeltaFolder.mend`."""
        return self._folder(kind, model).mend()

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
        self._watermarks[model] = seen = watermark(view, self._watermarks.get(model))
        return seen.newest

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

    def stragglers(self, model: str, *, before: datetime, since: datetime) -> pa.Table:
        """Return id, event time and `answered_at` of the rows up to `before` that were answered from `since` on."""
        view = self._folder("predictions", model).view()
        if view is None:
            return _NO_ROWS.empty_table()
        return arrived(view, before=before, since=since)

    def labels_known(self, model: str, *, observed_until: datetime | None = None) -> pa.Table:
        """Return one label for each id, the newest of those observed up to then. Reads the whole table.

        Returns
        -------
        pyarrow.Table
            Columns id, label, observed_at, received_at.
        """
        view = self._folder("labels", model).view()
        return _NO_LABELS.empty_table() if view is None else known_labels(view, observed_until)

    def labels_of(
        self, model: str, ids: pa.ChunkedArray | pa.Array, *, observed_until: datetime | None = None
    ) -> pa.Table:
        """Return what `labels_known` does, for these ids alone: reads only the files that may hold their labels."""
        view = self._folder("labels", model).view()
        return _NO_LABELS.empty_table() if view is None else labels_of(view, ids, observed_until)

    def labels_since(self, model: str, *, after: datetime | None, until: datetime | None) -> int:
        """Return how many predictions got a label that was observed in ``after < observed_at <= until``.

        Exact up to 100,000; above it a label that was sent twice counts twice.
        """
        view = self._folder("labels", model).view()
        return 0 if view is None else labels_since(view, after, until)

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
        return references.keep(self._folder("references", model), model, rows)

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

    def forget_references(self, model: str, wanted: Collection[str], *, before: float) -> list[str]:
        """Remove kept rows whose digest is not `wanted` and that are older than `before`; return their digests.

        Parameters
        ----------
        before
            Seconds since 1970: rows are kept before the version that names them is written.
        """
        return references.forget(self._folder("references", model), wanted, before=before)

    def models(self) -> list[str]:
        """Return the models that have a table of predictions or labels."""
        folders = [Path(self.root) / kind for kind in _TIMES]
        return sorted(
            {entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir() if entry.is_dir()}
        )

    def forget(self, model: str, kind: Kind, *, before: datetime, slack: timedelta = timedelta(0)) -> int:
        """Remove predictions of an older event time, or labels observed earlier; return how many.

        Parameters
        ----------
        slack
            Nothing is done before the oldest row is older still by this: each time files are written anew.
        """
        folder, column = self._folder(kind, model), _TIMES[kind]
        view = folder.view()
        if view is None or not view.between(column, None, before - slack - timedelta(microseconds=1)).num_rows:
            return 0
        return folder.forget(f"{column} < '{before.astimezone(UTC).isoformat()}'")

    def maintain(self, model: str) -> dict[str, dict[str, int]]:
        """Compact, write checkpoints, clean up logs and unused files; return what was done, by kind.

        Raises
        ------
        LakeUnavailable
            If some of it failed; the other table was looked after all the same.
        """
        done: dict[str, dict[str, int]] = {}
        failure: LakeUnavailable | None = None
        for kind in _TIMES:
            try:
                done[kind] = self._folder(kind, model).maintain()
            except LakeUnavailable as error:
                failure = error
        if failure is not None:
            raise failure
        return done

    def _kept(self, snapshot: Snapshot) -> pa.Table | None:
        return references.read(self._folder("references", snapshot.model), snapshot)

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
                history=self._history if kind in {"predictions", "labels"} else None,
                storage_options=self._options,
            )
        return self._folders[key]
