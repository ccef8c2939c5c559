"""What is asked of the lake's tables: each question opens only the files whose statistics allow an answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from service.storage.rows import LABEL_TYPES, MOMENT, join_labels, newest_labels, sorted_rows
from service.storage.view import Group, View

__all__ = [
    "Kind",
    "Question",
    "Seen",
    "arrived",
    "between",
    "by_id",
    "known_labels",
    "labels_of",
    "labels_since",
    "reach",
    "training",
    "watermark",
]

Kind = Literal["predictions", "labels", "datasets", "references"]
_STEP = timedelta(microseconds=1)
_TOGETHER = 100_000
"""So many answers are joined with their labels together."""
_EXACTLY = 100_000
"""Up to so many new labels are counted by their ids; above it a label that was sent twice counts twice."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which rows a run may learn from. Times are event time, but `observed_until`, when labels were seen."""

    columns: Mapping[str, pa.DataType]
    label: str
    after: datetime | None
    until: datetime | None
    observed_until: datetime | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        moments = {"after": self.after, "until": self.until, "observed_until": self.observed_until}
        return {name: None if at is None else at.astimezone(UTC).isoformat() for name, at in moments.items()} | {
            "columns": {name: str(kind) for name, kind in self.columns.items()},
            "label": self.label,
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Question":
        """Return the question that `to_json` wrote."""
        moments = {
            name: None if plain[name] is None else datetime.fromisoformat(plain[name])
            for name in ("after", "until", "observed_until")
        }
        columns = {name: pa.type_for_alias(kind) for name, kind in plain["columns"].items()}
        return Question(columns=columns, label=plain["label"], **moments)


def between(
    view: View, *, after: datetime | None, until: datetime | None, columns: list[str] | None = None
) -> pa.Table:
    """Return the rows of ``after < event_time <= until`` in no order."""
    low = None if after is None else after + _STEP
    return view.read(view.between("event_time", low, until), columns=columns, where=_span("event_time", after, until))


def arrived(view: View, *, before: datetime, since: datetime) -> pa.Table:
    """Return the rows of ``event_time <= before`` that were answered from `since` on, without their features."""
    where = _span("event_time", None, before) & (ds.field("answered_at") >= pa.scalar(since, MOMENT))
    return view.read(view.between("answered_at", since, None), columns=["id", "event_time", "answered_at"], where=where)


def by_id(view: View, wanted: str) -> pa.Table:
    """Return the rows with that id."""
    return view.find("id", wanted)


def known_labels(view: View, observed_until: datetime | None) -> pa.Table:
    """Return one label for each id, the newest of those observed up to then."""
    files = view.between("observed_at", None, observed_until)
    return newest_labels(view.read(files, where=_span("observed_at", None, observed_until)))


def labels_of(view: View, ids: pa.ChunkedArray | pa.Array, observed_until: datetime | None) -> pa.Table:
    """Return one label for each of `ids` that has one; reads only files that may hold such a label.

    Ids begin with the moment they were made, and labels are stored as they arrive: those of a window lie together.
    """
    wanted = pc.drop_null(pc.unique(ids))
    wanted = wanted.take(pc.sort_indices(wanted))
    if not len(wanted):
        return view.schema.empty_table()
    where = (ds.field("id") >= wanted[0]) & (ds.field("id") <= wanted[-1])
    known = _span("observed_at", None, observed_until)
    rows = view.read(view.holding("id", wanted), where=where if known is None else where & known)
    return newest_labels(rows.filter(pc.is_in(rows["id"], value_set=wanted)))


def labels_since(view: View, after: datetime | None, until: datetime | None) -> int:
    """Return how many predictions got a label that was observed in ``after < observed_at <= until``."""
    files = view.between("observed_at", after, until)
    where = _span("observed_at", after, until)
    n = sum(files["num_records"].to_pylist()) if where is None else view.count(files, where)
    if n > _EXACTLY:
        return n
    return int(pc.count_distinct(view.read(files, columns=["id"], where=where)["id"]).as_py())


@dataclass(frozen=True)
class Seen:
    """The watermark of one version of a table, and the files that it took into account."""

    version: int
    files: frozenset[str]
    newest: datetime | None


def watermark(view: View, seen: Seen | None = None) -> Seen:
    """Return the newest event time that is not later than its answer.

    Parameters
    ----------
    seen
        What was found before: only files that have come since are opened. Rows are never changed, and those that
        retention takes away are the oldest.
    """
    if seen is not None and seen.version == view.version:
        return seen
    newest = None if seen is None else seen.newest
    for file in _newest_first(view.files):
        most = file["max.event_time"]
        # Statistics are cut down to milliseconds: a file that ends in the same one may still hold a newer row.
        if newest is not None and most is not None and most + timedelta(milliseconds=1) <= newest:
            break
        if seen is not None and file["path"] in seen.files:
            continue
        rows = view.read(view.only(file["path"]), columns=["event_time", "answered_at"])
        past = rows.filter(pc.less_equal(rows["event_time"], rows["answered_at"]))
        found = pc.max(past["event_time"]).as_py()
        newest = found if newest is None or (found is not None and found > newest) else newest
    return Seen(view.version, frozenset(view.files["path"].to_pylist()), newest)


def reach(view: View, n: int, until: datetime | None) -> datetime | None:
    """Return a moment, exclusive, after which there are at least `n` rows up to `until`; None: look at all."""
    files = {file["path"]: _whole(file) for file in _newest_first(view.files)}
    opened = _newest_rows(files, n, until)
    if opened is None:
        return None
    # A file holds some 100,000 rows: its groups tell more exactly how far back to go.
    groups = [group for path in opened for group in view.groups(path, "event_time")]
    if all(group.most is not None for group in groups):
        groups.sort(key=lambda group: group.most, reverse=True)
    narrowed = _newest_rows(dict(enumerate(groups)), n, until)
    chosen = [files[path] for path in opened] if narrowed is None else [groups[place] for place in narrowed]
    lowest: datetime = min(group.least for group in chosen)
    return lowest - _STEP


def _newest_rows(groups: Mapping[Any, Group], n: int, until: datetime | None) -> list[Any] | None:
    """Return the first of the groups, newest first, that hold `n` rows up to `until`; None if all of them may not."""
    rows = 0
    taken: list[Any] = []
    for name, group in groups.items():
        if group.least is None or group.most is None:
            return None
        if until is not None and group.least > until:
            continue
        taken.append(name)
        rows += group.rows if until is None or group.most + timedelta(milliseconds=1) <= until else 0
        if rows >= n:
            return taken
    return None


def _whole(file: Mapping[str, Any]) -> Group:
    return Group(file["min.event_time"], file["max.event_time"], file["num_records"])


def training(views: Mapping[Kind, View | None], question: Question) -> tuple[pa.Table, dict[str, int]]:
    """Return the rows to learn from, sorted, and how many each table gave."""
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("event_time", MOMENT),
            *question.columns.items(),
            ("label", LABEL_TYPES[question.label]),
        ]
    )
    parts, counts = [schema.empty_table()], {"datasets": 0, "predictions": 0, "labels": 0}
    source = views.get("datasets")
    if source is not None:
        start = between(source, after=question.after, until=question.until)
        parts.append(_shaped(start, schema))
        counts["datasets"] = start.num_rows
    answered, labels = views.get("predictions"), views.get("labels")
    if answered is not None and labels is not None:
        learnt = [_shaped(rows, schema) for rows in _labelled(answered, labels, question)]
        n = sum(rows.num_rows for rows in learnt)
        parts += learnt
        counts |= {"predictions": n, "labels": n}
    return _once(sorted_rows(pa.concat_tables(parts))), counts


