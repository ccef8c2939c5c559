"""A champion on probation against the version before it, on the rows that it answered: part of a check's process."""

import logging
from pathlib import Path

import pyarrow.compute as pc

from service.control.rows import frame_of, join_labels, without
from service.control.tasks import CheckTask, Watched
from service.domain.probation import Comparison
from service.domain.spec import Schema
from service.journal import facts
from service.learning.package import predictor_of
from service.learning.predictor import Predictor
from service.learning.probation import compare
from service.storage.artifacts import ArtifactStore
from service.storage.lake import Lake

__all__ = ["compared"]

log = logging.getLogger(__name__)


def compared(task: CheckTask, lake: Lake) -> Comparison | None:
    """Return the comparison; None where no champion is on probation.

    Whatever breaks in here is told in the comparison: a check is never lost for it.
    """
    watched = task.watched
    if watched is None:
        return None
    try:
        return _compared(task, watched, lake)
    except Exception as error:
        log.exception("comparison_broke", extra=facts(model=task.model, check=task.check_id, version=watched.version))
        return Comparison(error=f"version {watched.version} could not answer: {type(error).__name__}: {error}"[:500])


def _compared(task: CheckTask, watched: Watched, lake: Lake) -> Comparison:
    schema = Schema.from_json(task.schema)
    previous = _previous(watched)
    table = lake.read_window(task.model, after=watched.began_event_time, until=task.window_until)
    table = table.filter(pc.equal(table["generation"], watched.generation)) if table.num_rows else table
    if not table.num_rows:
        return Comparison()
    known = lake.labels_of(task.model, table["id"], observed_until=task.window_until)
    rows = without(join_labels(frame_of(table, schema), known), watched.quarantined)
    older = frame_of(table, previous.schema)
    # A feature that only the version before had: it answers with it, if the lake still has it.
    missing = [name for name in previous.schema.names if name not in rows.columns and name in older.columns]
    if missing:
        rows = rows.merge(older[["id", *missing]], on="id", how="left")
    return compare(schema, task.metric, rows, previous, confidence=watched.confidence)


def _previous(watched: Watched) -> Predictor:
    store = ArtifactStore(Path(watched.artifacts))
    return predictor_of(store.read(watched.artifact), watched.manifest, version=watched.version)
