"""The controller: ticks "look what is due" while it leads, and does nothing while another one does."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from service.control.evidence import note_report, prune
from service.control.files import fingerprint, record
from service.control.leader import RENEW_S, Leader, Term
from service.control.memory import peak_bytes
from service.control.monitor import Monitor
from service.control.outbox import Outbox, Webhooks
from service.control.probation import Probations
from service.control.processes import Job, Processes, Surroundings
from service.control.promotion import advance
from service.control.retrain import TRAINER_SILENT_S, Retraining, Work
from service.control.setbacks import FIRST_PAUSE
from service.control.settling import Settling
from service.control.tasks import FilesTask
from service.control.tick import Oddity, Tick
from service.control.tidy import Tidy
from service.control.traced import trace_check, trace_run
from service.control.verdict import Judged
from service.domain.errors import LeaseLost, RetrueError
from service.domain.run import RunState, Trigger
from service.journal import facts
from service.storage import champions, models, replicas, runs, versions
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.lake import Lake
from service.storage.models import ModelRow
from service.storage.runs import Run
from service.traces import Traces

__all__ = ["Controller", "Place"]

log = logging.getLogger(__name__)

TIDY_S = 30.0
SILENT_S = 60.0
"""Replicas that were silent for so long are forgotten."""
FILES_S = 1.0
"""Model files are looked at so often."""
FILES_DEADLINE_S = 120.0
FILES_AGAIN_S = 15.0
"""They are read again so long after a reader that died: what kills one may kill the next."""
STUCK_S = 120.0
"""No look takes so long, whatever hangs: the database is given up far earlier."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a controller finds everything, and what it may use."""

    database: str
    lake: Path
    artifacts: Path
    reports: Path
    models_folder: Path
    tick_s: float = 0.25
    settle_s: float = 0.3
    report_every_s: float = 0.0
    trainers: int = 1
    queue: timedelta = timedelta(hours=24)
    approval: timedelta = timedelta(days=7)
    first_pause: timedelta = FIRST_PAUSE
    silent_s: float = TRAINER_SILENT_S
    compiles: bool = True
    surroundings: Surroundings = field(default_factory=Surroundings)
    webhooks: Webhooks = field(default_factory=Webhooks)


