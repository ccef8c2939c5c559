"""Everything that can go wrong, as one tree.

::

    RetrueError(detail, **facts)      code: a stable slug, also the log and metric label
    ├─ CallerError                    the caller can mend it
    │   ├─ NotFound                   UnknownModel · UnknownVersion · UnknownRun · UnknownCheck · UnknownPrediction
    │   ├─ InvalidRequest             the body is not what the protocol asks for (BodyTooLarge among them)
    │   ├─ InvalidRows                well-formed, but rows break the model's schema
    │   ├─ Conflict                   RunInProgress · GenerationMismatch · OutOfDate · PreconditionMissing
    │   │                             NotAllowedNow
    │   ├─ NoToken                    a form that is not the console's own
    │   └─ InvalidSetup               SpecInvalid · SettingInvalid · HomeUnusable · PortInUse
    ├─ NotReady                       try again later
    │   └─ NoChampion · Overloaded · NotRecorded · DatabaseUnavailable · LakeUnavailable
    └─ Broken                         somebody must look
        └─ ArtifactInvalid · TrainingFailed · CheckFailed · LeaseLost
"""

from typing import Any, ClassVar

__all__ = [
    "ArtifactInvalid",
    "BodyTooLarge",
    "Broken",
    "CallerError",
    "CheckFailed",
    "Conflict",
    "DatabaseUnavailable",
    "GenerationMismatch",
    "HomeUnusable",
    "InvalidRequest",
    "InvalidRows",
    "InvalidSetup",
    "LakeUnavailable",
    "LeaseLost",
    "NoChampion",
    "NoToken",
    "NotAllowedNow",
    "NotFound",
    "NotReady",
    "NotRecorded",
    "OutOfDate",
    "Overloaded",
    "PortInUse",
    "PreconditionMissing",
    "RetrueError",
    "RunInProgress",
    "SettingInvalid",
    "SpecInvalid",
    "TrainingFailed",
    "UnknownCheck",
    "UnknownModel",
    "UnknownPrediction",
    "UnknownRun",
    "UnknownVersion",
]


class RetrueError(Exception):
    """Root of every error that Retrue raises on purpose.

    Parameters
    ----------
    detail
        One sentence for a person: what is wrong and what to do. Never a request's bytes.
    facts
        JSON-able values a program may want: the run in the way, the field, the limit.
    """

    code: ClassVar[str] = "error"

    def __init__(self, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class CallerError(RetrueError):
    """The caller can mend it."""

    code = "caller-error"


class NotFound(CallerError):
    """There is no such thing."""

    code = "not-found"


class UnknownModel(NotFound):
    """No model of that name is registered."""

    code = "unknown-model"


class UnknownVersion(NotFound):
    """The model has no such version."""

    code = "unknown-version"


class UnknownRun(NotFound):
    """No run has that id."""

    code = "unknown-run"


class UnknownCheck(NotFound):
    """No check has that id."""

    code = "unknown-check"


class UnknownPrediction(NotFound):
    """No recorded prediction has that id."""

    code = "unknown-prediction"


class InvalidRequest(CallerError):
    """The body is not what the protocol asks for."""

    code = "invalid-request"


class BodyTooLarge(InvalidRequest):
    """The body is larger than the limit."""

    code = "body-too-large"


class InvalidRows(CallerError):
    """Well-formed rows that break the model's schema; ``facts["errors"]`` names every field of every row."""

    code = "invalid-rows"


class Conflict(CallerError):
    """Something else stands in the way."""

    code = "conflict"


class RunInProgress(Conflict):
    """The model already has an active run; ``facts["run"]`` names it."""

    code = "run-in-progress"


class GenerationMismatch(Conflict):
    """The champion has changed since the caller looked."""

    code = "generation-mismatch"


class OutOfDate(Conflict):
    """What the caller looked at has changed since."""

    code = "out-of-date"


class PreconditionMissing(Conflict):
    """The request must say which state it expects."""

    code = "precondition-missing"


class NotAllowedNow(Conflict):
    """The thing exists, but its present state forbids the request."""

    code = "not-allowed-now"


class NoToken(CallerError):
    """A change that came with a cookie alone, without the token that only its page knows."""

    code = "no-token"


class InvalidSetup(CallerError):
    """The operator's files or settings are wrong; Retrue refuses to start with them."""

    code = "invalid-setup"


class SpecInvalid(InvalidSetup):
    """A model file is wrong; names file, field and remedy."""

    code = "spec-invalid"


class SettingInvalid(InvalidSetup):
    """A setting is unknown or has a value out of its range."""

    code = "setting-invalid"


class HomeUnusable(InvalidSetup):
    """The home folder can't be read or written."""

    code = "home-unusable"


class PortInUse(InvalidSetup):
    """Another program listens on the port."""

    code = "port-in-use"


class NotReady(RetrueError):
    """Try again later; ``facts["retry_after_s"]`` may say when."""

    code = "not-ready"


class NoChampion(NotReady):
    """The model has no version that could answer."""

    code = "no-champion"


class Overloaded(NotReady):
    """More is waiting than may wait."""

    code = "overloaded"


class NotRecorded(NotReady):
    """The answer could not be written down, so it was not given."""

    code = "not-recorded"


class DatabaseUnavailable(NotReady):
    """The database does not answer."""

    code = "database-unavailable"


class LakeUnavailable(NotReady):
    """The lake does not answer."""

    code = "lake-unavailable"


class Broken(RetrueError):
    """Somebody must look: these alert."""

    code = "broken"


class ArtifactInvalid(Broken):
    """An artifact is missing, altered, or does not reproduce its golden rows."""

    code = "artifact-invalid"


class TrainingFailed(Broken):
    """A trainer ended without a version; ``facts["reason"]`` is a slug."""

    code = "training-failed"


class CheckFailed(Broken):
    """A check could not reach a verdict."""

    code = "check-failed"


class LeaseLost(Broken):
    """The writer's fencing token is old: another one leads now, and nothing was written."""

    code = "lease-lost"
