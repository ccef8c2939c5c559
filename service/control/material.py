"""What a run learns from: the labelled rows up to a moment, as a frame with a snapshot that can be read again."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from service.control.files import read_source
from service.control.rows import frame_of, join_labels, table_of, without
from service.control.tasks import Interval
from service.domain.duration import parse_duration, parse_window
from service.domain.errors import LakeUnavailable
from service.domain.policy import Drift
from service.domain.spec import ModelSpec, Schema
from service.learning.frames import between, canonical
from service.storage.lake import Lake, Snapshot

__all__ = ["Material", "gather"]

_PARTS = 14
_ARRIVALS = 140_000


@dataclass(frozen=True, kw_only=True)
class Material:
    """Rows to learn from."""

    rows: pd.DataFrame
    """Canonical with labels, oldest first."""
    schema: Schema
    until: datetime
    """Event time; nothing newer was looked at, neither rows nor labels."""
    snapshot: dict[str, Any]
    """Tables, their versions, filters, excluded stretches: enough to read these rows again."""
    digest: str
    """Over the rows and the spec: the same digest means that there is nothing new to learn."""
    arrivals: pd.DataFrame | None = None
    """When the labels of the newest answered rows came; see `service.learning.ripeness.maturity_of`."""

    def frame(self, table: pa.Table) -> pd.DataFrame:
        """Return another table of the model's as a frame."""
        return frame_of(table, self.schema)

    def newest(self, policy: Drift) -> pd.DataFrame:
        """Return the newest rows, as many as a check looks at."""
        window = parse_window(policy.window)
        if window.duration is None:
            return self.rows.tail(window.rows or 0)
        return between(self.rows, after=self.rows["event_time"].iloc[-1] - window.duration, until=None)


def gather(
    lake: Lake,
    spec: ModelSpec,
    schema: Schema,
    *,
    project: Path,
    until: datetime | None,
    quarantined: Sequence[Interval],
    spec_digest: str | None,
    is_first: bool,
) -> Material:
    """Return what is known up to `until`: the starting data set and the labelled predictions.

    Parameters
    ----------
    project
        Folder that the spec's source is relative to; read only while the lake has no data set of the model.
    until
        Event time; None means the newest row of the data set.
    quarantined
        Stretches in which the data were broken: they train nothing.
    is_first
        Whether the model has no version yet. If it has one and the lake has no data set of it, that is not the lake
        it learned from: nothing is begun anew in a folder that was moved away or is not mounted.

    Raises
    ------
    LakeUnavailable
        If the lake does not answer, or has lost what the model learned from.
    """
    newest = None
    if not is_first and lake.version_of(spec.name, "datasets") is None:
        msg = "the lake has no data set of this model, which has learned from one: was it moved, or is it not mounted?"
        raise LakeUnavailable(msg, model=spec.name)
    if lake.version_of(spec.name, "datasets") is None or until is None:
        start = beginning(spec, canonical(spec, schema, read_source(spec, project)))
        lake.write_dataset(spec.name, table_of(start, schema))
        newest = start["event_time"].iloc[-1].to_pydatetime()
    moment = until or newest
    if moment is None:
        msg = "a run needs to know up to when it may look"
        raise ValueError(msg)
    rows, snapshot = _learnable(lake, spec.name, schema, until=moment, quarantined=quarantined)
    excluded = [[moment.isoformat() for moment in one if moment is not None] for one in quarantined]
    plain = snapshot.to_json()
    facts = {"excluded": excluded, "used_rows": len(rows), "until": moment.isoformat(), "spec_digest": spec_digest}
    parts = json.dumps([plain["digest"], excluded, spec_digest])
    arrivals = None
    if len(rows):
        arrivals = _arrivals(
            lake, spec, rows["event_time"].iloc[-1].to_pydatetime(), observed_until=moment, quarantined=quarantined
        )
    return Material(
        rows=rows,
        schema=schema,
        until=moment,
        snapshot=plain | facts,
        digest=hashlib.sha256(parts.encode()).hexdigest(),
        arrivals=arrivals,
    )


def _arrivals(
    lake: Lake, spec: ModelSpec, end: datetime, *, observed_until: datetime, quarantined: Sequence[Interval]
) -> pd.DataFrame | None:
    """Return the answered rows of a holdout that ends at `end`, with the moment at which each one's label was seen.

    At most `_ARRIVALS` rows, out of parts of equal length, so that memory is bounded however many were answered.
    """
    length = parse_duration(spec.training.holdout) / _PARTS
    parts = []
    for place in range(_PARTS, 0, -1):
        last = end - (place - 1) * length
        rows = lake.read_window(spec.name, after=last - length, until=last, columns=["event_time"])
        if not rows.num_rows:
            continue
        spread = np.unique(np.linspace(0, rows.num_rows - 1, min(_ARRIVALS // _PARTS, rows.num_rows)).astype(int))
        rows = rows.select(["id", "event_time"]).take(pa.array(spread))
        known = lake.labels_of(spec.name, rows["id"], observed_until=observed_until)
        parts.append(without(join_labels(rows.to_pandas(), known), quarantined))
    return pd.concat(parts, ignore_index=True)[["event_time", "observed_at"]] if parts else None


def _learnable(
    lake: Lake, model: str, schema: Schema, *, until: datetime, quarantined: Sequence[Interval]
) -> tuple[pd.DataFrame, Snapshot]:
    table, snapshot = lake.training_rows(model, schema, after=None, until=until, observed_until=until)
    if not any(one.answered_from for one in quarantined):
        # Nobody else asks for the ids, which as Python's texts would take more than all the numbers together.
        table = table.drop_columns(["id"])
    return without(frame_of(table, schema), quarantined), snapshot


def beginning(spec: ModelSpec, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the part of the source that version 1 learns from; what comes later is for the stream to bring."""
    if spec.training.initial is None:
        return rows
    end = rows["event_time"].iloc[0] + parse_duration(spec.training.initial)
    return between(rows, after=None, until=end)
