"""What the client gives back: frozen values with names and types, each with the document that it was read from."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from service.domain.run import TERMINAL, RunState

__all__ = ["FINISHED", "WAITING", "Accepted", "Clause", "Json", "Predicted", "RunReport", "moment"]

Json = dict[str, Any]

FINISHED = frozenset(state.value for state in TERMINAL)
"""States that a run never leaves."""

WAITING = frozenset({RunState.AWAITING_LABELS.value, RunState.AWAITING_APPROVAL.value, RunState.PROBATION.value})
"""States in which a run waits for the world or for a person; waiting for it to finish makes no sense."""

PROMOTED = frozenset({RunState.PROBATION.value, RunState.SUCCEEDED.value})


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The answer to one request: parallel lists, one place for each row that was asked."""

    model: str
    version: int
    """The version that answered all rows."""
    generation: int
    predictions: list[Any]
    ids: list[str]
    """By which labels find their prediction; empty where the answer was not recorded."""
    probabilities: list[list[float]] | None
    """For each row one figure a class, in the order of `classes`."""
    classes: list[Any] | None
    recorded: bool
    """Whether the answer was written down; an unrecorded one can't get a label."""
    document: Json = field(repr=False)

    @classmethod
    def of(cls, document: Json) -> Self:
        """Return the answer that the service's `document` tells."""
        return cls(
            model=document["model"],
            version=document["version"],
            generation=document["generation"],
            predictions=document["predictions"],
            ids=document["ids"],
            probabilities=document.get("probabilities"),
            classes=document.get("classes"),
            recorded=document.get("recorded", True),
            document=document,
        )


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What became of a batch of labels."""

    model: str
    accepted: int
    refused: int
    errors: list[Json]
    """Of those that were refused: item, field, code, detail; at most 100."""
    document: Json = field(repr=False)

    @classmethod
    def of(cls, document: Json) -> Self:
        """Return what the service's `document` tells."""
        return cls(
            model=document["model"],
            accepted=document["accepted"],
            refused=document["refused"],
            errors=document["errors"],
            document=document,
        )


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One clause of the gate."""

    name: str
    outcome: str
    """pass, fail or inconclusive."""
    value: float | None
    threshold: float | None
    n: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Where a run stands, and how it came there."""

    id: str
    model: str
    state: str
    trigger: str
    reason: str
    attempt: int
    version: int | None
    """The version that it made, as soon as there is one."""
    code: str | None
    """Slug of the outcome."""
    detail: str | None
    """The outcome in words."""
    clauses: list[Clause]
    """The gate's, once it has judged."""
    requested_at: datetime
    finished_at: datetime | None
    document: Json = field(repr=False)

    @property
    def is_over(self) -> bool:
        """Whether the run never changes again."""
        return self.state in FINISHED

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for labels, for a person, or for the end of its version's probation."""
        return self.state in WAITING

    @property
    def is_promoted(self) -> bool:
        """Whether its version became champion and still is, as far as this run goes."""
        return self.state in PROMOTED

    @classmethod
    def of(cls, document: Json) -> Self:
        """Return the run that the service's `document` tells."""
        clauses = (document.get("gate") or {}).get("clauses") or []
        names = ("name", "outcome", "value", "threshold", "n", "reason")
        return cls(
            id=document["id"],
            model=document["model"],
            state=document["state"],
            trigger=document["trigger"],
            reason=document["reason"],
            attempt=document["attempt"],
            version=document.get("version"),
            code=document.get("code"),
            detail=document.get("detail"),
            clauses=[Clause(**{name: clause[name] for name in names}) for clause in clauses],
            requested_at=moment(document["requested_at"]),
            finished_at=moment(document["finished_at"]) if document.get("finished_at") else None,
            document=document,
        )


def moment(text: str) -> datetime:
    """Return the UTC moment that an RFC 3339 text names."""
    return datetime.fromisoformat(text).astimezone(UTC)
