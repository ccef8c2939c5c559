"""What is asked of the lake's tables: each question opens only the files whose statistics allow an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from service.storage.delta import View
from service.storage.rows import LABEL_TYPES, MOMENT, join_labels, newest_labels, sorted_rows

__all__ = ["Kind", "Question", "between", "by_id", "known_labels", "reach", "training", "watermark"]

Kind = Literal["predictions", "labels", "datasets", "references"]
_STEP = timedelta(microseconds=1)


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


def by_id(view: View, wanted: str) -> pa.Table:
    """Return the rows with that id."""
    return view.read(view.between("id", wanted, wanted), where=ds.field("id") == wanted)


def known_labels(view: View, observed_until: datetime | None) -> pa.Table:
    """Return one label for each id, the newest of those observed up to then."""
    files = view.between("observed_at", None, observed_until)
    return newest_labels(view.read(files, where=_span("observed_at", None, observed_until)))


def watermark(view: View) -> datetime | None:
    """Return the newest event time that is not later than its answer."""
    newest: datetime | None = None
    for file in _newest_first(view.files):
        most = file["max.event_time"]
        # Statistics are cut down to milliseconds: a file that ends in the same one may still hold a newer row.
        if newest is not None and most is not None and most + timedelta(milliseconds=1) <= newest:
            break
        rows = view.read(_only(view.files, file["path"]), columns=["event_time", "answered_at"])
        past = rows.filter(pc.less_equal(rows["event_time"], rows["answered_at"]))
        found = pc.max(past["event_time"]).as_py()
        newest = found if newest is None or (found is not None and found > newest) else newest
    return newest


def reach(view: View, n: int, until: datetime | None) -> datetime | None:
    """Return a moment, exclusive, after which there are at least `n` rows up to `until`; None: look at all."""
    rows = 0
    lowest: datetime | None = None
    for file in _newest_first(view.files):
        least, most = file["min.event_time"], file["max.event_time"]
        if least is None:
            return None
        if until is not None and least > until:
            continue
        lowest = least if lowest is None or least < lowest else lowest
        if until is None or most + timedelta(milliseconds=1) <= until:
            rows += file["num_records"]
        if rows >= n:
            return lowest - _STEP
    return None


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
        wanted = ["id", "event_time", *question.columns]
        rows = between(answered, after=question.after, until=question.until, columns=wanted)
        known = known_labels(labels, question.observed_until)
        joined = join_labels(rows, known)
        parts.append(_shaped(joined, schema))
        counts |= {"predictions": joined.num_rows, "labels": known.num_rows}
    return sorted_rows(pa.concat_tables(parts)), counts


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


def _only(files: pa.Table, path: str) -> pa.Table:
    return files.filter(pc.equal(files["path"], path))
