"""Swap by agreement: every live replica pre-loads and verifies the version, then one transaction moves the champion.

A replica that cannot load stops it, the old champion serves on everywhere. One that died holds nobody up for longer
than its heartbeat. The commit puts the new champion on probation, which keeps the next automatic promotion waiting.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from service.control.leader import Term
from service.control.probation import begin
from service.control.setbacks import set_back
from service.domain.errors import ArtifactInvalid, Conflict, GenerationMismatch, LakeUnavailable
from service.domain.probation import ProbationState
from service.domain.retry import Setback
from service.domain.run import RunState
from service.domain.version import VersionState
from service.journal import facts
from service.storage import audit, champions, checks, models, probations, replicas, runs, versions
from service.storage.artifacts import ArtifactStore
from service.storage.champions import Champion, Swap
from service.storage.probations import ProbationRow
from service.storage.runs import Run

__all__ = ["ACTOR", "HOLDING", "Agreement", "advance", "agreement", "propose", "resume"]

log = logging.getLogger(__name__)

ACTOR = "controller"
LIVE_S = 6.0
"""A replica that was silent for so long is taken for dead: three missed heartbeats."""
PATIENCE_S = 120.0
"""A live replica that has not answered for so long stops the swap."""
HOLDING = frozenset({"pin", "freeze", "hold"})
"""Switches that leave a promotion to a person."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What the live replicas say of a waiting swap."""

    live: int
    ready: int
    refusals: tuple[str, ...]
    since: datetime | None = None
    """When the youngest live replica started: before that it could not answer."""

    @property
    def is_complete(self) -> bool:
        """Whether nobody is left to wait for."""
        return self.ready == self.live and not self.refusals


def agreement(conn: Connection, swap: Swap) -> Agreement:
    """Return what the live replicas have answered so far; a refusal counts even when its replica has gone since."""
    fresh = champions.find_swap(conn, swap.id) or swap
    living = replicas.live(conn, LIVE_S)
    live = {replica.id for replica in living}
    answers = [row for row in replicas.serving(conn, swap.model) if row.replica_id in live and row.swap_id == swap.id]
    return Agreement(
        live=len(live),
        ready=sum(bool(row.swap_ready) for row in answers),
        refusals=() if fresh.error is None else (fresh.error,),
        since=max((replica.started_at for replica in living), default=None),
    )


def propose(term: Term, run: Run) -> None:
    """Ask the replicas to get ready for the version of a run that is promoting; idempotent."""
    with term.write() as conn:
        if runs.lock(conn, run.id).state is not RunState.PROMOTING:
            return  # somebody cancelled it a moment ago
        if run.version is None or any(swap.run_id == run.id for swap in champions.waiting(conn, run.model)):
            return
        if _was_committed(conn, term, run) or _waits(conn, term, run):
            return
        before = champions.current(conn, run.model)
        if before is not None and before.version == run.version:
            words = f"version {run.version} was made champion by hand"
            _end(conn, term, run, RunState.SUCCEEDED, reason=words, code="promoted_by_person")
            return
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
            log.info("promotion_behind_another", extra=facts(run=run.id, model=run.model, why=error.detail))


def resume(term: Term, run: Run) -> None:
    """Let a run go on that a switch held, once no switch does: clearing it is what a person decided.

    The run waits on while another one is active or a champion is on probation; `propose` has it judged again if the
    champion has changed.
    """
    with term.database.read() as conn:
        is_held = HOLDING & models.switches(conn, run.model).keys()
        if is_held or runs.active(conn, run.model) or probations.open_of(conn, run.model):
            return
    reason = "no switch holds it any more"
    with term.write() as conn:
        at = term.database.now(conn)
        runs.transition(
            conn, run.id, RunState.PROMOTING, actor=ACTOR, reason=reason, at=at, token=term.token, code="gate_pass"
        )


def advance(
    term: Term,
    swap: Swap,
    *,
    watermark: Callable[[str], datetime | None] | None = None,
    store: ArtifactStore | None = None,
) -> str | None:
    """Commit or end a waiting swap if it is time; return ``committed``, ``failed`` or None.

    Parameters
    ----------
    watermark
        Newest event time that the lake holds of a model: where a promotion by hand stands in event time.
    store
        Where the artifact is read once more when there is no replica that could.

    Notes
    -----
    Where replicas have served the model before, a swap waits for one: workers that are all being restarted at the
    moment once agreed, by their silence, to a version that none of them could load.
    """
    with term.database.read() as conn:
        said = agreement(conn, swap)
        age_s = (term.database.now(conn) - max(swap.created_at, said.since or swap.created_at)).total_seconds()
        is_served = said.live == 0 and champions.was_served(conn, swap.model)
    if said.refusals:
        _fail(term, swap, f"a replica cannot load version {swap.version}: {said.refusals[0]}", is_unfit=True)
        return "failed"
    if is_served:
        return None
    if said.live == 0 and store is not None and (why := _unreadable(term, swap, store)):
        _fail(term, swap, why, is_unfit=True)
        return "failed"
    if said.is_complete:
        return _commit(term, swap, said, stands=swap.event_time or _stands(term, swap, watermark))
    if age_s > PATIENCE_S:
        words = f"{said.live - said.ready} of {said.live} replicas gave no answer in {PATIENCE_S:.0f} s"
        _fail(term, swap, words, is_unfit=False)
        return "failed"
    return None


