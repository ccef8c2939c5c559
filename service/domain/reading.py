"""What a window's evidence reads as: one signature with the action that belongs to it, and the reason in words."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from service.domain.check import Estimate, Examination, Finding, Performance, Verdict

__all__ = ["ADVICE", "JOINED", "Reading", "Signature", "read"]


class Signature(StrEnum):
    """What the evidence looks like. A closed set."""

    HEALTHY = "healthy"
    BENIGN_SHIFT = "benign_shift"  # the inputs have moved, and it does not hurt
    HARMFUL_SHIFT = "harmful_shift"  # the inputs have moved, and it hurts
    CONCEPT_DRIFT = "concept_drift"  # the inputs stand still, and the answers have become wrong
    UNKNOWN_REGION = "unknown_region"  # the inputs have moved, and nothing can say whether it hurts
    PIPE_SUSPECTED = "pipe_suspected"  # columns do not belong to each other any more: a join, an order of columns
    BROKEN_PIPE = "broken_pipe"  # broken upstream
    INSUFFICIENT = "insufficient"  # too little to tell


S = Signature

ADVICE = {
    S.HEALTHY: "nothing to do",
    S.BENIGN_SHIFT: "record it; no retrain, and no threshold is widened",
    S.HARMFUL_SHIFT: "retrain",
    S.CONCEPT_DRIFT: "look at the labels' own pipe first, then retrain on what came after the change",
    S.UNKNOWN_REGION: "ask for labels; retrain only when there are some",
    S.PIPE_SUSPECTED: "quarantine; a person looks at the pipe",
    S.BROKEN_PIPE: "quarantine; no retrain",
    S.INSUFFICIENT: "wait for more rows",
}
"""What each signature asks for. The decision has rules of its own; this is what a person reads."""

JOINED = frozenset({"swapped", "join", "correlation"})
"""Findings that say that columns do not belong to each other, rather than that one of them is broken."""

MATURE = 0.8
"""Realised performance speaks for a window when at least this share of the judged rows has its label."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a check's evidence reads as."""

    signature: Signature
    reason: str
    advice: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(Reading).dump_python(self, mode="json")
        return plain


def read(examination: Examination, *, degraded: bool | None) -> Reading:
    """Return what the evidence reads as.

    Parameters
    ----------
    examination
        What the check saw.
    degraded
        Whether realised quality counts as worse; None while it cannot be told.

    Notes
    -----
    A window's own reading: whether the model is still in quarantine because of an earlier one is the decision's.
    """
    if examination.verdict is Verdict.INSUFFICIENT:
        return _reading(S.INSUFFICIENT, examination.reason)
    if examination.verdict is Verdict.QUARANTINED:
        return _broken(examination.findings, examination.reason)
    moved = examination.verdict is Verdict.DRIFTED
    inputs = _drift_words(examination) if moved else "the inputs lie within their thresholds"
    performance = examination.performance
    estimate = None if performance is None else performance.estimate
    if degraded and performance is not None:
        realised = _realised_words(performance)
        if moved:
            return _reading(S.HARMFUL_SHIFT, f"{inputs}, and {realised}")
        labels = "" if performance.coverage >= MATURE else f"; only {performance.coverage:.0%} of the rows have a label"
        return _reading(S.CONCEPT_DRIFT, f"{inputs}, but {realised}{labels}")
    if estimate is not None and estimate.valid and estimate.worse:
        return _reading(S.HARMFUL_SHIFT, f"{inputs}, {'and' if moved else 'but'} {_estimate_words(estimate)}")
    if not moved:
        return _reading(
            S.HEALTHY, f"{inputs}, {_unharmed_words(performance, degraded=degraded, nothing='and no label has come')}"
        )
    return _of_unharmed_shift(inputs, performance, estimate, degraded=degraded)


def _of_unharmed_shift(
    inputs: str, performance: Performance | None, estimate: Estimate | None, *, degraded: bool | None
) -> Reading:
    """Return the reading of a shift of which nothing says that it hurts: something must say that it does not."""
    is_mature = degraded is not None and performance is not None and performance.coverage >= MATURE
    if is_mature:
        return _reading(S.BENIGN_SHIFT, f"{inputs}, {_unharmed_words(performance, degraded=degraded, nothing='')}")
    if estimate is None:
        return _reading(S.UNKNOWN_REGION, f"{inputs}, and neither enough labels nor an estimate say whether it hurts")
    if not estimate.valid:
        return _reading(S.UNKNOWN_REGION, f"{inputs}, and the estimate does not hold there: {estimate.reason}")
    return _reading(S.BENIGN_SHIFT, f"{inputs}, but {_estimate_words(estimate)}")


def _broken(findings: tuple[Finding, ...], reason: str) -> Reading:
    joined = [finding for finding in findings if finding.check in JOINED]
    if joined:
        return _reading(S.PIPE_SUSPECTED, f"columns do not belong together: {joined[0].reason}; not drift")
    return _reading(S.BROKEN_PIPE, reason)


def _drift_words(examination: Examination) -> str:
    test = examination.drift
    if test is None:
        return examination.reason
    blind = "" if test.state == "calibrated" else " (not calibrated: a wider fallback)"
    return f"{examination.reason}{blind}"


def _realised_words(performance: Performance) -> str:
    against = "" if performance.reference_loss is None else f" against {performance.reference_loss:.4g}"
    loss = "the realised loss is worse" if performance.loss is None else f"the realised loss is {performance.loss:.4g}"
    return f"{loss}{against}{f' ({performance.reason})' if performance.reason else ''}"


def _estimate_words(estimate: Estimate) -> str:
    side = "worse" if estimate.worse else "within what is tolerated"
    return (
        f"the loss is estimated at {estimate.loss:.4g} ({estimate.low:.4g} to {estimate.high:.4g}) against "
        f"{estimate.reference_loss:.4g}: {side}"
    )


def _unharmed_words(performance: Performance | None, *, degraded: bool | None, nothing: str) -> str:
    if degraded is None or performance is None:
        return nothing
    return f"and {_realised_words(performance)}: not worse"


def _reading(signature: Signature, reason: str) -> Reading:
    return Reading(signature=signature, reason=reason, advice=ADVICE[signature])
