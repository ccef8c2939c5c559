"""What the routes take and give, as OpenAPI shows it."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.storage.audit import AuditRow
from service.storage.champions import Champion, Swap
from service.storage.checks import Check
from service.storage.models import Switch
from service.storage.runs import Run, RunEvent

__all__ = [
    "Ask",
    "Audit",
    "CheckWords",
    "Checks",
    "ClearName",
    "DriftWords",
    "Events",
    "Held",
    "Model",
    "Models",
    "ProbationWords",
    "Promote",
    "Reason",
    "Rollback",
    "RunWords",
    "Runs",
    "SwitchName",
    "Version",
    "VersionWords",
    "Versions",
]

Words = Annotated[str, Field(min_length=1, max_length=2000)]


class Body(BaseModel):
    """Unknown fields are refused: a mistyped one must not be silently without effect."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Reason(Body):
    """Why, for the audit."""

    reason: Words = "asked over HTTP"


class Ask(Reason):
    """A run that is asked for."""

    force: bool = False
    """Train even on data that were tried before."""


class Promote(Reason):
    """A version that shall become champion."""

    version: Annotated[int, Field(ge=1)]


class Rollback(Reason):
    """Back to which version; the last one that was kept when left out."""

    to: Annotated[int, Field(ge=1)] | None = None


class CheckWords(BaseModel):
    """A check in a line."""

    id: str
    state: str
    verdict: str | None
    reason: str | None
    decision: dict[str, Any] | None
    window_until: datetime | None
    finished_at: datetime | None


class RunWords(BaseModel):
    """A run in a line."""

    id: str
    state: str
    trigger: str
    code: str | None
    detail: str | None
    version: int | None
    requested_at: datetime
    finished_at: datetime | None


class Held(BaseModel):
    """What one live worker's slot holds."""

    replica: str
    host: str
    worker: int
    version: int | None
    generation: int | None
    error: str | None


class ProbationWords(BaseModel):
    """The time in which a new champion can still be taken back, and what became of it."""

    generation: int
    version: int
    previous_version: int
    """What it is compared with."""
    run_id: str | None
    state: str
    began_at: datetime
    began_event_time: datetime | None
    until: datetime | None
    """Where in event time the watch ends, as far as it has been prolonged."""
    extended: int
    evidence: dict[str, Any] | None
    """The newest look: health of both generations, outputs and losses on the same rows."""
    code: str | None
    reason: str | None
    ended_at: datetime | None
    ended_event_time: datetime | None


class DriftWords(BaseModel):
    """The drift test of the latest check against its budget of false alarms."""

    state: str
    statistic: float
    threshold: float
    blocks: int
    """Clean windows of the reference that the threshold rests on."""
    level: float
    culprits: list[str]
    reason: str
    expected_alarms: float | None
    """In 90 days of clean data; none where it is uncalibrated."""
    realised_alarms: int
    """In the newest 90 days of event time."""


class Model(BaseModel):
    """A model: what it is, who answers, what was seen and done last."""

    model_config = ConfigDict(extra="allow")

    name: str
    task: str | None = None
    metric: str | None = None
    champion: Champion | None
    swap: Swap | None
    """The change of champion that waits for the replicas."""
    probation: ProbationWords | None
    """Open while the champion can still be taken back automatically."""
    switches: dict[str, Switch]
    last_check: CheckWords | None
    drift_test: DriftWords | None
    last_run: RunWords | None
    serving: list[Held]
    error: str | None
    """Why its file can't be used now; the champion serves on."""
    file: str | None
    registered_at: datetime
    updated_at: datetime


class Models(BaseModel):
    """All models."""

    models: list[Model]


class VersionWords(BaseModel):
    """A version without its manifest and lineage."""

    model: str
    version: int
    state: str
    run_id: str | None
    parent: int | None
    artifact: str
    metrics: dict[str, Any]
    learned_until: datetime
    created_at: datetime


class Version(VersionWords):
    """A version with all that is known of it."""

    probation: ProbationWords | None
    """Its newest one."""
    manifest: dict[str, Any]
    lineage: dict[str, Any]
    reference: dict[str, Any]
    calibration: dict[str, Any] | None
    """What clean windows of the reference show."""


class Versions(BaseModel):
    """A model's versions, the newest first."""

    versions: list[VersionWords]


class Checks(BaseModel):
    """Checks, the newest first."""

    checks: list[Check]


class Runs(BaseModel):
    """Runs, the newest first."""

    runs: list[Run]


class Events(BaseModel):
    """A run's transitions in order."""

    events: list[RunEvent]


class Audit(BaseModel):
    """Audit rows, the newest first."""

    audit: list[AuditRow]


SwitchName = Literal["pause", "freeze", "pin", "hold"]
ClearName = Literal["pause", "freeze", "pin", "hold", "quarantine"]
