"""Looks which checks are due, has them made, and turns what they saw into a decision, all of it in one transaction."""

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from service.control.due import due, pitch, window_from
from service.control.leader import Term
from service.control.probation import watched_by
from service.control.processes import Job, Processes
from service.control.situation import drift_began, training_cutoff
from service.control.tasks import CheckTask, Failure, Report
from service.control.verdict import Judged, conclude
from service.domain.check import SCHEDULE
from service.domain.duration import parse_window
from service.domain.errors import LakeUnavailable, NotAllowedNow, RetrueError
from service.domain.policy import Drift, Quality, Retrain
from service.journal import facts
from service.storage import champions, checks, runs, tables, versions
from service.storage.champions import Champion
from service.storage.checks import Check
from service.storage.lake import Lake
from service.storage.models import ModelRow, policy_of

__all__ = ["Monitor"]

log = logging.getLogger(__name__)

AT_ONCE = 1
"""Checks that examine at a time; one that only draws its report does not count."""
MOST_PROCESSES = 3
DEADLINE_S = 180.0
SETTLE_S = 0.3
"""Two workers' spools reach the lake up to so much apart."""
MOST_STARTS = 2
"""A check whose process died is started once more."""


class Monitor:
    """Makes the checks of all models.

    Parameters
    ----------
    processes
        Where checks run.
    lake
        Asked for watermarks only: frames are read by the check processes.
    reports
        Folder of the HTML evidence.
    artifacts
        Folder of the versions' files: a champion on probation is compared with the version before it.
    settle_s
        Wall-clock seconds from a watermark that passed a grid point to its check.
    report_every_s
        Wall-clock seconds between the reports of a model's scheduled checks.
    judged
        Told of each verdict with its decision.
    drawn
        Told of each report: check, path below the reports folder.
    """

    def __init__(
        self,
        processes: Processes,
        lake: Lake,
        *,
        reports: Path,
        artifacts: Path | None = None,
        settle_s: float = SETTLE_S,
        report_every_s: float = 0.0,
        judged: Callable[[Judged], None],
        drawn: Callable[[Term, str, str], None],
    ) -> None:
        self._reports = reports
        self._artifacts = artifacts
        self._processes = processes
        self._lake = lake
        self._judged = judged
        self._drawn = drawn
        self._anchors: dict[str, datetime] = {}
        self._counted: dict[str, tuple[tuple[int | None, datetime] | None, datetime | None]] = {}
        self._due_since: dict[tuple[str, datetime], float] = {}
        self._settle_s = settle_s
        self._report_every_s = report_every_s
        self._drew_at: dict[str, float] = {}
        self._starts: dict[str, int] = {}
        self._done: set[str] = set()

    def begin_term(self) -> None:
        """Forget what another leader may have changed."""
        self._anchors.clear()
        self._counted.clear()

    def look(self, term: Term, known: Mapping[str, ModelRow]) -> None:
        """Take in what checks have sent, and start those that are asked for or due."""
        for job in self._processes.of_kind("check"):
            self._take_in(term, job, known)
        with term.database.read() as conn:
            open_checks = checks.unfinished(conn)
            current = {champion.model: champion for champion in champions.all_current(conn)}
        busy = {check.model for check in open_checks}
        for model, champion in current.items():
            row = known.get(model)
            if model not in busy and row is not None and row.spec is not None:
                open_checks.extend(self._created(term, row, champion))
        for check in open_checks:
            if self._processes.find("check", check.id) is None and self._has_room():
                self._start(term, check, known.get(check.model), current.get(check.model))

    def _has_room(self) -> bool:
        living = [job for job in self._processes.of_kind("check") if not job.is_over]
        examining = sum(job.key not in self._done for job in living)
        return examining < AT_ONCE and len(living) < MOST_PROCESSES

    def _created(self, term: Term, row: ModelRow, champion: Champion) -> list[Check]:
        try:
            created = self._create_due(term, row, champion)
        except LakeUnavailable as error:
            # The other models' checks go on.
            log.warning("watermark_unknown", extra=facts(model=row.name, why=error.detail))
            return []
        return [] if created is None else [created]

    def _create_due(self, term: Term, row: ModelRow, champion: Champion) -> Check | None:
        policy = policy_of(row, Drift)
        watermark = self._lake.watermark(row.name)
        if watermark is None:
            return None
        anchor = self._anchor(term, row.name)
        if pitch(policy) is None:
            found, skipped = self._rows_due(row.name, policy, watermark, anchor), 0
        else:
            next_one = due(policy, watermark=watermark, anchor=anchor)
            found, skipped = (None, 0) if next_one is None else (next_one.window_until, next_one.skipped)
        if found is None or not self._has_settled(row.name, found):
            return None
        with term.write() as conn:
            check = checks.create(
                conn,
                row.name,
                actor=SCHEDULE,
                at=term.database.now(conn),
                window_from=window_from(policy, found),
                window_until=found,
                version=champion.version,
                generation=champion.generation,
            )
        if check.actor == SCHEDULE:
            self._anchors[row.name] = found
        if skipped:
            log.warning("checks_skipped", extra=facts(model=row.name, skipped=skipped, until=found.isoformat()))
        return check

    def _has_settled(self, model: str, until: datetime) -> bool:
        """Return whether it has been due for a moment: labels that came before it are then in the lake too."""
        now = time.monotonic()
        since = self._due_since.setdefault((model, until), now)
        if now - since < self._settle_s:
            return False
        self._due_since = {key: at for key, at in self._due_since.items() if key[0] != model}
        return True

    def _rows_due(self, model: str, policy: Drift, watermark: datetime, anchor: datetime) -> datetime | None:
        """Return the event time of the newest row that makes a whole number of windows since `anchor`."""
        seen = (self._lake.version_of(model, "predictions"), anchor)
        if self._counted.get(model, (None, None))[0] == seen:
            return self._counted[model][1]
        count = parse_window(policy.window).rows or 1
        times = self._lake.read_window(model, after=anchor, until=watermark, columns=["event_time"])["event_time"]
        whole = len(times) // count * count
        newest: datetime | None = times[whole - 1].as_py() if whole else None
        self._counted[model] = (seen, newest)
        return newest

    def _anchor(self, term: Term, model: str) -> datetime:
        known = self._anchors.get(model)
        if known is None:
            with term.database.read() as conn:
                known = self._anchors[model] = _stored_anchor(conn, model)
        return known

    def _start(self, term: Term, check: Check, row: ModelRow | None, champion: Champion | None) -> None:
        why_not = None
        if row is None or row.spec is None or champion is None:
            why_not = "the model has no champion yet: there is nothing to compare with"
        elif self._starts.get(check.id, 0) >= MOST_STARTS:
            why_not = "its process died twice"
        until = check.window_until or self._lake.watermark(check.model)
        if until is None:
            why_not = why_not or "no prediction is recorded yet"
        if why_not is not None or row is None or champion is None or until is None:
            self._fail(term, check.id, why_not or "")
            return
        policy = policy_of(row, Drift)
        after = window_from(policy, until)
        with term.write() as conn:
            version = versions.get(conn, check.model, champion.version)
            watched = watched_by(conn, row, champion, self._artifacts)
            past = checks.list_of(conn, check.model, limit=50)
            began = drift_began((one for one in past if one.id != check.id), generation=champion.generation)
            cutoff = training_cutoff(runs.list_of(conn, check.model), learned_until=version.learned_until)
            checks.start(
                conn,
                check.id,
                token=term.token,
                window_from=after,
                window_until=until,
                version=champion.version,
                generation=champion.generation,
            )
        spec = row.spec or {}
        task = CheckTask(
            check_id=check.id,
            model=check.model,
            lake=self._lake.root,
            reports=str(self._reports),
            version=version.version,
            schema=version.manifest["schema"],
            reference=version.reference,
            calibration=version.calibration,
            reference_loss=version.metrics.get("loss"),
            quality=policy_of(row, Quality),
            drift=policy,
            metric=spec["metric"],
            window_from=after,
            window_until=until,
            label_cutoff=cutoff,
            baseline=version.metrics.get("baseline"),
            tolerated=policy_of(row, Retrain).degradation,
            draws=self._draws(check),
            watched=watched,
            drift_began=began,
        )
        self._starts[check.id] = self._starts.get(check.id, 0) + 1
        self._processes.start("check", check.id, model=check.model, task=task)

    def _draws(self, check: Check) -> bool:
        """Return whether this check draws its evidence; a replay would otherwise keep a core busy with plots."""
        now = time.monotonic()
        last = self._drew_at.get(check.model)
        if check.actor == SCHEDULE and last is not None and now - last < self._report_every_s:
            return False
        self._drew_at[check.model] = now
        return True

    def _take_in(self, term: Term, job: Job, known: Mapping[str, ModelRow]) -> None:
        # The end is read before the messages: what was sent before it is then surely there.
        is_over = job.is_over
        while job.messages:
            message = job.messages[0]
            try:
                self._message(term, job, message, known[job.model])
            except NotAllowedNow as error:
                log.warning("check_ended_meanwhile", extra=facts(check=job.key, why=error.detail))
            except RetrueError:
                raise
            except Exception as error:
                # What cannot be taken in now never can: a recorded failure, or it would be tried for ever.
                log.exception("check_not_recorded", extra=facts(check=job.key, model=job.model))
                if job.key not in self._done:
                    self._done.add(job.key)
                    self._fail(term, job.key, f"its verdict could not be recorded: {type(error).__name__}")
            job.messages.popleft()  # only now: a database that was away is asked again at the next look
        if is_over:
            if job.key not in self._done:
                log.error("check_died", extra=facts(check=job.key, model=job.model, exit_code=job.exit_code))
            else:
                self._starts.pop(job.key, None)
            self._done.discard(job.key)
            self._processes.forget(job)
        elif job.key not in self._done and job.age_s > DEADLINE_S:
            job.kill()
            self._done.add(job.key)
            self._fail(term, job.key, f"its deadline of {DEADLINE_S:.0f} s is over")

    def _message(self, term: Term, job: Job, message: Any, row: ModelRow) -> None:
        if isinstance(message, Report):
            self._drawn(term, job.key, message.path)
        elif isinstance(message, Failure):
            self._done.add(job.key)
            self._fail(term, job.key, f"{message.code}: {message.detail}")
        else:
            with term.write() as conn:
                judged = conclude(conn, job.key, message, row, at=term.database.now(conn), token=term.token)
            self._done.add(job.key)
            self._judged(judged)

    def _fail(self, term: Term, check_id: str, why: str) -> None:
        with term.write() as conn:
            checks.fail(conn, check_id, error=why, at=term.database.now(conn), token=term.token)
        self._starts.pop(check_id, None)
        log.error("check_failed", extra=facts(check=check_id, why=why))


def _stored_anchor(conn: Connection, model: str) -> datetime:
    """Return where the grid goes on: the last scheduled check's end, or what the first champion learned until."""
    c = tables.checks.c
    last = select(c.window_until).where(c.model == model, c.actor == SCHEDULE, c.window_until.is_not(None))
    found: datetime | None = conn.scalar(last.order_by(c.window_until.desc()).limit(1))
    if found is not None:
        return found
    first = champions.history(conn, model)[-1]
    return versions.get(conn, model, first.version).learned_until
