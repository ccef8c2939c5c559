"""Drives runs through their states. Each look reads where every unfinished run stands and takes the one next step."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from service.control.breaker import settle
from service.control.leader import Term
from service.control.processes import Exit, Job, Processes
from service.control.promotion import propose, resume
from service.control.quarantine import spans
from service.control.setbacks import FIRST_PAUSE, drop_version, set_back
from service.control.silence import Silence
from service.control.tasks import TrainTask
from service.domain.duration import format_duration, parse_duration
from service.domain.errors import LakeUnavailable, NotAllowedNow, RunInProgress
from service.domain.policy import Gate, Retrain, Training
from service.domain.retry import Setback
from service.domain.run import TERMINAL, WORKING, RunState, Trigger
from service.journal import facts
from service.storage import champions, checks, models, runs, versions
from service.storage.checks import Check
from service.storage.lake import Lake
from service.storage.models import ModelRow
from service.storage.runs import Run

__all__ = ["Retraining", "Work"]

log = logging.getLogger(__name__)

ACTOR = "controller"
TRAINER_SILENT_S = 120.0
"""A trainer that has given no sign of life for so long is taken for lost: stopped, swapped out, or in code that never
lets the interpreter go. Far above its two seconds, for some libraries hold it through a whole fit."""
LINGER_S = 30.0
"""A trainer gets so long to leave by itself once its run has moved on."""
LOST = frozenset({Exit.LEASE_LOST, Exit.ORPHAN, Exit.NOT_STARTED, Exit.NO_FORK_SERVER})


@dataclass(frozen=True, kw_only=True)
class Work:
    """Where the material is and what may be used."""

    database: str
    lake: str
    artifacts: str
    project: Path
    trainers: int
    queue: timedelta
    """A run that could not start for so long expires."""
    approval: timedelta = timedelta(days=7)
    """A run that nobody decided for so long expires."""
    first_pause: timedelta = FIRST_PAUSE
    silent_s: float = TRAINER_SILENT_S
    compiles: bool = True
    reports: str = ""
    """Folder of data summaries; none: none are drawn."""
    report_every_s: float = 0.0
    """Wall-clock seconds between the data summaries of a model's automatic runs."""


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
        self._silence = Silence()
        self._silenced: set[str] = set()
        self._lingers: dict[str, float] = {}
        self._drew_at: dict[str, float] = {}

    def look(self, term: Term, known: Mapping[str, ModelRow]) -> None:
        """Take each unfinished run's next step."""
        with term.database.read() as conn:
            unfinished = runs.unfinished(conn)
            proposed = {swap.run_id for swap in champions.waiting(conn)}
            now = term.database.now(conn)
        self._notice_ends(term, unfinished, known)
        self._send_away(unfinished)
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
                    self._cancelled(conn, term, run, "its leader is gone")
                elif run.state in WORKING:
                    self._set_back(conn, term, run, Setback.WORKER_LOST, "its leader is gone")

    def release(self, term: Term) -> None:
        """Give this leader's runs back to the queue: the next leader starts them anew, as if never tried."""
        with term.write() as conn:
            for run in runs.unfinished(conn):
                if run.state is RunState.CANCELLING:
                    self._cancelled(conn, term, run, "its trainer is gone")
                elif run.state in WORKING:
                    drop_version(conn, run)
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
        elif run.state is RunState.AWAITING_APPROVAL:
            self._awaiting_approval(term, run, model, now)

    def _queued(self, term: Term, run: Run, model: ModelRow | None, now: datetime) -> None:
        # A run that went back to the queue has waited since then: its own work is no waiting.
        if now - max(run.requested_at, run.heartbeat_at or run.requested_at) > self._work.queue:
            with term.write() as conn:
                self._move(conn, term, run, RunState.EXPIRED, "it could not start in time", code="expired")
            return
        if run.not_before is not None and now < run.not_before:
            return
        if model is None or model.spec is None or model.error is not None:
            with term.write() as conn:
                why = f"the model file cannot be used: {'' if model is None else model.error}"
                self._move(conn, term, run, RunState.FAILED, why, code="spec_invalid", detail=why)
            return
        with term.database.read() as conn:
            is_frozen = "freeze" in models.switches(conn, run.model)
        if is_frozen or self._processes.count("train") >= self._work.trainers:
            return
        try:
            until = run.until or self._lake.watermark(run.model)
        except LakeUnavailable as error:
            with term.write() as conn:
                self._move(conn, term, run, RunState.PREPARING, "a trainer is free")
                self._set_back(conn, term, runs.get(conn, run.id), Setback.DATA_UNAVAILABLE, error.detail)
            return
        self._begin(term, run, model, until=until)

    def _begin(self, term: Term, run: Run, model: ModelRow, *, until: datetime | None, **columns: Any) -> None:
        with term.write() as conn:
            drop_version(conn, run)
            for other in runs.unfinished(conn):
                if other.model == run.model and other.id != run.id and other.state is RunState.AWAITING_LABELS:
                    drop_version(conn, other)
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
                code=None,
                detail=None,
                not_before=None,
                progress=None,
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
            first_pause=self._work.first_pause,
            compiles=self._work.compiles,
            reports=self._work.reports if self._draws(run) else "",
        )
        old = self._processes.find("train", run.id)
        if old is not None:
            self._processes.forget(old)
        self._silence.forget(run.id)
        self._processes.start("train", run.id, model=run.model, task=task)
        log.info("run_began", extra=facts(run=run.id, model=run.model, trigger=run.trigger.value, attempt=run.attempt))

    def _draws(self, run: Run) -> bool:
        """Return whether this run draws its data summary; a replay would otherwise keep a core busy with plots."""
        now, last = time.monotonic(), self._drew_at.get(run.model)
        if run.trigger is not Trigger.MANUAL and last is not None and now - last < self._work.report_every_s:
            return False
        self._drew_at[run.model] = now
        return True

    def _working(self, term: Term, run: Run, job: Job | None, model: ModelRow | None) -> None:
        if job is None:
            with term.write() as conn:
                self._set_back(conn, term, runs.get(conn, run.id), Setback.WORKER_LOST, "its trainer is gone")
        elif job.is_over:
            self._processes.forget(job)
            with term.write() as conn:
                fresh = runs.get(conn, run.id)
                if fresh.state in WORKING:
                    setback, why = self._burial(run.id, job.exit_code or 0)
                    self._set_back(conn, term, fresh, setback, why)
            self._silenced.discard(run.id)
        elif job.age_s > _deadline_s(model):
            job.kill()
            with term.write() as conn:
                fresh = runs.get(conn, run.id)
                if fresh.state in WORKING:
                    why = f"the trainer's deadline of {_deadline_s(model):.0f} s is over"
                    drop_version(conn, fresh)
                    end = {"code": "deadline", "detail": why, "decided_event_time": fresh.until}
                    self._move(conn, term, fresh, RunState.TIMED_OUT, why, **end)
        elif self._silence.of(run.id, run.heartbeat_at) > self._work.silent_s and run.id not in self._silenced:
            # Only killed here: it is tried again when it is surely dead, for it holds the token of this very leader.
            log.error("trainer_silent", extra=facts(run=run.id, model=run.model, seconds=self._work.silent_s))
            self._silenced.add(run.id)
            job.kill()

    def _burial(self, run_id: str, exit_code: int) -> tuple[Setback, str]:
        if run_id in self._silenced:
            return Setback.WORKER_LOST, f"its trainer gave no sign of life for {self._work.silent_s:.0f} s"
        if exit_code < 0 or exit_code == Exit.OUT_OF_MEMORY:
            words = "ran out of memory" if exit_code == Exit.OUT_OF_MEMORY else f"was killed by signal {-exit_code}"
            return Setback.RESOURCE, f"its trainer {words}"
        if exit_code == Exit.UNAVAILABLE:
            return Setback.DATA_UNAVAILABLE, "the database did not answer its trainer"
        if exit_code in LOST:
            return Setback.WORKER_LOST, f"its trainer was cut off ({Exit(exit_code).name.lower()})"
        return Setback.TRAIN_ERROR, f"the model's own code ended the trainer (exit code {exit_code})"

    def _cancelling(self, term: Term, run: Run, job: Job | None) -> None:
        if job is not None and not job.is_over:
            job.ask_to_leave()
            return
        with term.write() as conn:
            self._cancelled(conn, term, run, "its trainer is gone")

    def _cancelled(self, conn: Connection, term: Term, run: Run, why: str) -> None:
        drop_version(conn, run)
        self._move(conn, term, run, RunState.CANCELLED, why, code="cancelled")

    def _awaiting_labels(self, term: Term, run: Run, model: ModelRow | None) -> None:
        if model is None or model.spec is None or run.until is None:
            return
        with term.database.read() as conn:
            newest = checks.latest_done(conn, run.model)
            busy = runs.active(conn, run.model) is not None
        if newest is None or newest.window_until is None or newest.window_until <= run.until:
            return
        policy = models.policy_of(model, Retrain)
        patience = parse_duration(policy.cooldown_cap)
        if newest.window_until - run.until > patience:
            with term.write() as conn:
                drop_version(conn, run)
                why = f"too few labels came in {format_duration(patience)}"
                self._move(conn, term, run, RunState.REJECTED, why, code="insufficient_evidence", detail=why)
            return
        new_labels = (newest.situation or {}).get("new_labels", 0)
        if new_labels >= policy.min_labels and not busy and self._processes.count("train") < self._work.trainers:
            self._begin(term, run, model, until=newest.window_until, attempt=run.attempt + 1)

    def _awaiting_approval(self, term: Term, run: Run, model: ModelRow | None, now: datetime) -> None:
        with term.database.read() as conn:
            since = runs.since(conn, run.id, RunState.AWAITING_APPROVAL) or now
            newest = checks.latest_done(conn, run.model)
            why = _stale(conn, run, model, newest)
            waits = runs.active(conn, run.model) is not None or "freeze" in models.switches(conn, run.model)
        if now - since > self._work.approval:
            with term.write() as conn:
                drop_version(conn, run)
                words = f"nobody decided in {format_duration(self._work.approval)}"
                self._move(conn, term, run, RunState.EXPIRED, words, code="approval_expired", detail=words)
        elif why is not None and not waits:
            until = max((at for at in (run.until, newest and newest.window_until) if at), default=None)
            with term.write() as conn:
                drop_version(conn, run)
                self._move(conn, term, run, RunState.EVALUATING, why, code="stale")
                again = {"code": "stale", "detail": why, "until": until, "attempt": run.attempt + 1}
                self._move(conn, term, run, RunState.QUEUED, "judged again", **again)
        elif why is None and run.code == "held" and not models.policy_of(model, Gate).approval:
            resume(term, run)

    def _set_back(self, conn: Connection, term: Term, run: Run, setback: Setback, why: str) -> None:
        at, token = term.database.now(conn), term.token
        moved = set_back(
            conn, run, setback, why=why, actor=ACTOR, at=at, token=token, first_pause=self._work.first_pause
        )
        log.warning(
            "run_set_back_by_leader",
            extra=facts(run=run.id, model=run.model, code=setback.value, state=moved.state, why=why),
        )

    def _send_away(self, unfinished: list[Run]) -> None:
        """End trainers that have nothing left to write, and forget those that have ended."""
        at_work = {run.id for run in unfinished if run.state in {*WORKING, RunState.CANCELLING}}
        idle = [job for job in self._processes.of_kind("train") if job.key not in at_work]
        now = time.monotonic()
        self._lingers = {job.key: self._lingers.get(job.key, now) for job in idle}
        for job in idle:
            if job.is_over:
                self._processes.forget(job)
            elif now - self._lingers[job.key] > LINGER_S:
                job.ask_to_leave()

    def _move(self, conn: Connection, term: Term, run: Run, after: RunState, reason: str, **columns: Any) -> None:
        runs.transition(
            conn, run.id, after, actor=ACTOR, reason=reason, at=term.database.now(conn), token=term.token, **columns
        )
        log.info("run_moved_by_leader", extra=facts(run=run.id, model=run.model, state=after.value, why=reason))

    def _notice_ends(self, term: Term, unfinished: list[Run], known: Mapping[str, ModelRow]) -> None:
        now = {run.id: run.state for run in unfinished}
        for run_id in self._watched.keys() - now.keys():
            with term.database.read() as conn:
                run = runs.get(conn, run_id)
            if run.state in TERMINAL:
                row = known.get(run.model)
                if row is not None:
                    with term.write() as conn:
                        settle(conn, row, at=term.database.now(conn))
                self._ended(run)
        self._watched = now


def _stale(conn: Connection, run: Run, model: ModelRow | None, newest: Check | None) -> str | None:
    """Return why what was found of a waiting challenger no longer holds; None if it does."""
    version = None if run.version is None else versions.find(conn, run.model, run.version)
    champion = champions.current(conn, run.model)
    if version is not None and version.parent != (None if champion is None else champion.version):
        return "the champion changed after the challenger was judged"
    if model is None or model.spec is None or newest is None or newest.window_until is None or run.until is None:
        return None
    holdout = parse_duration(models.policy_of(model, Training).holdout)
    if newest.window_until - run.until > holdout:
        return f"more has happened since it was judged than the {format_duration(holdout)} it was judged on"
    return None


def _deadline_s(model: ModelRow | None) -> float:
    return parse_duration(models.policy_of(model, Training).deadline).total_seconds()
