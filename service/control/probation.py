"""Watches new champions: keeps them, prolongs the watch, or takes them back, each in one transaction.

Taking back needs no round of agreement: the version before is still warm in every replica, which rebinds at its next
look. One further back is loaded first, while the replica serves on with what it has. `freeze` and `hold` stop
promotions, not this; `pin` says that nothing but a person changes the champion, so a breach is only told, loudly.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from service.control.leader import Term
from service.control.quarantine import spans
from service.control.tasks import Seen, Watched
from service.domain.policy import Probation
from service.domain.probation import Evidence, Health, Outcome, ProbationState, Step, Watch, outcome_of
from service.domain.run import AUTOMATIC, RunState
from service.domain.version import VersionState
from service.journal import facts
from service.storage import audit, champions, models, notices, probations, replicas, runs, versions
from service.storage.champions import Champion
from service.storage.checks import Check
from service.storage.models import ModelRow
from service.storage.probations import ProbationRow

__all__ = ["Probations", "begin", "note_comparison", "watched_by"]

log = logging.getLogger(__name__)

ACTOR = "controller"
LIVE_S = 6.0
"""As for promotions: a replica that was silent for so long is taken for dead."""
WRITE_S = 5.0
"""Health that leads to nothing is written down at most so often."""


def begin(
    conn: Connection, champion: Champion, *, run_id: str | None, event_time: datetime | None, actor: str
) -> ProbationRow | None:
    """Put a new champion on probation; None where its model has none, or nothing came before it.

    It is compared with the version that it would go back to: the last one that was kept.
    """
    if models.policy_of(models.find(conn, champion.model), Probation).duration is None:
        return None
    kept = probations.rollback_targets(conn, champion.model)
    before = kept[0] if kept else champion.previous_version
    if before is None or before == champion.version:
        return None
    return probations.begin(
        conn,
        champion.model,
        generation=champion.generation,
        version=champion.version,
        previous_version=before,
        run_id=run_id,
        at=champion.changed_at,
        event_time=event_time,
        actor=actor,
    )


def watched_by(conn: Connection, row: ModelRow, champion: Champion, artifacts: Path | None) -> Watched | None:
    """Return what a check needs to compare `champion` with the version before; None while it is not on probation."""
    watched = probations.open_of(conn, row.name)
    if watched is None or watched.generation != champion.generation or artifacts is None:
        return None
    version = versions.get(conn, row.name, watched.previous_version)
    return Watched(
        generation=watched.generation,
        began_event_time=watched.began_event_time,
        artifacts=str(artifacts),
        artifact=version.artifact,
        manifest=version.manifest,
        version=version.version,
        confidence=models.policy_of(row, Probation).confidence,
        quarantined=spans(conn, row.name),
    )


def note_comparison(conn: Connection, check: Check, saw: Seen) -> None:
    """Write what a check has seen of a champion on probation, in the transaction that ends the check."""
    row = probations.open_of(conn, check.model)
    if row is None or saw.comparison is None or row.generation != check.generation:
        return
    evidence = replace(
        Evidence.from_json(row.evidence), event_time=check.window_until, comparison=saw.comparison
    ).to_json()
    # A promotion that no event time was known of is watched from the first check on.
    probations.note(conn, row, evidence=evidence, began_event_time=row.began_event_time or check.window_until)


class Probations:
    """The engine.

    Parameters
    ----------
    counted
        Told of each event: model, and one of ``extended``, ``pinned``, ``kept``, ``unproven``, ``rolled_back``,
        ``ended``, ``no_target``.
    """

    def __init__(self, *, counted: Callable[[str, str], None]) -> None:
        self._counted = counted
        self._written: dict[tuple[str, int], float] = {}

    def look(self, term: Term, known: Mapping[str, ModelRow]) -> None:
        """Look once at every champion on probation."""
        with term.database.read() as conn:
            rows = probations.all_open(conn)
        for row in rows:
            self._look(term, row, known.get(row.model))
        self._written = {key: at for key, at in self._written.items() if key in {(r.model, r.generation) for r in rows}}

    def _look(self, term: Term, row: ProbationRow, model: ModelRow | None) -> None:
        with term.database.read() as conn:
            champion = champions.current(conn, row.model)
            evidence = _gathered(conn, row)
            now = term.database.now(conn)
        if champion is None or champion.generation != row.generation:
            # Whoever changed the champion should have ended it: nothing may wait for it for ever.
            self._end(
                term, row, evidence, ProbationState.ENDED, RunState.SUPERSEDED, "superseded",
                "another champion took its place",
            )  # fmt: skip
            return
        watch = Watch(began_at=row.began_at, began_event_time=row.began_event_time, now=now, extended=row.extended)
        outcome = outcome_of(models.policy_of(model, Probation), evidence, watch)
        if outcome.step is Step.BREACH:
            self._breach(term, row, evidence, outcome)
        elif outcome.step is Step.KEPT:
            self._end(
                term, row, evidence, ProbationState.KEPT, RunState.SUCCEEDED, outcome.code, outcome.reason,
                counted="unproven" if outcome.code == "unproven" else "kept",
            )  # fmt: skip
        elif outcome.step is Step.EXTEND:
            with term.write() as conn:
                probations.note(
                    conn, row, extended=outcome.extended, code=None, reason=outcome.reason, evidence=evidence.to_json()
                )
            log.info(
                "probation_extended",
                extra=facts(model=row.model, version=row.version, times=outcome.extended, why=outcome.reason),
            )
            self._counted(row.model, "extended")
        else:
            self._watch_on(term, row, evidence, outcome)

    def _watch_on(self, term: Term, row: ProbationRow, evidence: Evidence, outcome: Outcome) -> None:
        key, now = (row.model, row.generation), time.monotonic()
        is_due = now - self._written.get(key, float("-inf")) >= WRITE_S
        is_news = evidence.to_json() != row.evidence or outcome.reason != row.reason
        if row.code is not None or (is_due and is_news):
            self._written[key] = now
            with term.write() as conn:
                probations.note(conn, row, code=None, reason=outcome.reason, evidence=evidence.to_json())

    def _breach(self, term: Term, row: ProbationRow, evidence: Evidence, outcome: Outcome) -> None:
        with term.database.read() as conn:
            if row.code == outcome.code and "pin" in models.switches(conn, row.model):
                return  # told already
        with term.write() as conn:
            row_now = probations.open_of(conn, row.model)
            if row_now is None or row_now.generation != row.generation:
                return  # somebody took it back a moment ago
            is_pinned = "pin" in models.switches(conn, row.model)
            targets = [] if is_pinned else probations.rollback_targets(conn, row.model)
            if is_pinned:
                self._tell_pinned(term, conn, row_now, evidence, outcome)
                return
            if targets:
                _take_back(term, conn, row_now, evidence, outcome, target=targets[0])
        if targets:
            log.error(
                "champion_rolled_back",
                extra=facts(model=row.model, version=row.version, to=targets[0], code=outcome.code, why=outcome.reason),
            )
            self._counted(row.model, "rolled_back")
            return
        reason = f"{outcome.reason}; it serves on, for no version is left to go back to"
        log.error("no_version_to_go_back_to", extra=facts(model=row.model, version=row.version, why=reason))
        self._end(
            term, row, evidence, ProbationState.ENDED, RunState.SUCCEEDED, "no_target", reason, counted="no_target"
        )

    def _tell_pinned(
        self, term: Term, conn: Connection, row: ProbationRow, evidence: Evidence, outcome: Outcome
    ) -> None:
        at = term.database.now(conn)
        probations.note(conn, row, code=outcome.code, reason=outcome.reason, evidence=evidence.to_json())
        audit.append(
            conn,
            actor=ACTOR,
            action="probation_breach_pinned",
            model=row.model,
            subject=f"generation {row.generation}",
            reason=f"{outcome.reason}; the champion is pinned, so it stays",
            facts={"version": row.version, "code": outcome.code},
            at=at,
        )
        notices.probation_failed(conn, row, outcome="pinned", code=outcome.code, reason=outcome.reason, at=at)
        log.error(
            "probation_breach_pinned",
            extra=facts(model=row.model, version=row.version, code=outcome.code, why=outcome.reason),
        )
        self._counted(row.model, "pinned")

    def _end(
        self,
        term: Term,
        row: ProbationRow,
        evidence: Evidence,
        state: ProbationState,
        run_state: RunState,
        code: str,
        reason: str,
        *,
        counted: str = "ended",
    ) -> None:
        with term.write() as conn:
            if probations.note(conn, row, evidence=evidence.to_json()) is None:
                return
            probations.end(
                conn,
                row,
                state,
                run_state=run_state,
                code=code,
                reason=reason,
                actor=ACTOR,
                at=term.database.now(conn),
                event_time=_stands(row, evidence),
                token=term.token,
            )
        log.info(
            "probation_ended",
            extra=facts(model=row.model, version=row.version, state=state.value, code=code, why=reason),
        )
        self._counted(row.model, counted)


def _take_back(
    term: Term, conn: Connection, row: ProbationRow, evidence: Evidence, outcome: Outcome, *, target: int
) -> None:
    at, event_time = term.database.now(conn), _stands(row, evidence)
    reason = f"version {row.version} disappointed on probation: {outcome.reason}"
    champions.swap(
        conn,
        row.model,
        version=target,
        expected_generation=row.generation,
        actor=ACTOR,
        reason=reason,
        kind="rollback",
        run_id=row.run_id,
        event_time=event_time,
        at=at,
    )
    versions.set_state(conn, row.model, row.version, VersionState.QUARANTINED)
    _drop_call(term, conn, row, at)
    probations.note(conn, row, evidence=evidence.to_json())
    probations.end(
        conn,
        row,
        ProbationState.ROLLED_BACK,
        run_state=RunState.ROLLED_BACK,
        code=outcome.code,
        reason=outcome.reason,
        actor=ACTOR,
        at=at,
        event_time=event_time,
        token=term.token,
    )


def _drop_call(term: Term, conn: Connection, row: ProbationRow, at: datetime) -> None:
    """End a run that has not begun and that only the champion's own failure called for: the rollback is the answer."""
    run = runs.active(conn, row.model)
    if run is not None and run.state is RunState.QUEUED and run.trigger in AUTOMATIC:
        reason = f"version {row.version}, which called for it, was taken back"
        runs.transition(
            conn, run.id, RunState.SUPERSEDED, actor=ACTOR, reason=reason, at=at, token=term.token,
            code="superseded", detail=reason,
        )  # fmt: skip