def _labelled(answered: View, labels: View, question: Question) -> Iterator[pa.Table]:
    """Yield the answers that have a label, some files at a time: neither all answers nor all labels are ever held."""
    low = None if question.after is None else question.after + _STEP
    wanted = ["id", "event_time", *question.columns]
    where = _span("event_time", question.after, question.until)
    for files in _groups(answered.between("event_time", low, question.until)):
        rows = answered.read(files, columns=wanted, where=where)
        if rows.num_rows:
            yield join_labels(rows, labels_of(labels, rows["id"], question.observed_until))


def _groups(files: pa.Table) -> Iterator[pa.Table]:
    """Yield the files in the order of time, as many together as hold some 100,000 rows."""
    place = pc.sort_indices(files, sort_keys=[("min.event_time", "ascending"), ("path", "ascending")])
    files = files.take(place)
    first, rows = 0, 0
    for at, count in enumerate(files["num_records"].to_pylist(), start=1):
        rows += count
        if rows >= _TOGETHER or at == files.num_rows:
            yield files.slice(first, at - first)
            first, rows = at, 0


def _once(rows: pa.Table) -> pa.Table:
    """Return sorted rows, each id once: in sorted rows what was written twice lies together."""
    ids = rows["id"].combine_chunks()
    if len(ids) < 2:
        return rows
    is_again = pc.fill_null(pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1)), False)  # noqa: FBT003  the value
    if not pc.any(is_again).as_py():
        return rows
    return rows.filter(pa.concat_arrays([pa.array([True]), pc.invert(is_again)]))


def _shaped(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _span(column: str, after: datetime | None, until: datetime | None) -> ds.Expression | None:
    where = None
    if after is not None:
        where = ds.field(column) > pa.scalar(after, MOMENT)
    if until is not None:
        upper = ds.field(column) <= pa.scalar(until, MOMENT)
        where = upper if where is None else where & upper
    return where


def _newest_first(files: pa.Table) -> list[dict[str, Any]]:
    wanted = ["path", "num_records", "min.event_time", "max.event_time"]
    rows: list[dict[str, Any]] = files.select(wanted).to_pylist()
    latest = datetime.max.replace(tzinfo=UTC)
    return sorted(rows, key=lambda file: file["max.event_time"] or latest, reverse=True)
