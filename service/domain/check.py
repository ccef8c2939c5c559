"""A check: one look at one window. Data quality first, then drift, then realised performance; it ends in a verdict."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

__all__ = [
    "CheckState",
    "ColumnDrift",
    "Examination",
    "Finding",
    "Performance",
    "Verdict",
    "verdict_of",
]


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

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(Examination).dump_python(self, mode="json")
        return plain


def verdict_of(
    *, rows: int, min_rows: int, findings: tuple[Finding, ...], columns: tuple[ColumnDrift, ...], share: float
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
    share
        The window has drifted when this share of the evaluated columns has, or the prediction column has.
    """
    if rows < min_rows:
        # Before the findings: one odd row out of four is no broken pipe, and quarantine stops all learning.
        odd = f"; noticed: {findings[0].reason}" if findings else ""
        return Verdict.INSUFFICIENT, f"{rows} rows in the window; {min_rows} are needed{odd}"
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        return Verdict.QUARANTINED, f"quarantined: {findings[0].reason}{more}; not drift"
    features = [column for column in columns if column.role == "feature" and column.drifted is not None]
    if not features:
        return Verdict.INSUFFICIENT, "no feature could be evaluated"
    moved = [column for column in features if column.drifted]
    output = [column for column in columns if column.role == "prediction" and column.drifted]
    if output:
        return Verdict.DRIFTED, f"the predictions have moved: {_words(output)}"
    if len(moved) >= max(1.0, share * len(features)):
        return Verdict.DRIFTED, f"{len(moved)} of {len(features)} features have moved: {_words(moved)}"
    blind = sum(column.drifted is None for column in columns)
    unseen = f"; {blind} could not be evaluated" if blind else ""
    if moved:
        return Verdict.CLEAN, f"only {len(moved)} of {len(features)} features have moved: {_words(moved)}{unseen}"
    return Verdict.CLEAN, f"all {len(features)} features lie within their thresholds{unseen}"


def _words(columns: list[ColumnDrift]) -> str:
    worst = sorted(columns, key=_excess, reverse=True)[:3]
    return ", ".join(f"{c.column} {c.statistic:.3g} (threshold {c.threshold:.3g})" for c in worst)


def _excess(column: ColumnDrift) -> float:
    """Return how many times over its threshold a drifted column is; a p-value lies below its threshold."""
    ratio = (column.statistic or 0.0) / column.threshold
    return ratio if ratio >= 1 else 1 / max(ratio, 1e-9)
