"""What the routes take and give, as OpenAPI shows it."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from service.control.suggestion import Suggestion
from service.domain.policy import Retrain
from service.domain.rehearsal import Assumed
from service.storage.audit import AuditRow
from service.storage.champions import Champion, Swap
from service.storage.checks import Check
from service.storage.models import Switch
from service.storage.runs import Run, RunEvent

__all__ = [
    "Accept",
    "Ask",
    "Audit",
    "CheckWords",
    "Checks",
    "DriftWords",
    "DryRunAsk",
    "Events",
    "Explained",
    "Held",
    "Model",
    "Models",
    "ProbationWords",
    "Promote",
    "Reason",
    "Rollback",
    "RunWords",
    "Runs",
    "Version",
    "VersionWords",
    "Versions",
]

NO_NUL = r"^[^\x00]+$"
"""PostgreSQL takes no text with a NUL in it."""
Words = Annotated[str, Field(min_length=1, max_length=2000, pattern=NO_NUL)]


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


class Accept(Reason):
    """A suggestion that is accepted."""

    check: Annotated[str, Field(min_length=1, max_length=64, pattern=NO_NUL)] | None = None
    """The check that was looked at; whatever is suggested now when left out."""


class DryRunAsk(Body):
    """A changed retrain policy, to be tried on the last checks."""

    policy: dict[str, Any] = Field(default_factory=dict)
    """The fields that change; the model's own policy has the others."""
    last: Annotated[int, Field(ge=1, le=500)] = 20
    """On so many checks, the newest."""
    assume: Assumed = "rejected"
    """How a run ends that was never made."""

    @field_validator("policy")
    @classmethod
    def _policy_is_one(cls, changes: dict[str, Any]) -> dict[str, Any]:
        try:
            TypeAdapter(Retrain).validate_python(changes)
        except ValidationError as error:
            first = error.errors()[0]
            place = str(first["loc"][0]) if first["loc"] else "policy"
            msg = f"{place if place.isidentifier() else '?'}: {first['msg']}"
            raise ValueError(msg[:300]) from None
        return changes


class Explained(BaseModel):
    """A check's decision with all that led to it."""

    check: str
    model: str
    version: int | None
    window_from: datetime | None
    window_until: datetime | None
    run: str | None
    """The run that followed."""
    steps: list[dict[str, Any]]
    """Contract, quality, drift, performance, estimate, reading: each with outcome, reason and details."""
    situation: dict[str, Any]
    policy: dict[str, Any]
    policy_recorded: bool
    rules: list[dict[str, Any]]
    """In the order in which they are asked, each with whether it was met, its reason and its figures."""
    recorded: dict[str, Any]
    today: dict[str, Any]
    """What this release decides on the recorded situation."""
    same: bool
    warnings: list[str]


class CheckWords(BaseModel):
    """A check in a line."""

    id: str
    state: str
    verdict: str | None
    reason: str | None
    decision: dict[str, Any] | None
    reading: dict[str, Any] | None
    """What the evidence reads as."""
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
    suggestion: Suggestion | None
    """A run that waits for a person: accept it with POST …/suggestion/accept."""
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
