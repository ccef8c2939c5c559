"""One run's work, in a process of its own: snapshot, data quality, fit, package, gate.

Every write is a transition of the run under the fencing token of the leader that started it. A trainer whose leader
lost the lease can write nothing and leaves.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from service.control.candidate import Candidate, prepare
from service.control.files import load_spec
from service.control.material import Material, gather
from service.control.memory import peak_bytes
from service.control.processes import Exit, Peak
from service.control.record import Record
from service.control.setbacks import drop_version, setback_of
from service.control.situation import OPEN
from service.control.summary import draw_summary
from service.control.tasks import TrainTask
from service.domain.duration import parse_duration
from service.domain.errors import DatabaseUnavailable, LeaseLost, NotAllowedNow, RetrueError, TrainingFailed
from service.domain.gate import Circumstances, Outcome, recipe_changed
from service.domain.retry import Setback
from service.domain.run import JUDGED, RunState
from service.domain.spec import ModelSpec, Schema
from service.domain.version import VersionState
from service.journal import facts
from service.learning.package import predictor_of
from service.learning.predictor import Predictor
from service.learning.quality import look
from service.learning.train import Challenge, challenge
from service.storage import champions, holdouts, models, runs, versions
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.lake import Lake
from service.storage.versions import VersionRow

__all__ = ["train"]

log = logging.getLogger(__name__)

COMPILE_S = 60.0
"""Compiling a version takes at most so long; it is served by scikit-learn then."""
PROGRESS_S = 0.5
"""Progress is written at most so often."""


@dataclass(frozen=True, kw_only=True)
class _End(Exception):
    """The run's work is over, with this state."""

    after: RunState
    code: str
    reason: str
    detail: str | None = None


def train(task: TrainTask, send: Callable[[Any], None]) -> None:
    """Work on one run until its verdict, which is written to it; leaves with a code the controller understands."""
    trainer = Trainer(task)
    threading.Thread(target=trainer.record.beat, name="heartbeat", daemon=True).start()
    try:
        trainer.work()
        trainer.draw()
    except (LeaseLost, NotAllowedNow) as error:
        log.warning("trainer_left", extra=facts(run=task.run_id, code=error.code, why=error.detail))
        sys.exit(Exit.LEASE_LOST)
    except DatabaseUnavailable as error:
        log.error("trainer_gave_up", extra=facts(run=task.run_id, code=error.code, why=error.detail))  # noqa: TRY400
        sys.exit(Exit.UNAVAILABLE)
    except SystemExit:
        raise
    except BaseException as error:
        if not _is_memory(error):
            raise
        with suppress(OSError, MemoryError):
            send(Peak(peak_bytes()))
        os._exit(Exit.OUT_OF_MEMORY)  # as if the kernel had killed it: worth one more attempt


