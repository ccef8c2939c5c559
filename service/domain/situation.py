"""All that a retrain decision rests on, in one frozen value: stored with the decision, so that it can be replayed."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from service.domain.check import Estimate, Verdict
from service.domain.run import Trigger

__all__ = ["Situation"]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What was known at the end of a window. Times are event time.

    A field that came later has a default: what an earlier release stored must still load.
    """

    now: datetime
    """End of the window that was checked."""
    verdict: Verdict
    quarantined: bool
    """Whether the model is in quarantine, this window or an earlier one."""
    loss: float | None
    reference_loss: float | None
    degraded_in_a_row: int
    """Checks one after the other, this one included, with a realised loss above the limit."""
    drifted_in_a_row: int
    """Windows one after the other, this one included, with the verdict `drifted`."""
    new_labels: int
    """Labels that arrived since the last training cut-off, whether that run promoted or not."""
    learned_until: datetime | None
    """Newest event time that the champion learned from."""
    last_run_ended: datetime | None
    """Event time at which the model's last finished run was decided."""
    rejected_in_a_row: int
    active_run: str | None
    promoted_at: datetime | None = None
    """Event time at which the champion was promoted."""
    rolled_back_at: datetime | None = None
    """Event time at which the last champion was taken back; None once a later run has promoted."""
    paused: bool = False
    frozen: bool = False
    loss_reason: str = ""
    """What the detector on matured loss said."""
    estimate: Estimate | None = None
    """Of the window's performance, without labels."""
    estimated_worse_in_a_row: int = 0
    """Checks one after the other, this one included, whose valid estimate was worse."""
    drift_state: Literal["calibrated", "uncalibrated"] | None = None
    """Of this window's drift test; None where none was made."""
    drift_reason: str = ""
    drift_confirm: int = 2
    """So many drifted windows in a row are confirmed drift (the drift policy's `confirm`)."""
    labels_since_drift: int | None = None
    """Labelled rows whose event time lies after the beginning of the drift; None where it has not drifted."""
    started: tuple[datetime, ...] = ()
    """Up to where the latest runs looked that no person asked for, newest first: the budget counts them."""
    failures_in_a_row: int = 0
    """Runs one after the other that broke, counted since a person last cleared the breaker."""
    breaker: bool = False
    """Whether the switch is set that leaves runs to a person after too many failures."""
    rejected_trigger: Trigger | None = None
    """Why the last run was asked for, if the gate turned it down; else None."""
    rejected_loss: float | None = None
    """The realised loss on which that run's check rested."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(asdict(self), mode="json")
        return plain

    @staticmethod
    def from_json(plain: dict[str, Any]) -> "Situation":
        """Return the situation that `to_json` wrote, in this release or an earlier one."""
        return TypeAdapter(Situation).validate_python(plain)
