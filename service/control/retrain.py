"""Drives runs through their states. Each look reads where every unfinished run stands and takes the one next step."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from service.control.leader import Term
from service.control.processes import Job, Processes
from service.control.promotion import propose
from service.control.quarantine import spans
from service.control.tasks import TrainTask
from service.domain.duration import parse_duration
from service.domain.errors import NotAllowedNow, RunInProgress
from service.domain.run import TERMINAL, RunState
from service.domain.version import VersionState
from service.journal import facts
from service.storage import champions, checks, models, runs, versions
from service.storage.lake import Lake
from service.storage.models import ModelRow
from service.storage.runs import Run

__all__ = ["Retraining", "Work"]

log = logging.getLogger(__name__)

ACTOR = "controller"
WORKING = frozenset(
    {RunState.PREPARING, RunState.VALIDATING, RunState.TRAINING, RunState.PACKAGING, RunState.EVALUATING}
)
"""States in which a trainer process works."""
MOST_ATTEMPTS = 2
"""So often a run is tried whose trainer was lost or killed."""
PATIENCE = timedelta(days=42)
"""A run waits for labels for so long, in event time."""
OUT_OF_MEMORY = 137
"""Exit code of a trainer that ran out of memory, as a shell reports a kill."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Where the material is and what may be used."""

    database: str
    lake: str
    artifacts: str
    project: Path
    trainers: int
    queue: timedelta