def _gathered(conn: Connection, row: ProbationRow) -> Evidence:
    """Return the stored evidence with the health of now.

    Replicas that restart count anew, and have never held the generation before: the fullest count that was ever seen
    of that one, which grows no more, is the one to measure by.
    """
    stored = Evidence.from_json(row.evidence)
    live = {replica.id for replica in replicas.live(conn, LIVE_S)}
    found = [held.health or {} for held in replicas.serving(conn, row.model) if held.replica_id in live]
    before = _summed(found, row.generation - 1)
    return replace(
        stored,
        health=_summed(found, row.generation),
        before=before if before.rows >= stored.before.rows else stored.before,
    )


def _summed(found: list[dict[str, dict[str, float]]], generation: int) -> Health:
    of = [health[str(generation)] for health in found if str(generation) in health]
    return Health(
        answered=sum(int(one.get("answered", 0)) for one in of),
        failed=sum(int(one.get("failed", 0)) for one in of),
        batches=sum(int(one.get("batches", 0)) for one in of),
        seconds=round(sum(float(one.get("seconds", 0.0)) for one in of), 6),
    )


def _stands(row: ProbationRow, evidence: Evidence) -> datetime | None:
    """Return where the data stand, as far as checks have looked."""
    return max((moment for moment in (row.began_event_time, evidence.event_time) if moment is not None), default=None)
