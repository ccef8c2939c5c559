"""Rows on their way between the lake's columns and the frames that learning takes."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa

from service.control.tasks import Interval
from service.domain.spec import Feature, Schema
from service.storage.rows import LABEL_TYPES, MOMENT, arrow_type

__all__ = ["frame_of", "join_labels", "table_of", "without"]

PREFIX = "x_"
"""Of feature columns in the lake, so that no feature name can collide with Retrue's own columns."""
_ID_LAG = timedelta(milliseconds=50)
"""Ids are made a moment after the moment that stands with their rows."""
OWN = ("id", "event_time", "answered_at", "version", "generation", "output", "probabilities", "label", "observed_at")


def frame_of(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """Return a table of the lake as a canonical frame: features under their own names.

    A feature that the lake does not know yet stays absent: learning refuses such a frame by name.
    """
    columns = {name: table.column(name) for name in OWN if name in table.column_names}
    for feature in schema.features:
        if PREFIX + feature.name in table.column_names:
            columns[feature.name] = table.column(PREFIX + feature.name)
    return pa.table(columns).to_pandas() if columns else pd.DataFrame()


def table_of(frame: pd.DataFrame, schema: Schema) -> pa.Table:
    """Return a canonical frame with labels (or outputs) as a table of the lake."""
    columns = {"event_time": pa.array(frame["event_time"], type=MOMENT)}
    for feature in schema.features:
        columns[PREFIX + feature.name] = _column(feature, schema, frame[feature.name])
    for name in ("label", "output"):
        if name in frame.columns:
            columns[name] = pa.array(frame[name], type=LABEL_TYPES[schema.label], from_pandas=True)
    return pa.table(columns)


def without(frame: pd.DataFrame, intervals: Sequence[Interval]) -> pd.DataFrame:
    """Return the rows outside all `intervals`: what was quarantined trains nothing."""
    keep = np.ones(len(frame), dtype=bool)
    times = frame["event_time"]
    for one in intervals:
        keep &= ~((times > one.after) & (times <= one.until)).to_numpy()
        if one.answered_from is not None and one.answered_until is not None and "id" in frame.columns:
            came = frame["id"].fillna("").between(*_ids_of(one.answered_from, one.answered_until))
            keep &= ~(came & (times <= one.until)).to_numpy()
    return frame if keep.all() else frame.loc[keep].reset_index(drop=True)


def _ids_of(first: datetime, last: datetime) -> tuple[str, str]:
    """Return the lowest and the highest id of rows that were answered then: an id begins with its moment."""
    low, high = (f"{int(moment.timestamp() * 1000):012x}" for moment in (first, last + _ID_LAG))
    return f"{low[:8]}-{low[8:]}", f"{high[:8]}-{high[8:]}-~"


def join_labels(answered: pd.DataFrame, known: pa.Table) -> pd.DataFrame:
    """Return the answered rows with `label` and `observed_at`; null where the truth has not arrived."""
    labels = known.select(["id", "label", "observed_at"]).to_pandas()
    return answered.merge(labels, on="id", how="left")


def _column(feature: Feature, schema: Schema, values: pd.Series) -> pa.Array:
    kind = arrow_type(schema, feature)
    if pa.types.is_boolean(kind) and values.dtype != bool:
        return pa.array([None if pd.isna(value) else bool(value) for value in values], type=kind)
    if pa.types.is_integer(kind):
        return pa.array(values, type=pa.float64(), from_pandas=True).cast(kind)  # null came as NaN among floats
    return pa.array(values, type=kind, from_pandas=True)
