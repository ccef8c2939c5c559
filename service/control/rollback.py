"""A rollback by hand: the champion is taken back in one transaction, with its probation, its run and the hold.

No round of agreement: the version before is still warm in every replica. Nothing promotes by itself until a person
clears `hold`.
"""

from sqlalchemy import Connection

from service.control.requests import refuse_switched
from service.domain.errors import NotAllowedNow
from service.domain.version import VersionState
from service.storage import champions, checks, models, probations, versions
from service.storage.champions import Champion
from service.storage.database import now

__all__ = ["roll_back"]


def roll_back(conn: Connection, model: str, *, to: int | None, actor: str, reason: str) -> Champion:
    """Make an earlier version champion again.

    Parameters
    ----------
    to
        Which one; the last version that was kept when None, and that was not taken back itself.

    Raises
    ------
    UnknownModel, UnknownVersion
        If there is no such model or version.
    NotAllowedNow
        If the champion is pinned, or no version, or not that one, can be gone back to.
    GenerationMismatch
        If the champion has changed at the same moment.
    """
    models.get(conn, model)
    refuse_switched(conn, model, "pin", what="changes no champion")
    current, at = champions.current(conn, model), now(conn)
    if current is None:
        msg = "the model has no champion that could be taken back"
        raise NotAllowedNow(msg, model=model)
    target = _last_kept(conn, model) if to is None else _named(conn, current, to)
    seen = checks.latest_done(conn, model)
    stands = None if seen is None else seen.window_until
    champion = champions.swap(
        conn,
        model,
        version=target,
        expected_generation=current.generation,
        actor=actor,
        reason=reason,
        kind="rollback",
        run_id=None,
        event_time=stands,
        at=at,
    )
    probations.give_way(conn, model, is_rollback=True, actor=actor, reason=reason, at=at, event_time=stands)
    why = f"rolled back from version {current.version}: {reason}"
    models.set_switch(conn, model, "hold", value=True, actor=actor, reason=why, at=at)
    return champion


def _last_kept(conn: Connection, model: str) -> int:
    kept = probations.rollback_targets(conn, model)
    if not kept:
        msg = "there is no version before this one that was kept and can answer: name one"
        raise NotAllowedNow(msg, model=model)
    if (taken := champions.taken_back(conn, model).get(kept[0])) is not None:
        msg = (
            f"only version {kept[0]} is left to go back to, and {taken.actor} took it back: {taken.reason}. Name it to "
            "let it answer again"
        )
        raise NotAllowedNow(msg, model=model, version=kept[0])
    return kept[0]


def _named(conn: Connection, current: Champion, target: int) -> int:
    model = current.model
    state = versions.get(conn, model, target).state
    why = None
    if target == current.version:
        why = f"version {target} is the champion already"
    elif state is VersionState.QUARANTINED:
        why = f"version {target} is quarantined: name another one"
    elif state is VersionState.ARCHIVED:
        why = f"version {target} is archived, its artifact is gone: name another one"
    elif target not in {swap.version for swap in champions.history(conn, model)}:
        why = f"version {target} was never champion: promote it instead"
    if why is not None:
        raise NotAllowedNow(why, model=model, version=target)
    return target
