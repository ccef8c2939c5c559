"""What crosses between the controller and its child processes: plain frozen values."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from service.domain.check import Examination
from service.domain.policy import Drift, Quality
from service.domain.probation import Comparison

__all__ = ["CheckTask", "Failure", "FilesTask", "Interval", "Report", "Seen", "TrainTask", "Watched"]


class Interval(NamedTuple):
    """A stretch of event time from which nothing is learned."""

    after: datetime
    until: datetime
    answered_from: datetime | None = None
    """With the next: rows older than the stretch are meant, too, if they were answered between these moments."""
    answered_until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class FilesTask:
    """Read the model files of a folder."""

    folder: str


@dataclass(frozen=True, kw_only=True)
class TrainTask:
    """All that a trainer needs; plain values, for it crosses to another process."""

    run_id: str
    token: int
    model: str
    database: str
    lake: str
    artifacts: str
    project: str
    file: str
    """The model file, relative to the project."""
    schema: dict[str, Any]
    """Of the source, without classes."""
    spec: dict[str, Any]
    """As it stands in the models table."""
    spec_digest: str | None
    until: datetime | None
    """Event time; None for a run that has nothing but the source."""
    quarantined: tuple[Interval, ...]
    first_pause: timedelta = timedelta(seconds=5)
    """Before the first try again of what may come back by itself."""
    compiles: bool = True
    """Whether the version is also compiled, where the extra is installed."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a check needs to compare a champion on probation with the version before it."""

    generation: int
    """Of the champion: only rows that it answered are compared."""
    began_event_time: datetime | None
    artifacts: str
    artifact: str
    """Of the version before, by digest."""
    manifest: dict[str, Any]
    version: int
    confidence: float
    quarantined: tuple[Interval, ...]
    """Stretches in which the data were broken: they say nothing of a champion."""


@dataclass(frozen=True, kw_only=True)
class CheckTask:
    """All that a check needs; plain values, for it crosses to another process."""

    check_id: str
    model: str
    lake: str
    reports: str
    version: int
    schema: dict[str, Any]
    """Of the champion's manifest: with classes."""
    reference: dict[str, Any]
    """Of the champion: its reference rows, with its answers to them."""
    calibration: dict[str, Any] | None
    """What clean windows of that reference show; None where an older release made the version."""
    reference_loss: float | None
    quality: Quality
    drift: Drift
    metric: str
    window_from: datetime | None
    """None for a window of so many rows."""
    window_until: datetime
    label_cutoff: datetime | None
    """Labels that arrived later than this are new."""
    draws: bool = True
    """Whether to draw the HTML evidence; that of a broken window is drawn in any case."""
    watched: Watched | None = None
    """None while the champion is not on probation."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the check saw."""

    examination: Examination
    window_from: datetime | None
    new_labels: int
    lake_version: int | None
    seconds: float
    comparison: Comparison | None = None
    """Of a champion on probation with the version before; None where there is none, or the window's data are broken."""
    peak_bytes: int | None = None
    """Resident memory of the check's process until then."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The HTML evidence is written."""

    path: str
    """Below the reports folder."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The check reached no verdict."""

    code: str
    detail: str
