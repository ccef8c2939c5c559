"""The gate: the clauses that a challenger must pass. Any error in it means no promotion."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

__all__ = [
    "ERROR",
    "Circumstances",
    "Clause",
    "GateReport",
    "Outcome",
    "Use",
    "judge",
    "recipe_changed",
    "tightened",
]

ERROR = "error"
"""Name of the clause that stands for whatever was raised in the gate."""


class Outcome(StrEnum):
    """Of one clause, and of the gate. A closed set: it is a metric label."""

    PASS = "pass"  # noqa: S105  the word of the design, no secret
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One condition with the figures that decided it."""

    name: str
    value: float | None
    threshold: float | None
    n: int
    outcome: Outcome
    reason: str


@dataclass(frozen=True, kw_only=True)
class Use:
    """An earlier gate of the model that came to a judgement, and the stretch it looked at: (``after``, ``until``]."""

    run: str
    after: datetime
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What a gate is told beside the rows.

    Attributes
    ----------
    recipe_changed
        Whether the challenger comes from another model file or schema than the champion.
    uses
        Earlier gates of the model.
    tried
        The run that tried these very rows with this very spec, if one did: only a forced run gets here then.
    """

    recipe_changed: bool = False
    uses: tuple[Use, ...] = ()
    tried: str | None = None


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """All clauses and what follows from them."""

    outcome: Outcome
    reason: str
    clauses: tuple[Clause, ...]
    unopposed: bool = False
    """There was no champion to compare with."""

    @property
    def broke(self) -> bool:
        """Whether the gate came to no judgement, because something in it raised."""
        return any(clause.name == ERROR for clause in self.clauses)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(GateReport).dump_python(self, mode="json")
        return plain


def judge(clauses: tuple[Clause, ...], *, unopposed: bool = False) -> GateReport:
    """Return the gate's outcome: one failed clause fails it, else one inconclusive clause leaves it open.

    Raises
    ------
    ValueError
        If there is no clause: an empty gate would let everything through.
    """
    if not clauses:
        msg = "a gate without clauses would let everything through"
        raise ValueError(msg)
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        named = [clause for clause in clauses if clause.outcome is outcome]
        if named:
            return GateReport(outcome=outcome, reason=named[0].reason, clauses=clauses, unopposed=unopposed)
    return GateReport(
        outcome=Outcome.PASS,
        reason="every clause passed" if not unopposed else "every clause passed; there was no champion to beat",
        clauses=clauses,
        unopposed=unopposed,
    )


RECIPE = ("task", "target", "timestamp", "metric", "source", "input", "schema", "code")
"""What of a stored spec says how a version is made. Its policies are not among them: an update of Retrue that brings
a new one, or another default, makes no new recipe of every model."""


def recipe_changed(now: Mapping[str, Any], then: Mapping[str, Any] | None) -> bool:
    """Return whether two stored specs make versions in different ways; not where the older one is unknown."""
    if not then:
        return False
    return any(now.get(name) != then.get(name) for name in RECIPE if name in then)


def tightened(confidence: float, looks: float, *, resamples: int) -> float:
    """Return the confidence that keeps the error of `looks` at the same rows together at that of one.

    Parameters
    ----------
    confidence
        Of a first look, two-sided.
    looks
        This one included; one that saw a half of these rows counts a half.
    resamples
        An interval's end is never taken further out than the fifth of them.

    Examples
    --------
    >>> round(tightened(0.8, 2.0, resamples=1000), 3)
    0.9
    """
    return max(confidence, min(1 - (1 - confidence) / max(looks, 1.0), 1 - 10 / resamples))