class Controller:
    """One controller process.

    Parameters
    ----------
    place
        See `Place`.
    database
        Opened on the same URL.
    telemetry
        Where events are counted.
    traces
        Where spans of checks and runs go; None: nowhere.
    """

    def __init__(self, place: Place, database: Database, telemetry: Any, *, traces: Traces | None = None) -> None:
        self._traces = traces
        self._looked_at = time.monotonic()
        self._place = place
        self._database = database
        self._telemetry = telemetry
        lake = Lake(place.lake)
        self.leader = Leader(database)
        self._tick = Tick(self._odd)
        self._processes = Processes(
            place.surroundings,
            woken=lambda: self._tick.nudge("look"),
            peaked=lambda kind, size: telemetry.peak_bytes.labels(kind).set(size),
        )
        self._monitor = Monitor(
            self._processes,
            lake,
            reports=place.reports,
            artifacts=place.artifacts,
            settle_s=place.settle_s,
            report_every_s=place.report_every_s,
            judged=self._judged,
            drawn=self._drawn,
        )
        work = Work(
            database=place.database,
            lake=lake.root,
            artifacts=str(place.artifacts),
            project=place.models_folder.absolute().parent,
            trainers=place.trainers,
            queue=place.queue,
            approval=place.approval,
            first_pause=place.first_pause,
            silent_s=place.silent_s,
            compiles=place.compiles,
            reports=str(place.reports),
            report_every_s=place.report_every_s,
        )
        self._retraining = Retraining(work, self._processes, lake, ended=self._ended)
        self._watermark = lake.watermark
        self._store = ArtifactStore(place.artifacts)
        self._broom = Tidy(self._store, lake)
        self._probations = Probations(counted=self._watched)
        self._settling = Settling(settled=self._settled, late=lambda model: telemetry.swaps_late.labels(model).inc())
        self._outbox = Outbox(
            place.webhooks,
            term=lambda: self.leader.term,
            counted=lambda outcome: telemetry.webhooks.labels(outcome).inc(),
        )
        self._term: Term | None = None
        self._files_seen: object = None
        self._files_at = 0.0
        self._lock = threading.Lock()
        self._stopping = False

    def start(self) -> None:
        """Begin to tick; returns at once."""
        self._processes.warm_up()
        self._tick.add("look", self.look, every_s=self._place.tick_s)
        self._tick.add("lead", self._lead, every_s=RENEW_S)
        self._tick.add("tidy", self._tidy, every_s=TIDY_S)
        self._tick.start()
        self._outbox.start()

    def stop(self) -> None:
        """End: trainers are sent away, their runs wait for the next leader, and the lease is given back."""
        self._stopping = True
        self._tick.stop()
        self._outbox.stop()
        with self._lock:
            self._processes.stop_all()
            term = self.leader.term
            if term is not None:
                try:
                    self._retraining.release(term)
                except RetrueError as error:
                    log.warning("runs_not_released", extra=facts(why=error.detail))
            self.leader.resign()

    def is_alive(self) -> bool:
        """Return whether it looks, be it the leader or not."""
        return time.monotonic() - self._looked_at < STUCK_S

    def look(self) -> None:
        """Look once at everything that may be due."""
        self._looked_at = time.monotonic()
        with self._lock:
            term = self.leader.term
            self._telemetry.leader.set(term is not None)
            if term is None or (self._term is not None and self._term.token != term.token):
                self._lose()
            if term is None:
                return
            started = time.perf_counter()
            if self._term is None:
                self._begin(term)
            with self._database.read() as conn:
                known = {row.name: row for row in models.list_all(conn)}
            for part in (
                self._read_files,
                self._start_first_runs,
                self._monitor.look,
                self._probations.look,
                self._retraining.look,
                self._swap,
                self._settling.look,
                self._outbox.look,
            ):
                if not self._stopping:
                    self._guarded(part, term, known)
            self._telemetry.peak_bytes.labels("controller").set(peak_bytes())
            self._telemetry.tick_seconds.observe(time.perf_counter() - started)
            self._telemetry.last_tick.set_to_current_time()

    def _guarded(
        self, part: Callable[[Term, dict[str, ModelRow]], None], term: Term, known: dict[str, ModelRow]
    ) -> None:
        try:
            part(term, known)
        except LeaseLost as error:
            log.warning("look_outdated", extra=facts(why=error.detail))
            self._lose()
            self._telemetry.ticks.labels(outcome="error").inc()
        except RetrueError as error:
            log.warning("look_failed", extra=facts(part=part.__qualname__, code=error.code, why=error.detail))
            self._telemetry.ticks.labels(outcome="error").inc()
        except Exception:
            # One part that breaks must not keep the others from their work.
            log.exception("look_broke", extra=facts(part=part.__qualname__))
            self._telemetry.ticks.labels(outcome="error").inc()
        else:
            self._telemetry.ticks.labels(outcome="ok").inc()

    def _begin(self, term: Term) -> None:
        self._retraining.recover(term)
        self._monitor.begin_term()
        self._files_seen = None
        self._term = term

    def _lose(self) -> None:
        if self._term is not None:
            self._term = None
            self._processes.stop_all(grace_s=0.0)

    def _lead(self) -> None:
        was = self.leader.term
        if self.leader.step() is not None and was is None:
            self._tick.nudge("look")

    def _read_files(self, term: Term, known: dict[str, ModelRow]) -> None:
        job = self._processes.find("files", "files")
        if job is not None:
            self._take_files(term, job, known)
            return
        now = time.monotonic()
        if now < self._files_at:
            return
        self._files_at = now + FILES_S
        seen = fingerprint(self._place.models_folder)
        if seen != self._files_seen:
            self._files_seen = seen
            task = FilesTask(folder=str(self._place.models_folder))
            self._processes.start("files", "files", model="-", task=task)

    def _take_files(self, term: Term, job: Job, known: dict[str, ModelRow]) -> None:
        if not job.is_over:
            if job.age_s > FILES_DEADLINE_S:
                job.kill()
            return
        self._processes.forget(job)
        # Seen is only what was read and written down. A reader that was killed (no memory, a machine too busy for its
        # deadline) or a database that was away just then left the service without models until somebody touched a file.
        seen, self._files_seen = self._files_seen, None
        self._files_at = time.monotonic() + FILES_AGAIN_S
        if not job.messages:
            log.error("files_unreadable", extra=facts(exit_code=job.exit_code, folder=str(self._place.models_folder)))
            return
        found = job.messages.popleft()
        with term.write() as conn:
            rows = record(conn, found, at=self._database.now(conn))
        self._files_seen, self._files_at = seen, 0.0
        known.update({row.name: row for row in rows})
        for entry in found:
            if entry["error"] is not None:
                log.error("model_broken", extra=facts(file=entry["file"], why=entry["error"]))
        log.info("models_read", extra=facts(models=[entry["name"] for entry in found if entry["error"] is None]))

    def _start_first_runs(self, term: Term, known: dict[str, ModelRow]) -> None:
        with self._database.read() as conn:
            served = {champion.model for champion in champions.all_current(conn)}
            wanting = [row for row in known.values() if row.name not in served and row.spec and not row.error]
            newest = {row.name: next(iter(runs.list_of(conn, row.name, limit=1)), None) for row in wanting}
        for row in wanting:
            last = newest[row.name]
            # A first run that ended badly is tried again only when its file has changed, or by an operator.
            if last is None or (last.finished_at is not None and last.requested_at < row.updated_at):
                with term.write() as conn:
                    runs.create(
                        conn,
                        row.name,
                        trigger=Trigger.INITIAL,
                        actor="controller",
                        reason="the model has no version yet",
                        at=self._database.now(conn),
                    )

    def _swap(self, term: Term, known: dict[str, ModelRow]) -> None:  # noqa: ARG002  the parts of a look are alike
        with self._database.read() as conn:
            waiting = champions.waiting(conn)
            now = self._database.now(conn)
        for swap in waiting:
            outcome = advance(term, swap, watermark=self._watermark, store=self._store)
            if outcome is not None:
                self._telemetry.promotions.labels(model=swap.model, kind=swap.kind, outcome=outcome).inc()
                self._telemetry.swap_seconds.labels(model=swap.model).observe((now - swap.created_at).total_seconds())

    def _watched(self, model: str, outcome: str) -> None:
        self._telemetry.probations.labels(model=model, outcome=outcome).inc()
        if outcome == "rolled_back":
            self._telemetry.promotions.labels(model=model, kind="rollback", outcome="committed").inc()

    def _settled(self, model: str, mixed_s: float) -> None:
        self._telemetry.swap_mixed_seconds.labels(model=model).observe(mixed_s)

    def _judged(self, judged: Judged) -> None:
        check, verdict = judged.check, judged.examination.verdict.value
        self._telemetry.checks.labels(model=check.model, verdict=verdict).inc()
        self._telemetry.check_seconds.labels(model=check.model).observe((check.seconds or {}).get("in_all", 0.0))
        self._telemetry.decisions.labels(model=check.model, code=judged.decision.code).inc()
        if judged.alarmed:
            self._telemetry.drift_alarms.labels(model=check.model).inc()
        if self._traces is not None:
            trace_check(self._traces, check)
        log.info(
            "check_done",
            extra=facts(
                model=check.model,
                check=check.id,
                until=check.window_until,
                verdict=verdict,
                decision=judged.decision.code,
                why=judged.decision.reason,
                run=check.run_id,
            ),
        )

    def _drawn(self, term: Term, check_id: str, path: str) -> None:
        model = note_report(term, check_id, path)
        with self._database.read() as conn:
            now = self._database.now(conn)
        prune(term, self._place.reports, model, now=now)

    def _ended(self, run: Run) -> None:
        if run.version is not None:
            with self._database.read() as conn:
                row = versions.find(conn, run.model, run.version)
            if row is not None:
                self._telemetry.compilations.labels(model=run.model, outcome=row.compiled).inc()
        self._telemetry.runs.labels(model=run.model, trigger=run.trigger.value, outcome=run.state.value).inc()
        if run.finished_at is not None:
            spent = (run.finished_at - run.requested_at).total_seconds()
            self._telemetry.run_seconds.labels(model=run.model).observe(spent)
        if self._traces is not None:
            with self._database.read() as conn:
                trace_run(self._traces, run, runs.events(conn, run.id))
        level = logging.ERROR if run.state in {RunState.FAILED, RunState.TIMED_OUT} else logging.INFO
        log.log(
            level,
            "run_ended",
            extra=facts(
                run=run.id, model=run.model, state=run.state.value, code=run.code, version=run.version, why=run.detail
            ),
        )

    def _tidy(self) -> None:
        term = self.leader.term
        if term is not None:
            with term.write() as conn:
                replicas.forget(conn, SILENT_S)
            self._outbox.tidy(term)
            self._broom.look(term)

    def _odd(self, name: str, what: Oddity) -> None:
        if name == "look":
            self._telemetry.ticks.labels(outcome=what).inc()
