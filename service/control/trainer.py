"""One run's work, in a process of its own: snapshot, data quality, fit, package, gate.

Every write is a transition of the run under the fencing token of the leader that started it. A trainer whose leader
lost the lease can write nothing and leaves.
"""

import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from service.control.candidate import Candidate, register
from service.control.files import load_spec
from service.control.leader import Term
from service.control.material import Material, gather
from service.control.situation import JUDGED, OPEN
from service.control.tasks import TrainTask
from service.domain.errors import (
    DatabaseUnavailable,
    LakeUnavailable,
    LeaseLost,
    NotAllowedNow,
    RetrueError,
    TrainingFailed,
)
from service.domain.gate import Outcome
from service.domain.run import RunState
from service.domain.spec import ModelSpec, Schema
from service.domain.version import VersionState
from service.journal import facts
from service.learning.package import predictor_of
from service.learning.predictor import Predictor
from service.learning.quality import look
from service.learning.train import Challenge, challenge
from service.storage import champions, models, runs, versions
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.lake import Lake
from service.storage.versions import VersionRow

__all__ = ["ACTOR", "train"]

log = logging.getLogger(__name__)

ACTOR = "trainer"
HEARTBEAT_S = 2.0
PROGRESS_S = 0.5
"""Progress is written at most so often."""
MOST_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class _End(Exception):
    """The run's work is over, with this state."""

    after: RunState
    code: str
    reason: str
    detail: str | None = None


def train(task: TrainTask, send: Callable[[Any], None]) -> None:  # noqa: ARG001  all it has to say goes to the run
    """Work on one run until its verdict; leaves the process with a code the controller understands."""
    trainer = Trainer(task)
    threading.Thread(target=trainer.beat, name="heartbeat", daemon=True).start()
    try:
        trainer.work()
    except (LeaseLost, NotAllowedNow) as error:
        log.warning("trainer_left", extra=facts(run=task.run_id, code=error.code, why=error.detail))
        sys.exit(3)


