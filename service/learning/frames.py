"""Frames: from a source's columns to the canonical ones, and from those to what an estimator takes."""

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.errors import CheckFailed, SpecInvalid
from service.domain.spec import Feature, ModelSpec, Schema

__all__ = ["EVENT_TIME", "LABEL", "OUTPUT", "between", "canonical", "design", "event_times", "labels", "require"]

EVENT_TIME = "event_time"
LABEL = "label"
OUTPUT = "output"


def canonical(spec: ModelSpec, schema: Schema, source: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a source in Retrue's own columns, oldest first.

    Parameters
    ----------
    spec
        Names the source's columns of event time and truth.
    schema
        As `service.learning.schema.infer` gave it for this source.
    source
        The source's rows as they were read; not changed.

    Returns
    -------
    pandas.DataFrame
        `event_time`, the features in the schema's order, `label`. Rows without a truth are left out: there is nothing
        to learn from them.
    """
    columns: dict[str, Any] = {EVENT_TIME: event_times(source[spec.timestamp], spec.timestamp)}
    for feature in schema.features:
        columns[feature.name] = _canonical_column(schema, feature, source[feature.name])
    frame = pd.DataFrame(columns, index=source.index)
    known = source[spec.target].notna()
    frame = frame.loc[known]
    frame[LABEL] = _label_array(schema, source.loc[known, spec.target])
    return frame.sort_values(EVENT_TIME, kind="stable", ignore_index=True)


def event_times(column: pd.Series, name: str) -> pd.Series:
    """Return `column` as UTC moments with microseconds.

    Raises
    ------
    SpecInvalid
        If a value is missing, is no moment, or has no zone: a naive moment means another time on another host.
    """
    remedy = "write moments with a zone, such as 2026-01-31T12:00:00Z or a parquet timestamp in UTC"
    if pd.api.types.is_numeric_dtype(column.dtype):
        raise _bad_time(name, "holds numbers, not moments", remedy)
    try:
        naive = column.dt.tz is None if pd.api.types.is_datetime64_any_dtype(column.dtype) else _is_naive(column)
        moments = pd.to_datetime(column, utc=True, format=None if _is_moment(column) else "ISO8601")
    except (ValueError, TypeError) as error:
        raise _bad_time(name, "holds something that is no moment", remedy) from error
    if moments.isna().any():
        raise _bad_time(name, f"is empty in {int(moments.isna().sum())} rows", "every row needs its event time")
    if naive:
        raise _bad_time(name, "has moments without a zone", remedy)
    return moments.astype("datetime64[us, UTC]")


def _is_moment(column: pd.Series) -> bool:
    return bool(pd.api.types.is_datetime64_any_dtype(column.dtype))


def _is_naive(column: pd.Series) -> bool:
    # One naive value among zoned ones makes pandas raise when it is not told to assume UTC.
    values = column.dropna()
    return (
        any(pd.Timestamp(value).tzinfo is None for value in (values.iloc[0], values.iloc[-1])) if len(values) else False
    )


def _bad_time(name: str, what: str, remedy: str) -> SpecInvalid:
    return SpecInvalid(f"the timestamp column {name!r} {what}: {remedy}", field="timestamp", column=name, remedy=remedy)


def design(schema: Schema, frame: pd.DataFrame) -> Any:
    """Return what the schema's estimator takes for the rows of `frame`.

    Parameters
    ----------
    schema
        Says which columns, in which order, and whether the estimator wants names.
    frame
        Rows with at least the schema's features; not changed.

    Returns
    -------
    numpy.ndarray or pandas.DataFrame
        A float64 array of shape (n_rows, n_features), booleans as 0 and 1 and null as NaN; or, where `schema.frame`,
        a DataFrame: numeric float64, boolean bool (object with None where one is null), text object with None,
        integer categories int64 (float64 with NaN where one is null).
    """
    require(schema, frame)
    if not schema.frame:
        block = np.empty((len(frame), len(schema.features)), dtype=np.float64)
        for position, feature in enumerate(schema.features):
            block[:, position] = _floats(frame[feature.name])
        return block
    columns = {feature.name: _canonical_column(schema, feature, frame[feature.name]) for feature in schema.features}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))


def labels(schema: Schema, frame: pd.DataFrame) -> NDArray[Any]:
    """Return the truths of `frame`: float64, int64, or an object array of `str`, as the schema says."""
    return _label_array(schema, frame[LABEL])


def require(schema: Schema, frame: pd.DataFrame) -> None:
    """Refuse a frame in which a feature is missing: silence would look like health.

    Raises
    ------
    CheckFailed
        Naming every missing column.
    """
    missing = [name for name in schema.names if name not in frame.columns]
    if missing:
        msg = f"the rows lack the columns {', '.join(missing)}, which the model's schema names"
        raise CheckFailed(msg, columns=missing)


def between(frame: pd.DataFrame, *, after: datetime | None, until: datetime | None) -> pd.DataFrame:
    """Return the rows with `after` < event time <= `until`; None leaves that end open."""
    times = frame[EVENT_TIME]
    keep = np.ones(len(frame), dtype=bool)
    if after is not None:
        keep &= (times > pd.Timestamp(after)).to_numpy()
    if until is not None:
        keep &= (times <= pd.Timestamp(until)).to_numpy()
    return frame.loc[keep]


def _floats(column: pd.Series) -> NDArray[np.float64]:
    if column.dtype == object:
        # Booleans with None in between; None and NaN become NaN, True becomes 1.
        return pd.Series([np.nan if value is None else value for value in column]).to_numpy(np.float64, na_value=np.nan)
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _canonical_column(schema: Schema, feature: Feature, column: pd.Series) -> Any:
    null = column.isna().to_numpy()
    if schema.is_text(feature):
        values = column.astype(object).to_numpy(copy=True)
        values[null] = None
        return values
    if feature.kind == "boolean":
        floats = _floats(column)
        if null.any():
            values = (floats == 1).astype(object)
            values[null] = None
            return values
        return floats == 1
    floats = _floats(column)
    return floats if feature.kind == "numeric" or null.any() else floats.astype(np.int64)


def _label_array(schema: Schema, truth: pd.Series) -> NDArray[Any]:
    if schema.label == "number":
        return truth.to_numpy(dtype=np.float64, na_value=np.nan)
    if schema.label == "integer":
        return _floats(truth).astype(np.int64)
    return truth.astype(str).astype(object).to_numpy()
