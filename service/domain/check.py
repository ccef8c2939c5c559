"""A check: one look at one window. Data quality first, then drift, then realised performance; it ends in a verdict."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

__all__ = [
    "SCHEDULE",
    "CheckState",
    "ColumnDrift",
    "DriftTest",
    "Estimate",
    "Examination",
    "Finding",
    "Performance",
    "Verdict",
    "verdict_of",
]

SCHEDULE = "schedule"
"""The actor of checks that nobody asked for."""


class CheckState(StrEnum):
    """Where a check stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Verdict(StrEnum):
    """What a check says of its window's data. A closed set: it is a metric label."""

    CLEAN = "clean"
    DRIFTED = "drifted"
    QUARANTINED = "quarantined"  # broken upstream: nothing is learned from it, and it calls for no run
    INSUFFICIENT = "insufficient"  # too few rows to tell


@checked_dataclass(frozen=True, kw_only=True)
class Finding:
    """One broken expectation about data quality."""

    check: str
    column: str | None
    value: float | None
    limit: float | None
    reason: str
    """In words, with the figures: this is what an operator reads."""
    answered: tuple[datetime, datetime] | None = None
    """Where rows outside the window are meant as well: between these moments they were answered."""


@checked_dataclass(frozen=True, kw_only=True)
class ColumnDrift:
    """How far one column has moved from the reference."""

    column: str
    role: Literal["feature", "prediction"]
    method: str
    statistic: float | None
    """None where the column could not be evaluated; `reason` says why. Never silently 0."""
    threshold: float
    drifted: bool | None
    reason: str = ""
    score: float | None = None
    """What it brings to the family's statistic; None where it is judged by itself, or by a fixed threshold."""
    pinned: bool = False
    """Whether its threshold is its own, outside the family: set by the operator, or of a method without calibration."""


@checked_dataclass(frozen=True, kw_only=True)
class DriftTest:
    """One family-wise test over all columns of a window, against what clean windows of the reference show."""

    state: Literal["calibrated", "uncalibrated"]
    """Uncalibrated: the reference holds too few windows; a wider fallback applies, and drift alone starts no run."""
    statistic: float
    """The largest of the columns' scaled and weighted distances."""
    threshold: float
    """At or above it the window has drifted."""
    blocks: int
    """Windows of the reference that the threshold rests on."""
    level: float
    """Share of clean windows that is expected at or above the threshold."""
    expected_alarms: float | None
    """Confirmed alarms that are expected in 90 days of clean data; None where nothing is calibrated."""
    culprits: tuple[str, ...] = ()
    """Columns that stand above the threshold, worst first."""
    reason: str = ""


@checked_dataclass(frozen=True, kw_only=True)
class Estimate:
    """Performance estimated without labels. It informs and may call for a run; it never promotes."""

    loss: float
    reference_loss: float
    """The same estimate on the reference: like is compared with like."""
    low: float
    high: float
    """Ends of the estimate's interval, as losses."""
    rows: int
    valid: bool
    """Whether its conditions hold: calibrated scores, and enough support of the window in the reference."""
    worse: bool
    """Whether it is valid and its whole interval lies above what is tolerated."""
    reason: str


@checked_dataclass(frozen=True, kw_only=True)
class Performance:
    """Realised performance of the answers whose labels have arrived."""

    metric: str
    value: float | None
    """The metric's own value on the labelled rows; None while there are too few."""
    loss: float | None
    """The same as a loss: lower is better, comparable with `reference_loss`."""
    reference_loss: float | None
    """The champion's loss on its own holdout, from the gate."""
    rows: int
    """Answered rows of the window that is judged."""
    labelled: int
    delay_p50_s: float | None
    """Median delay from event to label, seconds."""
    extra: dict[str, float] = ()  # type: ignore[assignment]  # replaced in __post_init__: a frozen empty default
    """Further figures, such as kappa against the no-change prediction."""
    worse: bool | None = None
    """Whether the matured loss has risen for certain, by a detector of its own; None where it cannot be told."""
    reason: str = ""
    """Of `worse`, in words."""
    estimate: Estimate | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.extra, dict):
            object.__setattr__(self, "extra", {})

    @property
    def coverage(self) -> float:
        """Share of the rows whose label has arrived."""
        return self.labelled / self.rows if self.rows else 0.0


@dataclass(frozen=True, kw_only=True)
class Examination:
    """All that a check saw, before any decision."""

    verdict: Verdict
    reason: str
    rows: int
    findings: tuple[Finding, ...] = ()
    columns: tuple[ColumnDrift, ...] = ()
    performance: Performance | None = None
    drift: DriftTest | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(Examination).dump_python(self, mode="json")
        return plain


def verdict_of(
    *,
    rows: int,
    min_rows: int,
    findings: tuple[Finding, ...],
    columns: tuple[ColumnDrift, ...],
    drift: DriftTest | None,
) -> tuple[Verdict, str]:
    """Return the verdict on a window and the reason in words.

    Parameters
    ----------
    rows, min_rows
        Rows in the window, and how many it needs.
    findings
        Broken expectations; one is enough for quarantine, if there are enough rows to tell.
    columns
        Drift per column; empty where quality already failed.
    drift
        The test over all of them; the window has drifted when it names culprits.
    """
    if rows < min_rows:
        # Before the findings: one odd row out of four is no broken pipe, and quarantine stops all learning.
        odd = f"; noticed: {findings[0].reason}" if findings else ""
        return Verdict.INSUFFICIENT, f"{rows} rows in the window; {min_rows} are needed{odd}"
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        return Verdict.QUARANTINED, f"quarantined: {findings[0].reason}{more}; not drift"
    evaluated = [column for column in columns if column.role == "feature" and column.drifted is not None]
    if drift is None or not evaluated:
        return Verdict.INSUFFICIENT, "no feature could be evaluated"
    by = f"the largest score is {drift.statistic:.3g} (threshold {drift.threshold:.3g}; {drift.state}: {drift.reason})"
    if drift.culprits:
        moved = {column.column: column for column in columns}
        culprits = [moved[name] for name in drift.culprits if name in moved]
        what = "the predictions have moved" if culprits and culprits[0].role == "prediction" else "drifted"
        return Verdict.DRIFTED, f"{what}: {_words(culprits)}; {by}"
    blind = sum(column.drifted is None for column in columns)
    unseen = f"; {blind} could not be evaluated" if blind else ""
    beyond = [column for column in columns if column.drifted]
    if beyond:
        return Verdict.CLEAN, f"only {len(beyond)} of {len(columns)} columns have moved: {_words(beyond)}{unseen}; {by}"
    return Verdict.CLEAN, f"all {len(evaluated)} features lie within their thresholds{unseen}; {by}"


def _words(columns: list[ColumnDrift]) -> str:
    shown = ", ".join(
        f"{c.column} {c.statistic:.3g} (threshold {c.threshold:.3g}{', its own' if c.pinned else ''})"
        for c in columns[:3]
    )
    return f"{shown} and {len(columns) - 3} more" if len(columns) > 3 else shown