class Trainer:
    """The work of one run."""

    def __init__(self, task: TrainTask) -> None:
        self.task = task
        self.database = Database(task.database)
        self.term = Term(self.database, task.token)
        self.lake = Lake(task.lake)
        self.store = ArtifactStore(Path(task.artifacts))
        self._told = 0.0
        self._until = task.until
        self._is_training = False

    def work(self) -> None:
        """Do all of it; every way out is a recorded state."""
        try:
            self._work()
        except _End as end:
            self._finish(end)
        except (LeaseLost, NotAllowedNow):
            raise
        except (LakeUnavailable, DatabaseUnavailable) as error:
            self._retry(error)
        except TrainingFailed as error:
            self._finish(
                _End(after=RunState.FAILED, code=str(error.facts.get("reason", "train_error")), reason=error.detail)
            )
        except RetrueError as error:
            self._finish(_End(after=RunState.FAILED, code=error.code.replace("-", "_"), reason=error.detail))
        except MemoryError:
            os._exit(137)  # as if the kernel had killed it: worth one more attempt
        except Exception as error:
            # The estimator is somebody's code: it may raise anything, and the same data would raise it again.
            log.exception("training_broke", extra=facts(run=self.task.run_id, model=self.task.model))
            detail = f"{type(error).__name__}: {error}"[:2000]
            self._finish(_End(after=RunState.FAILED, code="train_error", reason=detail.splitlines()[0], detail=detail))

    def beat(self) -> None:
        """Say every two seconds that the run is worked on; leave at once when another leader works on it."""
        while True:
            time.sleep(HEARTBEAT_S)
            try:
                with self.term.write() as connection:
                    at = self.database.now(connection)
                    runs.heartbeat(connection, self.task.run_id, at=at, token=self.term.token)
            except LeaseLost:
                os._exit(3)
            except RetrueError as error:
                log.warning("heartbeat_failed", extra=facts(run=self.task.run_id, code=error.code))

    def step(self, after: RunState, reason: str, **columns: Any) -> runs.Run:
        """Move the run on."""
        with self.term.write() as connection:
            return self._step(connection, after, reason, **columns)

    def _work(self) -> None:
        task = self.task
        spec = load_spec(Path(task.project) / task.file, Path(task.project))
        with self.database.read() as connection:
            run = runs.get(connection, task.run_id)
            before = champions.current(connection, task.model)
            champion = None if before is None else versions.get(connection, task.model, before.version)
            last = _last_tried(connection, run)
        material = gather(
            self.lake,
            spec,
            Schema.from_json(task.schema),
            project=Path(task.project),
            until=task.until,
            quarantined=task.quarantined,
            spec_digest=task.spec_digest,
        )
        self._until = material.until
        if last is not None and last.snapshot_digest == material.digest and not run.force:
            raise _End(
                after=RunState.SKIPPED,
                code="no_new_data",
                reason=f"run {last.id} tried these very rows with this very spec",
            )
        self.step(
            RunState.VALIDATING,
            f"{len(material.rows):,} labelled rows",
            snapshot=material.snapshot,
            snapshot_digest=material.digest,
            until=material.until,
        )
        self._validate(spec, material, champion)
        challenger = self._challenge(spec, material, champion)
        self.step(
            RunState.PACKAGING,
            f"window {challenger.window} won on the holdout",
            candidates=[one.to_json() for one in challenger.candidates],
        )
        candidate = register(
            self.term,
            self.store,
            self.lake,
            run=run,
            spec=spec,
            spec_json=task.spec,
            spec_digest=task.spec_digest,
            project=Path(task.project),
            material=material,
            challenge=challenger,
            parent=champion,
        )
        self._judge(spec, candidate, has_champion=champion is not None)

    def _validate(self, spec: ModelSpec, material: Material, champion: VersionRow | None) -> None:
        reference = material.rows if champion is None else material.frame(self.lake.read_snapshot(champion.reference))
        findings = look(material.schema, spec.quality, reference=reference, window=material.newest(spec.drift))
        if findings:
            raise _End(
                after=RunState.BLOCKED_DATA,
                code="blocked_data",
                reason=f"the data are broken upstream: {findings[0].reason}",
                detail="; ".join(finding.reason for finding in findings)[:2000],
            )

    def _challenge(self, spec: ModelSpec, material: Material, champion: VersionRow | None) -> Challenge:
        try:
            found = challenge(
                spec,
                material.schema,
                material.rows,
                champion=self._predictor(champion),
                until=material.until,
                seed=spec.training.seed,
                progress=self._progress,
            )
        except TrainingFailed as error:
            if error.facts.get("reason") != "too_few_labels" or champion is None or self._is_training:
                raise
            raise _End(after=RunState.AWAITING_LABELS, code="too_few_labels", reason=error.detail) from error
        self._begin_training()
        return found

    def _predictor(self, champion: VersionRow | None) -> Predictor | None:
        if champion is None:
            return None
        return predictor_of(
            self.store.read(champion.artifact),
            champion.manifest,
            version=champion.version,
            learned_until=champion.learned_until,
        )

    def _begin_training(self) -> None:
        if not self._is_training:
            self._is_training = True
            self.step(RunState.TRAINING, "candidates are fitted")

    def _progress(self, step: str, done: int, of: int, words: str) -> None:
        self._begin_training()
        now = time.monotonic()
        if done == of or now - self._told >= PROGRESS_S:
            self._told = now
            with self.term.write() as connection:
                runs.progress(
                    connection,
                    self.task.run_id,
                    at=self.database.now(connection),
                    token=self.term.token,
                    step=step,
                    done=done,
                    of=of,
                    words=words,
                )

    def _judge(self, spec: ModelSpec, candidate: Candidate, *, has_champion: bool) -> None:
        gate, model = candidate.gate, self.task.model
        columns = {"gate": gate.to_json(), "peak_bytes": _peak(), "decided_event_time": self._until}
        self.step(RunState.EVALUATING, f"version {candidate.version} is packaged", version=candidate.version)
        with self.term.write() as connection:
            if gate.outcome is Outcome.FAIL or (gate.outcome is Outcome.INCONCLUSIVE and not has_champion):
                versions.set_state(connection, model, candidate.version, VersionState.REJECTED)
                code = "gate_fail" if gate.outcome is Outcome.FAIL else "gate_inconclusive"
                self._step(connection, RunState.REJECTED, gate.reason, code=code, **columns)
            elif gate.outcome is Outcome.INCONCLUSIVE:
                self._step(connection, RunState.AWAITING_LABELS, gate.reason, code="gate_inconclusive", **columns)
            else:
                versions.set_state(connection, model, candidate.version, VersionState.APPROVED)
                self._supersede(connection)
                held = [name for name in ("freeze", "pin", "hold") if name in models.switches(connection, model)]
                if spec.gate.approval or held:
                    why = f"{' and '.join(held)} is on" if held else "the gate passed"
                    self._step(
                        connection,
                        RunState.AWAITING_APPROVAL,
                        f"{why}: a person decides",
                        code="held" if held else "approval",
                        **columns,
                    )
                else:
                    self._step(connection, RunState.PROMOTING, gate.reason, code="gate_pass", **columns)

    def _supersede(self, connection: Connection) -> None:
        for other in runs.unfinished(connection):
            if (
                other.model == self.task.model
                and other.id != self.task.run_id
                and other.state is RunState.AWAITING_APPROVAL
            ):
                runs.transition(
                    connection,
                    other.id,
                    RunState.SUPERSEDED,
                    actor=ACTOR,
                    code="superseded",
                    reason=f"run {self.task.run_id} passed later",
                    at=self.database.now(connection),
                    token=self.term.token,
                )

    def _finish(self, end: _End) -> None:
        extra: dict[str, Any] = {"code": end.code, "detail": end.detail or end.reason, "peak_bytes": _peak()}
        self.step(end.after, end.reason, decided_event_time=self._until, **extra)

    def _retry(self, error: RetrueError) -> None:
        code = "data_unavailable" if isinstance(error, LakeUnavailable) else error.code.replace("-", "_")
        with self.term.write() as connection:
            run = runs.get(connection, self.task.run_id)
            if run.attempt < MOST_ATTEMPTS:
                self._step(connection, RunState.QUEUED, error.detail, attempt=run.attempt + 1, code=code)
            else:
                self._step(
                    connection,
                    RunState.FAILED,
                    error.detail,
                    code=code,
                    detail=error.detail,
                    decided_event_time=self._until,
                )

    def _step(self, connection: Connection, after: RunState, reason: str, **columns: Any) -> runs.Run:
        run = runs.transition(
            connection,
            self.task.run_id,
            after,
            actor=ACTOR,
            reason=reason,
            at=self.database.now(connection),
            token=self.term.token,
            **columns,
        )
        log.info("run_moved", extra=facts(run=run.id, model=run.model, state=after.value, why=reason))
        return run


TRIED = JUDGED | OPEN | {RunState.BLOCKED_DATA}
"""States of runs that came to a judgement on their rows, even if it was that the labels are too few to tell."""


def _last_tried(connection: Connection, run: runs.Run) -> runs.Run | None:
    """Return the newest earlier run of the model that came to a judgement on its rows."""
    earlier = (other for other in runs.list_of(connection, run.model, limit=50) if other.id != run.id)
    return next((other for other in earlier if other.state in TRIED and other.snapshot_digest), None)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
