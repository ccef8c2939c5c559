"""Why a check ended as it did, step by step in the order of the decision, and whether it would be decided so today."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from service.domain.check import ColumnDrift, DriftTest, Examination, Finding, Performance, Verdict
from service.domain.decision import Decision, decide, degraded_of
from service.domain.policy import Retrain
from service.domain.reading import Reading, read
from service.domain.rules import Rule, causes, guard, obstacles
from service.domain.situation import Situation

__all__ = ["Explanation", "Step", "explain"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step on the way to the decision."""

    name: str
    outcome: str
    """One word: ok, broken, drifted, clean, not evaluated, worse, not worse, unknown …"""
    reason: str
    details: tuple[str, ...] = ()
    """One line for each finding or column."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The whole of it."""

    steps: tuple[Step, ...]
    situation: Situation
    policy: Retrain
    policy_recorded: bool
    """Whether the policy stands with the check; else the model's present one is taken for it."""
    rules: tuple[Rule, ...]
    recorded: Decision
    today: Decision
    """What this release decides on the recorded situation."""
    warnings: tuple[str, ...] = field(default=())
    """What must not be overlooked."""

    @property
    def same(self) -> bool:
        """Whether the recorded decision is what this release decides, word for word."""
        return self.recorded == self.today

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(Explanation).dump_python(self, mode="json")
        return plain | {"same": self.same}


def explain(
    examination: Examination,
    situation: Situation,
    recorded: Decision,
    *,
    policy: Retrain,
    policy_recorded: bool,
    reading: Reading | None,
) -> Explanation:
    """Return the explanation of a check.

    Parameters
    ----------
    policy
        By which the check was decided.
    policy_recorded
        Whether it stands with the check.
    reading
        As recorded; None where an earlier release recorded none.
    """
    today = decide(policy, situation)
    performance = examination.performance
    degraded = degraded_of(policy, performance)
    found = [*causes(policy, situation)]
    called = next((rule for rule in found if rule.met), None)
    if called is not None and called.trigger is not None:
        found += obstacles(policy, situation, called.trigger)
    warnings = []
    if not policy_recorded:
        warnings.append("no policy was recorded with this check: the model's present one is taken for it")
    if recorded != today:
        warnings.append(
            f"TODAY'S CODE DECIDES OTHERWISE: recorded is {recorded.action.value} ({recorded.code}), "
            f"now it is {today.action.value} ({today.code}): {today.reason}"
        )
    return Explanation(
        steps=(
            _contract(examination),
            _quality(examination),
            _drift(examination),
            _realised(performance, degraded=degraded),
            _estimate(performance),
            _reading(reading or read(examination, degraded=degraded), recorded=reading is not None),
        ),
        situation=situation,
        policy=policy,
        policy_recorded=policy_recorded,
        rules=(guard(situation), *found),
        recorded=recorded,
        today=today,
        warnings=tuple(warnings),
    )


def _contract(seen: Examination) -> Step:
    whole = tuple(finding for finding in seen.findings if finding.column is None)
    if seen.verdict is Verdict.INSUFFICIENT:
        return Step(name="contract", outcome="insufficient", reason=seen.reason, details=_found(whole))
    if whole:
        reason = f"{len(whole)} broken expectations about the rows as a whole"
        return Step(name="contract", outcome="broken", reason=reason, details=_found(whole))
    return Step(name="contract", outcome="ok", reason=f"{seen.rows} rows, of the model's schema, in time and in order")


def _quality(seen: Examination) -> Step:
    broken = tuple(finding for finding in seen.findings if finding.column is not None)
    if broken:
        names = sorted({finding.column or "" for finding in broken})
        reason = f"broken upstream: {', '.join(names)}"
        return Step(name="quality", outcome="broken", reason=reason, details=_found(broken))
    if seen.verdict is Verdict.INSUFFICIENT:
        return Step(name="quality", outcome="not evaluated", reason="too few rows to tell")
    return Step(name="quality", outcome="ok", reason="every column is as the reference and the policy expect it")


def _found(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    return tuple(f"{finding.column or 'rows'}: {finding.check}: {finding.reason}" for finding in findings)


def _drift(seen: Examination) -> Step:
    if seen.verdict is Verdict.QUARANTINED:
        return Step(name="drift", outcome="not evaluated", reason="of broken data no drift is read")
    test = "" if seen.drift is None else f"{_test(seen.drift)}; "
    return Step(
        name="drift",
        outcome=seen.verdict.value,
        reason=f"{test}{seen.reason}",
        details=tuple(_column(column) for column in seen.columns),
    )


def _test(test: DriftTest) -> str:
    expected = "" if test.expected_alarms is None else f", {test.expected_alarms:.2g} false alarms expected in 90 days"
    return (
        f"{test.state}: statistic {test.statistic:.4g} against {test.threshold:.4g}, from {test.blocks} windows of the "
        f"reference{expected}"
    )


def _column(column: ColumnDrift) -> str:
    if column.statistic is None or column.drifted is None:
        return f"{column.column} ({column.role}): not evaluated: {column.reason}"
    side = "drifted" if column.drifted else "ok"
    figures = f"{column.method} {column.statistic:.4g} against {column.threshold:.4g}"
    return f"{column.column} ({column.role}): {side}: {figures}"


def _realised(performance: Performance | None, *, degraded: bool | None) -> Step:
    if performance is None:
        return Step(name="performance", outcome="not evaluated", reason="performance was not looked at")
    coverage = f"{performance.labelled} of {performance.rows} judged rows have a label"
    if performance.loss is None or degraded is None:
        return Step(name="performance", outcome="unknown", reason=f"{coverage}: too few to tell")
    words = f"loss {performance.loss:.4g} against {performance.reference_loss:.4g}, {coverage}"
    detector = (performance.reason,) if performance.reason else ()
    return Step(name="performance", outcome="worse" if degraded else "not worse", reason=words, details=detector)


def _estimate(performance: Performance | None) -> Step:
    estimate = None if performance is None else performance.estimate
    if estimate is None:
        return Step(name="estimate", outcome="not evaluated", reason="performance without labels was not estimated")
    words = (
        f"estimated loss {estimate.loss:.4g} ({estimate.low:.4g} to {estimate.high:.4g}) against "
        f"{estimate.reference_loss:.4g}, on {estimate.rows} rows"
    )
    outcome = "not valid" if not estimate.valid else "worse" if estimate.worse else "not worse"
    return Step(name="estimate", outcome=outcome, reason=words, details=(estimate.reason,))


def _reading(reading: Reading, *, recorded: bool) -> Step:
    note = () if recorded else ("none was recorded: this is today's",)
    return Step(
        name="reading", outcome=reading.signature.value, reason=reading.reason, details=(f"so: {reading.advice}", *note)
    )
