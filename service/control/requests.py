"""What a person may ask of runs: begin, cancel, approve, reject. Each in one transaction with its audit row."""

from typing import Any

from sqlalchemy import Connection

from service.control.setbacks import drop_version
from service.domain.errors import GenerationMismatch, NotAllowedNow, OutOfDate, RunInProgress
from service.domain.run import WORKING, RunState, Trigger
from service.storage import audit, champions, models, runs, versions
from service.storage.database import now
from service.storage.runs import Run

__all__ = ["approve", "ask", "cancel", "refuse_switched", "reject"]

S = RunState
COMMITTED = frozenset({S.PROBATION, S.SUCCEEDED, S.ROLLED_BACK})


def ask(
    conn: Connection,
    model: str,
    *,
    actor: str,
    reason: str,
    force: bool = False,
    coalesce: bool = False,
    idempotency_key: str | None = None,
    request_digest: str | None = None,
) -> Run:
    """Queue a run.

    Parameters
    ----------
    coalesce
        What to do when a run is in the way. It is refused, or the two become one: the run in the way, if it does all
        that is asked or is under way already; else the new one, in the place of a queued one that would do less (it
        is not forced, or looks no further than the check that called for it).

    Raises
    ------
    UnknownModel
        If there is no such model.
    RunInProgress
        If a run is in the way and may not be joined; ``facts["run"]`` names it.
    NotAllowedNow
        If the model is frozen.
    """
    models.get(conn, model)
    refuse_switched(conn, model, "freeze", what="trains nothing")
    before = {run.id for run in runs.list_of(conn, model, limit=1)}
    at = now(conn)

    def created() -> Run:
        return runs.create(
            conn, model, trigger=Trigger.MANUAL, actor=actor, reason=reason, at=at, force=force,
            idempotency_key=idempotency_key, request_digest=request_digest,
        )  # fmt: skip

    action = "run_asked"
    try:
        run = created()
    except RunInProgress:
        other = runs.active(conn, model) if coalesce else None
        if other is None or other.state is S.CANCELLING:
            raise
        other = runs.lock(conn, other.id)
        if other.state is S.QUEUED and (other.until is not None or (force and not other.force)):
            words = f"a newer request does more: {reason}"
            runs.transition(
                conn, other.id, S.SUPERSEDED, actor=actor, reason=words, at=at, code="superseded", detail=words
            )
            run = created()
        else:
            run, action = other, "run_joined"
    if action == "run_joined" or (run.requested_at == at and run.id not in before):
        audit.append(
            conn, actor=actor, action=action, model=model, subject=run.id, reason=reason, facts={"force": force}, at=at
        )
    return run


def cancel(conn: Connection, run_id: str, *, actor: str, reason: str) -> Run:
    """End a run whose version is not champion yet; asking twice changes nothing.

    Raises
    ------
    UnknownRun
        If there is no such run.
    NotAllowedNow
        If it has ended, or its version was made champion: that is taken back by a rollback.
    """
    run = runs.get(conn, run_id)
    if run.state is S.PROMOTING:
        # The swap's row first, as its commit does: whoever comes second waits there, and finds it ended.
        _end_swaps(conn, run, actor)
        run = runs.lock(conn, run_id)
        _end_swaps(conn, run, actor)  # one that was asked for in between
    else:
        run = runs.lock(conn, run_id)
    if run.state in {S.CANCELLING, S.CANCELLED}:
        return run
    if run.state in WORKING:
        return _decided(conn, run, S.CANCELLING, "cancel", actor=actor, reason=reason)
    if run.state in {S.QUEUED, S.AWAITING_LABELS, S.AWAITING_APPROVAL, S.PROMOTING}:
        drop_version(conn, run)
        return _decided(conn, run, S.CANCELLED, "cancel", actor=actor, reason=reason, code="cancelled_by_person")
    raise _too_late(run)


def approve(conn: Connection, run_id: str, *, seen: int | None, actor: str, reason: str) -> Run:
    """Let a waiting challenger be promoted.

    Parameters
    ----------
    seen
        The run's revision that the person looked at; None for whatever it is now.

    Raises
    ------
    OutOfDate
        If the run has moved since.
    GenerationMismatch
        If the champion is no longer the one that the challenger was judged against.
    NotAllowedNow
        If the run awaits no approval, or a switch forbids it.
    """
    run = _waiting(conn, run_id, seen)
    refuse_switched(conn, run.model, "freeze", "pin", what="promotes nothing")
    champion = champions.current(conn, run.model)
    now_serving = None if champion is None else champion.version
    judged_against = None if run.version is None else versions.get(conn, run.model, run.version).parent
    if judged_against != now_serving:
        msg = (
            f"version {run.version} was judged against version {judged_against}, and the champion is version "
            f"{now_serving} by now: the run is judged again, look at it then"
        )
        raise GenerationMismatch(msg, run=run_id, version=now_serving, generation=champion and champion.generation)
    return _decided(conn, run, S.PROMOTING, "approve", actor=actor, reason=reason, code="approved")


def reject(conn: Connection, run_id: str, *, seen: int | None, actor: str, reason: str) -> Run:
    """Turn a waiting challenger down; see `approve`."""
    run = _waiting(conn, run_id, seen)
    drop_version(conn, run)
    return _decided(
        conn, run, S.REJECTED, "reject", actor=actor, reason=reason, code="rejected_by_person", detail=reason
    )


def refuse_switched(conn: Connection, model: str, *names: str, what: str) -> None:
    """Raise `NotAllowedNow` if one of the switches is set."""
    found = models.switches(conn, model)
    for name in names:
        if name in found:
            msg = f"the switch {name} is set, so the model {what}: {found[name].reason}"
            raise NotAllowedNow(msg, model=model, switch=name)


def _waiting(conn: Connection, run_id: str, seen: int | None) -> Run:
    run, revision = runs.lock(conn, run_id), runs.revision(conn, run_id)
    if seen is not None and seen != revision:
        msg = f"the run has moved since you looked: it is {run.state.value} at revision {revision}, not {seen}"
        raise OutOfDate(msg, run=run_id, state=run.state.value, revision=revision)
    if run.state is not S.AWAITING_APPROVAL:
        msg = f"the run is {run.state.value}; only one that awaits approval can be decided"
        raise NotAllowedNow(msg, run=run_id, state=run.state.value)
    return run


def _decided(
    conn: Connection, run: Run, after: RunState, action: str, *, actor: str, reason: str, **columns: Any
) -> Run:
    at = now(conn)
    moved = runs.transition(conn, run.id, after, actor=actor, reason=reason, at=at, **columns)
    audit.append(
        conn, actor=actor, action=f"run_{action}", model=run.model, subject=run.id, reason=reason, at=at,
        facts={"before": run.state.value, "after": after.value},
    )  # fmt: skip
    return moved


def _end_swaps(conn: Connection, run: Run, actor: str) -> None:
    for swap in champions.waiting(conn, run.model):
        if swap.run_id == run.id:
            try:
                champions.fail_swap(conn, swap.id, error=f"{actor} cancelled the run", at=now(conn))
            except NotAllowedNow:
                raise _too_late(runs.get(conn, run.id)) from None


def _too_late(run: Run) -> NotAllowedNow:
    if run.state in COMMITTED:
        msg = f"the run is {run.state.value}: version {run.version} was made champion; take it back with a rollback"
    else:
        msg = f"the run is {run.state.value}: it can't be cancelled any more"
    return NotAllowedNow(msg, run=run.id, state=run.state.value)