class Trainer:
    """The work of one run."""

    def __init__(self, task: TrainTask) -> None:
        self.task = task
        self.database = Database(task.database)
        self.record = Record(self.database, task.run_id, token=task.token, first_pause=task.first_pause)
        self.lake = Lake(task.lake)
        self.store = ArtifactStore(Path(task.artifacts))
        self._told = 0.0
        self._began = time.monotonic()
        self._until = task.until
        self._is_training = False
        self._material: Material | None = None

    def draw(self) -> None:
        """Draw the summary of the rows that were learned from, once the verdict stands; it takes nothing back."""
        self.record.rest()
        # One that is tried again will draw then; one that was skipped has the rows of the run that tried them.
        is_over = self.record.state not in {RunState.QUEUED, RunState.SKIPPED}
        if self._material is not None and self.task.reports and is_over:
            draw_summary(self.task, self._material)

    def work(self) -> None:
        """Do all of it; every way out is a recorded state, or an exit code that the controller records."""
        try:
            self._work()
        except _End as end:
            self._finish(end)
        except (LeaseLost, NotAllowedNow, DatabaseUnavailable):
            raise
        except Exception as error:
            # The estimator is somebody's code: it may raise anything.
            if _is_memory(error):
                raise
            self._failed(error)

    def _work(self) -> None:
        task = self.task
        spec = load_spec(Path(task.project) / task.file, Path(task.project))
        with self.database.read() as connection:
            run = runs.get(connection, task.run_id)
            before = champions.current(connection, task.model)
            champion = None if before is None else versions.get(connection, task.model, before.version)
            last = _last_tried(connection, run)
            uses = holdouts.uses(connection, task.model)
        material = gather(
            self.lake,
            spec,
            Schema.from_json(task.schema),
            project=Path(task.project),
            until=task.until,
            quarantined=task.quarantined,
            spec_digest=task.spec_digest,
            is_first=champion is None,
        )
        self._until, self._material = material.until, material
        if last is not None and last.snapshot_digest == material.digest and not run.force:
            raise _End(
                after=RunState.SKIPPED,
                code="no_new_data",
                reason=f"run {last.id} tried these very rows with this very spec",
            )
        self.record.step(
            RunState.VALIDATING,
            f"{len(material.rows):,} labelled rows",
            snapshot=material.snapshot,
            snapshot_digest=material.digest,
            until=material.until,
        )
        self._validate(spec, material, champion)
        tried = None if last is None or last.snapshot_digest != material.digest else last.id
        before_it = None if champion is None else champion.lineage.get("spec")
        circumstances = Circumstances(recipe_changed=recipe_changed(task.spec, before_it), uses=uses, tried=tried)
        challenger = self._challenge(spec, material, champion, circumstances)
        self.record.step(
            RunState.PACKAGING,
            f"window {challenger.window} won on the holdout",
            candidates=[one.to_json() for one in challenger.candidates],
        )
        candidate = prepare(
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
            compile_s=self._compile_s(spec) if task.compiles else None,
        )
        version = self._registered(candidate)
        self._judge(spec, candidate, version, has_champion=champion is not None)

    def _compile_s(self, spec: ModelSpec) -> float:
        """Return how long compiling may take: a third of what is left, so that it never costs the run its deadline."""
        left = parse_duration(spec.training.deadline).total_seconds() - (time.monotonic() - self._began)
        return max(min(COMPILE_S, left / 3), 0.0)

    def _registered(self, candidate: Candidate) -> int:
        """Write the version's row and the run's step in one transaction: no version without a run that knows it."""

        def write(conn: Connection) -> runs.Run:
            row = candidate.insert(conn, at=self.database.now(conn))
            words = f"version {row.version} is packaged"
            return self.record.move(conn, RunState.EVALUATING, words, version=row.version)

        run = self.record.write(write, is_done=lambda run: run.state is RunState.EVALUATING)
        return run.version or 0

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

    def _challenge(
        self, spec: ModelSpec, material: Material, champion: VersionRow | None, circumstances: Circumstances
    ) -> Challenge:
        try:
            found = challenge(
                spec,
                material.schema,
                material.rows,
                champion=self._predictor(champion),
                until=material.until,
                seed=spec.training.seed,
                progress=self._progress,
                arrivals=material.arrivals,
                circumstances=circumstances,
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
            self.record.step(RunState.TRAINING, "candidates are fitted")

    def _progress(self, step: str, done: int, of: int, words: str) -> None:
        self._begin_training()
        now = time.monotonic()
        if done == of or now - self._told >= PROGRESS_S:
            self._told = now
            self.record.progress(step=step, done=done, of=of, words=words)

    def _judge(self, spec: ModelSpec, candidate: Candidate, version: int, *, has_champion: bool) -> None:
        self.record.write(
            lambda conn: self._judged(conn, spec, candidate, version, has_champion=has_champion),
            is_done=lambda run: run.state is not RunState.EVALUATING,
        )

    def _judged(
        self, conn: Connection, spec: ModelSpec, candidate: Candidate, version: int, *, has_champion: bool
    ) -> runs.Run:
        gate, model, move = candidate.gate, self.task.model, self.record.move
        columns = {"gate": gate.to_json(), "peak_bytes": peak_bytes(), "decided_event_time": self._until}
        if gate.broke:
            return self.record.set_back(conn, Setback.EVAL_ERROR, gate.reason, **columns)
        n = int(candidate.challenge.metrics["n"])
        at, attempt = self.database.now(conn), candidate.run.attempt
        holdouts.note(conn, model, candidate.use(), attempt=attempt, rows=n, outcome=gate.outcome, at=at)
        if gate.outcome is Outcome.FAIL or (gate.outcome is Outcome.INCONCLUSIVE and not has_champion):
            versions.set_state(conn, model, version, VersionState.REJECTED)
            code = "gate_fail" if gate.outcome is Outcome.FAIL else "gate_inconclusive"
            return move(conn, RunState.REJECTED, gate.reason, code=code, **columns)
        if gate.outcome is Outcome.INCONCLUSIVE:
            return move(conn, RunState.AWAITING_LABELS, gate.reason, code="gate_inconclusive", **columns)
        versions.set_state(conn, model, version, VersionState.APPROVED)
        for other in runs.unfinished(conn):
            if other.model == model and other.id != self.task.run_id and other.state is RunState.AWAITING_APPROVAL:
                drop_version(conn, other)
                self.record.supersede(conn, other)
        held = [name for name in ("freeze", "pin", "hold") if name in models.switches(conn, model)]
        if spec.gate.approval or held:
            why = f"{' and '.join(held)} is on" if held else "the gate passed"
            code = "held" if held else "approval"
            return move(conn, RunState.AWAITING_APPROVAL, f"{why}: a person decides", code=code, **columns)
        return move(conn, RunState.PROMOTING, gate.reason, code="gate_pass", **columns)

    def _finish(self, end: _End) -> None:
        extra: dict[str, Any] = {"code": end.code, "detail": end.detail or end.reason, "peak_bytes": peak_bytes()}
        self.record.step(end.after, end.reason, decided_event_time=self._until, **extra)

    def _failed(self, error: Exception) -> None:
        state = self.record.state
        setback = setback_of(error, state)
        if setback is None and isinstance(error, RetrueError):
            code = str(error.facts.get("reason", "train_error")) if isinstance(error, TrainingFailed) else error.code
            self._finish(_End(after=RunState.FAILED, code=code.replace("-", "_"), reason=error.detail))
            return
        if isinstance(error, RetrueError):
            detail = error.detail
        else:
            log.error("training_broke", extra=facts(run=self.task.run_id, model=self.task.model), exc_info=error)
            detail = f"{type(error).__name__}: {error}"[:2000]
        extra: dict[str, Any] = {"decided_event_time": self._until, "peak_bytes": peak_bytes()}
        self.record.write(
            lambda conn: self.record.set_back(
                conn, setback or Setback.TRAIN_ERROR, detail.splitlines()[0], detail=detail, **extra
            ),
            is_done=lambda run: run.state is not state,
        )


TRIED = JUDGED | OPEN | {RunState.BLOCKED_DATA}
"""States of runs that came to a judgement on their rows, even if it was that the labels are too few to tell."""


def _last_tried(connection: Connection, run: runs.Run) -> runs.Run | None:
    """Return the newest earlier run of the model that came to a judgement on its rows."""
    earlier = (other for other in runs.list_of(connection, run.model, limit=50) if other.id != run.id)
    return next((other for other in earlier if other.state in TRIED and other.snapshot_digest), None)


def _is_memory(error: BaseException) -> bool:
    """Return whether memory ran out, whatever was raised from it."""
    while True:
        if isinstance(error, MemoryError):
            return True
        cause = error.__cause__ or error.__context__
        if cause is None:
            return False
        error = cause