def _unreadable(term: Term, swap: Swap, store: ArtifactStore) -> str | None:
    with term.database.read() as conn:
        row = versions.get(conn, swap.model, swap.version)
    try:
        store.read(row.artifact)
    except ArtifactInvalid as error:
        return error.detail
    return None


def _commit(term: Term, swap: Swap, said: Agreement, *, stands: datetime | None) -> str:
    kind: champions.SwapKind = "promote" if swap.kind == "promote" else "rollback"
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
                kind=kind,
                run_id=swap.run_id,
                event_time=stands,
                at=at,
                swap_id=swap.id,
            )
            probations.give_way(
                conn, swap.model, is_rollback=kind == "rollback", actor=swap.actor, at=at, event_time=stands,
                reason=f"version {swap.version} took its place: {swap.reason}", token=term.token,
            )  # fmt: skip
            _follow_up(conn, term, swap, after, stands=stands)
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


def _follow_up(conn: Connection, term: Term, swap: Swap, after: Champion, *, stands: datetime | None) -> None:
    """Begin the new champion's probation, and take its run there; without one the run has succeeded at once."""
    watched = None
    if swap.kind == "promote":
        watched = begin(conn, after, run_id=swap.run_id, event_time=stands, actor=swap.actor)
    if swap.run_id is not None:
        run = runs.get(conn, swap.run_id)
        words = f"version {swap.version} is champion, generation {after.generation}"
        _end(conn, term, run, RunState.PROBATION if watched else RunState.SUCCEEDED, reason=words, code="promoted")


def _stands(term: Term, swap: Swap, watermark: Callable[[str], datetime | None] | None) -> datetime | None:
    """Return where the data stand for a promotion that came without event time, which a person asked for.

    The watermark of this moment; while the lake cannot tell, the end of the newest check's window. None for a model
    that has answered nothing yet: its watch begins with the first check.
    """
    try:
        newest = watermark(swap.model) if watermark is not None else None
    except LakeUnavailable as error:
        log.warning("promotion_undated", extra=facts(model=swap.model, why=error.detail))
        newest = None
    with term.database.read() as conn:
        check = checks.latest_done(conn, swap.model)
    return newest or (None if check is None else check.window_until)


def _was_committed(conn: Connection, term: Term, run: Run) -> bool:
    """Write down what has become of a run whose swap is committed: the pointer moved, and its leader died."""
    swap = next(
        (one for one in champions.history(conn, run.model) if one.run_id == run.id and one.kind == "promote"), None
    )
    if swap is None:
        return False
    row, now = probations.of_run(conn, run.id), champions.current(conn, run.model)
    if row is None and now is not None and now.generation == swap.generation:
        row = begin(conn, now, run_id=run.id, event_time=swap.event_time, actor=ACTOR)
    words = "the champion had moved already"
    if row is None:
        _end(conn, term, run, RunState.SUCCEEDED, reason=words, code="promoted")
        return True
    _end(conn, term, run, RunState.PROBATION, reason=words, code="promoted")
    if row.state is not ProbationState.WATCHING:
        probations.end_run(
            conn, run.id, _end_of(row), code=row.code or "promoted", reason=row.reason or words, actor=ACTOR,
            at=term.database.now(conn), event_time=row.ended_event_time, token=term.token,
        )  # fmt: skip
    return True


def _end_of(row: ProbationRow) -> RunState:
    if row.state is ProbationState.KEPT or row.code == "no_target":
        return RunState.SUCCEEDED
    if row.state is ProbationState.ROLLED_BACK or row.code == "rolled_back_by_person":
        return RunState.ROLLED_BACK
    return RunState.SUPERSEDED


def _waits(conn: Connection, term: Term, run: Run) -> bool:
    """Return whether the run has to wait for the champion's probation to end: nobody approved it in person."""
    watched = probations.open_of(conn, run.model)
    if watched is None or run.code != "gate_pass":
        return False
    words = f"waits until the probation of version {watched.version} is over"
    if (run.progress or {}).get("words") != words:
        at = term.database.now(conn)
        runs.progress(conn, run.id, at=at, token=term.token, step="waiting", done=0, of=1, words=words)
        log.info("promotion_waits", extra=facts(run=run.id, model=run.model, why=words))
    return True


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
    at = term.database.now(conn)
    run = runs.transition(conn, run.id, RunState.EVALUATING, actor=ACTOR, reason=reason, at=at, token=term.token)
    set_back(conn, run, Setback.CHAMPION_CHANGED, why=reason, actor=ACTOR, at=at, token=term.token)


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