class Retraining:
    """The state machine's engine.

    Parameters
    ----------
    work
        See `Work`.
    processes
        Where trainers run.
    lake
        Only asked for watermarks.
    ended
        Told of each run that came to its end while this leader led.
    """

    def __init__(self, work: Work, processes: Processes, lake: Lake, *, ended: Callable[[Run], None]) -> None:
        self._work = work
        self._processes = processes
        self._lake = lake
        self._ended = ended
        self._watched: dict[str, RunState] = {}

    def look(self, term: Term, known: Mapping[str, ModelRow]) -> None:
        """Take each unfinished run's next step."""
        with term.database.read() as conn:
            unfinished = runs.unfinished(conn)
            proposed = {swap.run_id for swap in champions.waiting(conn)}
            now = term.database.now(conn)
        self._notice_ends(term, unfinished)
        for run in unfinished:
            if run.id in proposed:
                continue
            try:
                self._step(term, run, known.get(run.model), now)
            except (NotAllowedNow, RunInProgress) as error:
                # Somebody moved the run between our look and our step: the next look sees where it stands.
                log.info("run_moved_meanwhile", extra=facts(run=run.id, why=error.detail))

    def recover(self, term: Term) -> None:
        """Take over what a leader before this one left: its trainers are gone or can write nothing any more."""
        with term.write() as conn:
            for run in runs.unfinished(conn):
                if run.state is RunState.CANCELLING:
                    self._move(conn, term, run, RunState.CANCELLED, "its leader is gone", code="cancelled")
                elif run.state in WORKING:
                    self._lost(conn, term, run, code="worker_lost", why="its leader is gone")

    def release(self, term: Term) -> None:
        """Give this leader's runs back to the queue: the next leader starts them anew, as if never tried."""
        with term.write() as conn:
            for run in runs.unfinished(conn):
                if run.state in WORKING:
                    self._reject_candidate(conn, run)
                    self._move(conn, term, run, RunState.QUEUED, "the controller is stopped")

    def _step(self, term: Term, run: Run, model: ModelRow | None, now: datetime) -> None:
        job = self._processes.find("train", run.id)
        if run.state is RunState.QUEUED:
            self._queued(term, run, model, now)
        elif run.state in WORKING:
            self._working(term, run, job, model)
        elif run.state is RunState.CANCELLING:
            self._cancelling(term, run, job)
        elif run.state is RunState.PROMOTING:
            propose(term, run)
        elif run.state is RunState.AWAITING_LABELS:
            self._awaiting_labels(term, run, model)
        if job is not None and job.is_over and run.state not in WORKING:
            self._processes.forget(job)

    def _queued(self, term: Term, run: Run, model: ModelRow | None, now: datetime) -> None:
        if now - run.requested_at > self._work.queue:
            with term.write() as conn:
                self._move(conn, term, run, RunState.EXPIRED, "it could not start in time", code="expired")
            return
        if model is None or model.spec is None or model.error is not None:
            with term.write() as conn:
                why = f"the model file cannot be used: {'' if model is None else model.error}"
                self._move(conn, term, run, RunState.FAILED, why, code="spec_invalid", detail=why)
            return
        with term.database.read() as conn:
            is_frozen = "freeze" in models.switches(conn, run.model)
        if not is_frozen and self._processes.count("train") < self._work.trainers:
            self._begin(term, run, model, until=run.until or self._lake.watermark(run.model))

    def _begin(self, term: Term, run: Run, model: ModelRow, *, until: datetime | None, **columns: Any) -> None:
        with term.write() as conn:
            for other in runs.unfinished(conn):
                if other.model == run.model and other.id != run.id and other.state is RunState.AWAITING_LABELS:
                    self._reject_candidate(conn, other)
                    self._move(conn, term, other, RunState.SUPERSEDED, f"run {run.id} began", code="superseded")
            started = runs.transition(
                conn,
                run.id,
                RunState.PREPARING,
                actor=ACTOR,
                reason="a trainer is free",
                at=term.database.now(conn),
                token=term.token,
                until=until,
                **columns,
            )
            quarantined = spans(conn, run.model)
        spec = model.spec or {}
        task = TrainTask(
            run_id=run.id,
            token=term.token,
            model=run.model,
            database=self._work.database,
            lake=self._work.lake,
            artifacts=self._work.artifacts,
            project=str(self._work.project),
            file=model.file or "",
            schema=spec["schema"],
            spec=spec,
            spec_digest=model.spec_digest,
            until=started.until,
            quarantined=quarantined,
        )
        old = self._processes.find("train", run.id)
        if old is not None:
            self._processes.forget(old)
        self._processes.start("train", run.id, model=run.model, task=task)
        log.info("run_began", extra=facts(run=run.id, model=run.model, trigger=run.trigger.value, attempt=run.attempt))

    def _working(self, term: Term, run: Run, job: Job | None, model: ModelRow | None) -> None:
        if job is None:
            with term.write() as conn:
                self._lost(conn, term, runs.get(conn, run.id), code="worker_lost", why="its trainer is gone")
        elif job.is_over:
            self._processes.forget(job)
            with term.write() as conn:
                fresh = runs.get(conn, run.id)
                if fresh.state in WORKING:
                    self._buried(conn, term, fresh, job.exit_code or 0)
        elif job.age_s > _deadline_s(model):
            job.kill()
            with term.write() as conn:
                fresh = runs.get(conn, run.id)
                if fresh.state in WORKING:
                    why = f"the trainer's deadline of {_deadline_s(model):.0f} s is over"
                    self._move(
                        conn,
                        term,
                        fresh,
                        RunState.TIMED_OUT,
                        why,
                        code="deadline",
                        detail=why,
                        decided_event_time=fresh.until,
                    )

    def _cancelling(self, term: Term, run: Run, job: Job | None) -> None:
        if job is not None and not job.is_over:
            job.ask_to_leave()
            return
        with term.write() as conn:
            self._reject_candidate(conn, run)
            self._move(conn, term, run, RunState.CANCELLED, "its trainer is gone", code="cancelled")

    def _awaiting_labels(self, term: Term, run: Run, model: ModelRow | None) -> None:
        if model is None or model.spec is None or run.until is None:
            return
        with term.database.read() as conn:
            newest = checks.latest_done(conn, run.model)
            busy = runs.active(conn, run.model) is not None
        if newest is None or newest.window_until is None or newest.window_until <= run.until:
            return
        policy = model.spec["policies"]["retrain"]
        if newest.window_until - run.until > PATIENCE:
            with term.write() as conn:
                self._reject_candidate(conn, run)
                self._move(conn, term, run, RunState.EXPIRED, "the labels did not come", code="insufficient_evidence")
            return
        new_labels = (newest.situation or {}).get("new_labels", 0)
        if new_labels >= policy["min_labels"] and not busy and self._processes.count("train") < self._work.trainers:
            with term.write() as conn:
                self._reject_candidate(conn, run)
            self._begin(term, run, model, until=newest.window_until, attempt=run.attempt + 1)

    def _buried(self, conn: Connection, term: Term, run: Run, exit_code: int) -> None:
        if exit_code < 0 or exit_code == OUT_OF_MEMORY:
            self._lost(conn, term, run, code="resource", why=f"its trainer was killed (exit code {exit_code})")
            return
        why = f"its trainer left without a verdict (exit code {exit_code})"
        self._lost(conn, term, run, code="worker_lost", why=why)

    def _lost(self, conn: Connection, term: Term, run: Run, *, code: str, why: str) -> None:
        self._reject_candidate(conn, run)
        if run.attempt < MOST_ATTEMPTS:
            self._move(conn, term, run, RunState.QUEUED, f"{why}; tried again", attempt=run.attempt + 1, code=code)
        else:
            self._move(conn, term, run, RunState.FAILED, why, code=code, detail=why, decided_event_time=run.until)

    def _reject_candidate(self, conn: Connection, run: Run) -> None:
        """Take the candidate of a run that goes on without it off the list of those who want to answer."""
        row = None if run.version is None else versions.find(conn, run.model, run.version)
        if row is not None and row.state is VersionState.CANDIDATE:
            versions.set_state(conn, run.model, row.version, VersionState.REJECTED)

    def _move(self, conn: Connection, term: Term, run: Run, after: RunState, reason: str, **columns: Any) -> None:
        runs.transition(
            conn, run.id, after, actor=ACTOR, reason=reason, at=term.database.now(conn), token=term.token, **columns
        )
        log.info("run_moved", extra=facts(run=run.id, model=run.model, state=after.value, why=reason))

    def _notice_ends(self, term: Term, unfinished: list[Run]) -> None:
        now = {run.id: run.state for run in unfinished}
        for run_id in self._watched.keys() - now.keys():
            with term.database.read() as conn:
                run = runs.get(conn, run_id)
            if run.state in TERMINAL:
                self._ended(run)
        self._watched = now


def _deadline_s(model: ModelRow | None) -> float:
    policies = {} if model is None or model.spec is None else model.spec["policies"]
    return parse_duration(policies.get("training", {}).get("deadline", "15m")).total_seconds()
