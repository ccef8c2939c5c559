"""One look at a model: what serves, since when, why, whether it is good. All pages about a model begin with it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import Connection

from service.control.suggestion import Suggestion, open_of
from service.domain.check import CheckState
from service.storage import champions, checks, models, probations, replicas, runs, versions
from service.storage.champions import Champion, Swap
from service.storage.checks import Check
from service.storage.models import ModelRow, Policy, Switch, policy_of
from service.storage.probations import ProbationRow
from service.storage.replicas import ReplicaModel
from service.storage.runs import Run
from service.storage.versions import VersionRow

__all__ = ["Look", "Quality", "look", "quality_of"]

LIVE_S = 6.0
RECENT = 60
"""Checks that a model's page draws."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Realised performance of one window."""

    check: Check
    metric: str
    value: float | None
    loss: float | None
    reference_loss: float | None
    rows: int
    labelled: int
    delay_s: float | None

    @property
    def coverage(self) -> float:
        """Share of the judged rows whose label has arrived."""
        return self.labelled / self.rows if self.rows else 0.0

    @property
    def rise(self) -> float | None:
        """By what share the loss lies above the champion's own on its holdout; below nought it is better."""
        if self.loss is None or not self.reference_loss:
            return None
        return self.loss / self.reference_loss - 1

    @property
    def against(self) -> str:
        """The same in words."""
        if self.rise is None:
            return "nothing to compare with yet"
        if abs(self.rise) < 0.005:
            return "as on its holdout"
        return f"error {abs(self.rise):.0%} {'above' if self.rise > 0 else 'below'} its holdout"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the database says of a model, read in one transaction."""

    row: ModelRow
    champion: Champion | None
    version: VersionRow | None
    """The champion's."""
    swap: Swap | None
    """That made it champion."""
    waiting: Swap | None
    """The change of champion that waits for the workers."""
    probation: ProbationRow | None
    switches: Mapping[str, Switch]
    suggestion: Suggestion | None
    checks: Sequence[Check]
    """The newest, the newest first."""
    runs: Sequence[Run]
    """The newest, the newest first."""
    targets: Sequence[int]
    """Versions that a rollback may go to, the best first."""
    taken: Mapping[int, Swap]
    """Versions that were rolled back from, each with the swap that did it."""
    held: Sequence[ReplicaModel]
    """What each live worker holds."""
    workers: int

    @property
    def name(self) -> str:
        """The model's name."""
        return self.row.name

    @property
    def spec(self) -> Mapping[str, Any]:
        """What its file declares; nothing where it was never usable."""
        return self.row.spec or {}

    def policy(self, kind: type[Policy]) -> Policy:
        """Return one of its policies."""
        return policy_of(self.row, kind)

    @cached_property
    def done(self) -> Sequence[Check]:
        """Checks with a verdict, the newest first."""
        return [check for check in self.checks if check.state is CheckState.DONE]

    @property
    def check(self) -> Check | None:
        """The newest check with a verdict."""
        return next(iter(self.done), None)

    @property
    def under_way(self) -> Check | None:
        """The check that is queued or running."""
        return next((check for check in self.checks if check.active), None)

    @cached_property
    def quality(self) -> Quality | None:
        """Of the newest check that could say something; None before the first label."""
        found = (quality_of(check) for check in self.done)
        return next((one for one in found if one is not None and one.value is not None), None)

    @property
    def active(self) -> Run | None:
        """The run that trains or promotes now."""
        return next((run for run in self.runs if run.active), None)

    @property
    def pending(self) -> Run | None:
        """The run that waits for a person."""
        return next((run for run in self.runs if run.state.value == "awaiting_approval"), None)

    @property
    def in_step(self) -> int:
        """How many live workers hold the champion."""
        champion = self.champion
        return sum(champion is not None and one.generation == champion.generation for one in self.held)

    @property
    def since(self) -> datetime | None:
        """When the champion began to answer."""
        return None if self.champion is None else self.champion.changed_at

    @property
    def stamp(self) -> str:
        """What changes whenever anything on the page does."""
        seen = [
            self.row.updated_at, self.row.error, self.champion and self.champion.generation,
            self.waiting and self.waiting.id, self.probation and (self.probation.extended, self.probation.code),
            sorted(self.switches), self.in_step, self.workers, self.suggestion and self.suggestion.check,
            [(check.id, check.state) for check in self.checks[:2]],
            [(run.id, run.state, run.progress, run.version) for run in self.runs],
        ]  # fmt: skip
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def look(conn: Connection, name: str, *, recent: int = RECENT) -> Look:
    """Return what is known of the model; raises `UnknownModel`."""
    row = models.get(conn, name)
    champion = champions.current(conn, name)
    living = {replica.id for replica in replicas.live(conn, LIVE_S)}
    history = champions.history(conn, name) if champion else []
    return Look(
        row=row,
        champion=champion,
        version=None if champion is None else versions.find(conn, name, champion.version),
        swap=next((one for one in history if champion and one.generation == champion.generation), None),
        waiting=next(iter(champions.waiting(conn, name)), None),
        probation=probations.open_of(conn, name),
        switches=models.switches(conn, name),
        suggestion=open_of(conn, checks.latest_done(conn, name)),
        checks=checks.list_of(conn, name, limit=recent),
        runs=runs.list_of(conn, name, limit=8),
        targets=probations.rollback_targets(conn, name),
        taken=champions.taken_back(conn, name),
        held=[one for one in replicas.serving(conn, name) if one.replica_id in living],
        workers=len(living),
    )


def quality_of(check: Check) -> Quality | None:
    """Return the realised performance that a check saw; None if it did not look at it."""
    seen = (check.examination or {}).get("performance")
    if not seen:
        return None
    return Quality(
        check=check,
        metric=str(seen.get("metric")),
        value=seen.get("value"),
        loss=seen.get("loss"),
        reference_loss=seen.get("reference_loss"),
        rows=int(seen.get("rows") or 0),
        labelled=int(seen.get("labelled") or 0),
        delay_s=seen.get("delay_p50_s"),
    )
