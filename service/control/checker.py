"""One check, in a process of its own: reads the window, examines it, sends the verdict, then writes the evidence.

It touches no database: the controller decides and records, and is told of the report when it is written.
"""

import gzip
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from service.control.comparison import compared
from service.control.memory import peak_bytes
from service.control.rows import frame_of, join_labels
from service.control.tasks import CheckTask, Failure, Report, Seen
from service.domain.check import Verdict
from service.domain.duration import parse_duration, parse_window
from service.domain.errors import CheckFailed, RetrueError
from service.domain.spec import Schema
from service.journal import facts
from service.learning.calibration import Calibration
from service.learning.examine import examine
from service.learning.report import html
from service.storage.lake import Lake

__all__ = ["check"]

log = logging.getLogger(__name__)

BACK_WINDOWS = 4
"""So many windows of answers are read to judge realised performance: labels are late."""


ANSWER = ("id", "event_time", "version", "output", "probabilities")


def check(task: CheckTask, send: Callable[[Any], None]) -> None:
    """Make one check; `send` gets a `Seen` and then a `Report`, or a `Failure`."""
    started = time.perf_counter()
    schema = Schema.from_json(task.schema)
    lake = Lake(task.lake)
    calibration = Calibration.from_json(task.calibration)
    try:
        window_table = _window(lake, task)
        window = frame_of(window_table, schema)
        reference = frame_of(lake.read_snapshot(task.reference), schema)
        examination = examine(
            schema,
            quality=task.quality,
            drift=task.drift,
            metric=task.metric,
            reference=reference,
            window=window,
            answered=_answered(lake, task, schema),
            reference_loss=task.reference_loss,
            stragglers=_stragglers(lake, task, window_table),
            calibration=calibration,
        )
        new_labels = lake.labels_since(task.model, after=task.label_cutoff, until=task.window_until)
    except RetrueError as error:
        send(Failure(code=error.code, detail=error.detail))
        return
    except Exception as error:
        # Whatever breaks in the statistics ends this check with a recorded failure, never silently as "clean".
        log.exception("check_broke", extra=facts(model=task.model, check=task.check_id))
        send(Failure(code=CheckFailed.code, detail=f"{type(error).__name__}: {error}"))
        return
    # Broken data say nothing of a champion, neither for it nor against it.
    is_broken = examination.verdict is Verdict.QUARANTINED
    send(
        Seen(
            examination=examination,
            comparison=None if is_broken else compared(task, lake),
            window_from=task.window_from or _first_time(window_table),
            new_labels=new_labels,
            lake_version=lake.version_of(task.model, "predictions"),
            seconds=round(time.perf_counter() - started, 3),
            peak_bytes=peak_bytes(),
        )
    )
    if task.draws or is_broken:
        _write_report(task, schema, send, reference=reference, window=window, calibration=calibration)


def _window(lake: Lake, task: CheckTask) -> pa.Table:
    rows = parse_window(task.drift.window).rows
    if rows is not None:
        return lake.newest_rows(task.model, rows, task.window_until)
    return lake.read_window(task.model, after=task.window_from, until=task.window_until)


def _answered(lake: Lake, task: CheckTask, schema: Schema) -> pd.DataFrame:
    window = parse_window(task.drift.window)
    if window.duration is not None:
        after = task.window_until - BACK_WINDOWS * window.duration
        table = lake.read_window(task.model, after=after, until=task.window_until, columns=list(ANSWER))
    else:
        table = lake.newest_rows(task.model, BACK_WINDOWS * (window.rows or 0), task.window_until, columns=list(ANSWER))
    table = table.filter(pc.equal(table["version"], task.version))
    return join_labels(
        frame_of(table, schema), lake.labels_of(task.model, table["id"], observed_until=task.window_until)
    )


def _stragglers(lake: Lake, task: CheckTask, window: pa.Table) -> pd.DataFrame | None:
    """Return the rows before the window that came when its newest predecessors had come already."""
    first = task.window_from or _first_time(window)
    if first is None:
        return None
    near = lake.read_window(
        task.model, after=first - parse_duration(task.quality.late_by), until=task.window_until, columns=["answered_at"]
    )
    if not near.num_rows:
        return None
    in_order = near.filter(pc.less_equal(near["event_time"], near["answered_at"]))
    since = pc.min(in_order["answered_at"]).as_py()
    return None if since is None else lake.stragglers(task.model, before=first, since=since).to_pandas()


def _first_time(table: pa.Table) -> datetime | None:
    if not table.num_rows:
        return None
    first: datetime = pc.min(table["event_time"]).as_py()
    return first - timedelta(microseconds=1)  # the window's beginning is exclusive


def _write_report(
    task: CheckTask, schema: Schema, send: Callable[[Any], None], *, reference: pd.DataFrame, window: pd.DataFrame,
    calibration: Calibration | None,
) -> None:  # fmt: skip
    if window.empty:
        return
    title = f"{task.model}: window until {task.window_until:%Y-%m-%d %H:%M} UTC against version {task.version}"
    path = Path(task.model) / f"{task.check_id}.html.gz"
    try:
        text = html(schema, task.drift, reference=reference, window=window, title=title, calibration=calibration)
        target = Path(task.reports) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        part.write_bytes(gzip.compress(text.encode(), compresslevel=5))  # most of the page is one plotting library
        part.replace(target)
    except Exception:
        # The verdict stands already; evidence that cannot be drawn must not take it back.
        log.exception("report_broke", extra=facts(model=task.model, check=task.check_id))
        return
    send(Report(path=str(path)))
