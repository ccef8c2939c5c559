"""Swap by agreement: every live replica pre-loads and verifies the version, then one transaction moves the champion.

A replica that cannot load stops it, the old champion serves on everywhere. One that died holds nobody up for longer
than its heartbeat.
"""

import logging
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from service.control.leader import Term
from service.domain.errors import Conflict, GenerationMismatch
from service.domain.run import RunState
from service.domain.version import VersionState
from service.journal import facts
from service.storage import audit, champions, models, replicas, runs, versions
from service.storage.champions import Swap
from service.storage.runs import Run

__all__ = ["ACTOR", "HOLDING", "Agreement", "advance", "agreement", "propose"]

log = logging.getLogger(__name__)

ACTOR = "controller"
LIVE_S = 6.0
"""A replica that was silent for so long is taken for dead: three missed heartbeats."""
PATIENCE_S = 120.0
"""A live replica that has not answered for so long stops the swap."""
MOST_ATTEMPTS = 3
HOLDING = frozenset({"pin", "freeze", "hold"})
"""Switches that leave a promotion to a person."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What the live replicas say of a waiting swap."""

    live: int
    ready: int
    refusals: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nobody is left to wait for."""
        return self.ready == self.live and not self.refusals


def agreement(conn: Connection, swap: Swap) -> Agreement:
    """Return what the live replicas have answered so far."""
    live = {replica.id for replica in replicas.live(conn, LIVE_S)}
    answers = [row for row in replicas.serving(conn, swap.model) if row.replica_id in live and row.swap_id == swap.id]
    return Agreement(
        live=len(live),
        ready=sum(bool(row.swap_ready) for row in answers),
        refusals=tuple(row.error or "no reason given" for row in answers if row.swap_ready is False),
    )


def propose(term: Term, run: Run) -> None:
    """Ask the replicas to get ready for the version of a run that is promoting; idempotent."""
    with term.write() as conn:
        if run.version is None or any(swap.run_id == run.id for swap in champions.waiting(conn, run.model)):
            return
        if any(swap.run_id == run.id for swap in champions.history(conn, run.model)):
            # The pointer moved, and the leader died before it wrote so: it only has to be written.
            _end(conn, term, run, RunState.SUCCEEDED, reason="the champion had moved already", code="promoted")
            return
        before = champions.current(conn, run.model)
        judged_against = versions.get(conn, run.model, run.version).parent
        if (None if before is None else before.version) != judged_against:
            _again(conn, term, run, reason="the champion changed after the challenger was judged")
            return
        held = sorted(HOLDING & models.switches(conn, run.model).keys())
        if held and run.code == "gate_pass":
            _hand_over(conn, term, run, reason=f"{' and '.join(held)} is on: a person decides")
            return
        try:
            champions.request_swap(
                conn,
                run.model,
                version=run.version,
                expected_generation=before.generation if before else 0,
                actor=ACTOR,
                reason=run.reason,
                kind="promote",
                run_id=run.id,
                event_time=run.until,
                at=term.database.now(conn),
            )
        except Conflict as error:
            # An operator's swap goes first; the run waits for it.
            log.info("promotion_waits", extra=facts(run=run.id, model=run.model, why=error.detail))


def advance(term: Term, swap: Swap) -> str | None:
    """Commit or end a waiting swap if it is time; return ``committed``, ``failed`` or None."""
    with term.database.read() as conn:
        said = agreement(conn, swap)
        age_s = (term.database.now(conn) - swap.created_at).total_seconds()
    if said.refusals:
        _fail(term, swap, f"a replica cannot load version {swap.version}: {said.refusals[0]}", is_unfit=True)
        return "failed"
    if said.is_complete:
        return _commit(term, swap, said)
    if age_s > PATIENCE_S:
        words = f"{said.live - said.ready} of {said.live} replicas gave no answer in {PATIENCE_S:.0f} s"
        _fail(term, swap, words, is_unfit=False)
        return "failed"
    return None


def _commit(term: Term, swap: Swap, said: Agreement) -> str:
    try:
        with term.write() as conn:
            at = term.database.now(conn)
            after = champions.swap(
                conn,
                swap.model,
                version=swap.version,
                expected_generation=swap.expected_generation,
                actor=swap.actor,
                reason=swap.reason,
                kind="promote" if swap.kind == "promote" else "rollback",
                run_id=swap.run_id,
                event_time=swap.event_time,
                at=at,
                swap_id=swap.id,
            )
            if swap.run_id is not None:
                run = runs.get(conn, swap.run_id)
                words = f"version {swap.version} is champion, generation {after.generation}"
                _end(conn, term, run, RunState.SUCCEEDED, reason=words, code="promoted")
    except GenerationMismatch as error:
        with term.write() as conn:
            champions.fail_swap(conn, swap.id, error=error.detail, at=term.database.now(conn))
            if swap.run_id is not None:
                _again(conn, term, runs.get(conn, swap.run_id), reason=error.detail)
        return "failed"
    log.info(
        "swap_done",
        extra=facts(model=swap.model, version=swap.version, generation=after.generation, replicas=said.live),
    )
    return "committed"


def _fail(term: Term, swap: Swap, why: str, *, is_unfit: bool) -> None:
    with term.write() as conn:
        at = term.database.now(conn)
        champions.fail_swap(conn, swap.id, error=why, at=at)
        if is_unfit:
            versions.set_state(conn, swap.model, swap.version, VersionState.QUARANTINED)
        audit.append(
            conn,
            actor=ACTOR,
            action="swap_failed",
            model=swap.model,
            subject=f"version {swap.version}",
            reason=why,
            facts={"swap": swap.id, "run": swap.run_id},
            at=at,
        )
        if swap.run_id is not None:
            run = runs.get(conn, swap.run_id)
            _end(conn, term, run, RunState.FAILED, reason=why, code="load" if is_unfit else "load_timeout")
    log.error("swap_failed", extra=facts(model=swap.model, version=swap.version, why=why))


def _again(conn: Connection, term: Term, run: Run, *, reason: str) -> None:
    """Judge once more, against the champion of now."""
    if run.version is not None:
        versions.set_state(conn, run.model, run.version, VersionState.REJECTED)
    if run.attempt >= MOST_ATTEMPTS:
        _end(conn, term, run, RunState.FAILED, reason=reason, code="champion_changed")
        return
    at = term.database.now(conn)
    runs.transition(conn, run.id, RunState.EVALUATING, actor=ACTOR, reason=reason, at=at, token=term.token)
    runs.transition(
        conn,
        run.id,
        RunState.QUEUED,
        actor=ACTOR,
        reason="judged again",
        at=at,
        token=term.token,
        attempt=run.attempt + 1,
    )


def _hand_over(conn: Connection, term: Term, run: Run, *, reason: str) -> None:
    at = term.database.now(conn)
    runs.transition(conn, run.id, RunState.EVALUATING, actor=ACTOR, reason=reason, at=at, token=term.token)
    runs.transition(
        conn, run.id, RunState.AWAITING_APPROVAL, actor=ACTOR, reason=reason, at=at, token=term.token, code="held"
    )


def _end(conn: Connection, term: Term, run: Run, after: RunState, *, reason: str, code: str) -> None:
    decided: datetime | None = run.decided_event_time or run.until
    runs.transition(
        conn,
        run.id,
        after,
        actor=ACTOR,
        reason=reason,
        at=term.database.now(conn),
        token=term.token,
        code=code,
        detail=reason,
        decided_event_time=decided,
    )
