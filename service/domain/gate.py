"""The gate: the clauses that a challenger must pass. Any error in it means no promotion."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

__all__ = ["ERROR", "Clause", "GateReport", "Outcome", "judge"]

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
