"""Rows on their way into the lake: batches of the spool become Arrow tables, and labels find their predictions."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.domain.spec import Feature, Schema
from service.storage.ids import id_texts
from service.storage.records import LabelBatch, PredictionBatch

__all__ = [
    "LABEL_TYPES",
    "MOMENT",
    "arrow_type",
    "join_labels",
    "labels_table",
    "newest_labels",
    "predictions_table",
    "sorted_rows",
]

MOMENT = pa.timestamp("us", tz="UTC")
LABEL_TYPES = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64()}
_NUMERIC_TYPES = {"numeric": pa.float64(), "boolean": pa.bool_(), "integer": pa.int64()}


def arrow_type(schema: Schema, feature: Feature) -> pa.DataType:
    """Return the type that a feature's column has in the lake."""
    if feature.kind == "numeric":
        return pa.float64()
    if feature.kind == "boolean":
        return pa.bool_()
    return pa.string() if schema.is_text(feature) else pa.int64()


def predictions_table(batches: Iterable[PredictionBatch]) -> pa.Table:
    """Return the rows of one model's batches; a column that a batch has not is null in its rows."""
    alike: dict[tuple[Any, ...], list[PredictionBatch]] = {}
    for batch in batches:
        output = batch.output.dtype.kind if isinstance(batch.output, np.ndarray) else "s"
        width = 0 if batch.probabilities is None else batch.probabilities.shape[1]
        layout = (*batch.numeric_names, *batch.numeric_kinds, *batch.text, output, width)
        alike.setdefault(layout, []).append(batch)
    return pa.concat_tables([_of_alike(group) for group in alike.values()], promote_options="permissive")


def labels_table(batches: Iterable[LabelBatch]) -> pa.Table:
    """Return the labels of one model's batches.

    Raises
    ------
    pyarrow.ArrowInvalid, pyarrow.ArrowTypeError
        If a label has not the type that its batch names.
    """
    parts = []
    for batch in batches:
        n = len(batch)
        parts.append(
            pa.table(
                {
                    "id": pa.array(batch.ids, pa.string()),
                    "label": pa.array(batch.labels, LABEL_TYPES[batch.kind]),
                    "observed_at": _moments(np.asarray(batch.observed_at_us, np.int64)),
                    "received_at": _moments(np.full(n, batch.received_at_us, np.int64)),
                }
            )
        )
    return pa.concat_tables(parts, promote_options="permissive")


def newest_labels(labels: pa.Table) -> pa.Table:
    """Return one label for each id: the one that was observed last, and of these the one that was received last.

    Of labels with both moments alike the greatest stays: whichever came first, and however files were merged since.
    """
    ids = pc.dictionary_encode(labels["id"].combine_chunks()) if labels.num_rows else None
    if ids is None or len(ids.dictionary) == labels.num_rows:
        return labels
    ranks = pc.rank(labels["label"].combine_chunks(), tiebreaker="dense").to_numpy(zero_copy_only=False)
    order = np.lexsort((ranks, _microseconds(labels["received_at"]), _microseconds(labels["observed_at"])))
    newest = np.empty(len(ids.dictionary), dtype=np.int64)
    newest[ids.indices.to_numpy()[order]] = order  # of equal indices the last assignment stays
    return labels.take(pa.array(np.sort(newest)))


def join_labels(predictions: pa.Table, labels: pa.Table) -> pa.Table:
    """Return the predictions that have a label, with it as their column ``label``, each id once."""
    found = pc.index_in(predictions["id"], value_set=labels["id"].combine_chunks())
    joined = predictions.append_column("label", labels["label"].combine_chunks().take(found.combine_chunks()))
    joined = joined.filter(pc.is_valid(found))
    if not joined.num_rows:
        return joined
    ids = pc.dictionary_encode(joined["id"].combine_chunks())
    if len(ids.dictionary) == joined.num_rows:
        return joined
    first = np.full(len(ids.dictionary), -1)
    first[ids.indices.to_numpy()[::-1]] = np.arange(joined.num_rows)[::-1]
    return joined.take(pa.array(np.sort(first)))


def sorted_rows(table: pa.Table) -> pa.Table:
    """Return the rows by event time, then id; rows without an id first and in the order they came in."""
    if not table.num_rows:
        return table
    keys = [_microseconds(table["event_time"])]
    if (keys[0][1:] > keys[0][:-1]).all():
        return table  # as most are: then nothing is copied
    if "id" in table.column_names:
        ids = table["id"].combine_chunks()
        ranks = pc.rank(pc.fill_null(ids, ""), tiebreaker="min").to_numpy(zero_copy_only=False)
        keys.insert(0, ranks)
    return table.take(pa.array(np.lexsort(keys))).combine_chunks()


def _of_alike(batches: list[PredictionBatch]) -> pa.Table:
    first = batches[0]
    sizes = [len(batch) for batch in batches]
    numeric = np.concatenate([batch.numeric for batch in batches])
    ids = id_texts(np.concatenate([batch.ids for batch in batches]))
    columns: dict[str, Any] = {
        "id": _texts(ids),
        "event_time": _moments(np.concatenate([batch.event_time_us for batch in batches])),
        "answered_at": _moments(np.repeat([batch.answered_at_us for batch in batches], sizes)),
        "version": pa.array(np.repeat([batch.version for batch in batches], sizes), pa.int32()),
        "generation": pa.array(np.repeat([batch.generation for batch in batches], sizes), pa.int64()),
    }
    for place, (name, kind) in enumerate(zip(first.numeric_names, first.numeric_kinds, strict=True)):
        columns[f"x_{name}"] = pa.array(numeric[:, place], from_pandas=True).cast(_NUMERIC_TYPES[kind])
    for name in first.text:
        columns[f"x_{name}"] = pa.array([value for batch in batches for value in batch.text[name]], pa.string())
    if isinstance(first.output, np.ndarray):
        columns["output"] = pa.array(np.concatenate([batch.output for batch in batches]))
    else:
        columns["output"] = pa.array([value for batch in batches for value in batch.output], pa.string())
    if first.probabilities is None:
        columns["probabilities"] = pa.nulls(len(ids), pa.list_(pa.float64()))
    else:
        flat = np.concatenate([np.ravel(batch.probabilities) for batch in batches])  # type: ignore[arg-type]
        offsets = np.arange(len(ids) + 1, dtype=np.int32) * first.probabilities.shape[1]
        columns["probabilities"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
    return pa.table(columns)


def _texts(ids: np.ndarray) -> pa.Array:
    """Return texts of one length as a column, without a Python object for each."""
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * ids.dtype.itemsize
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(ids))


def _moments(microseconds: np.ndarray) -> pa.Array:
    return pa.array(microseconds, pa.int64()).view(MOMENT)


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    values: np.ndarray = column.combine_chunks().view(pa.int64()).to_numpy(zero_copy_only=False)
    return values
