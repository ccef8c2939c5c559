"""What a person may ask of a model beside runs: a check, a champion by hand, a switch. Each with its audit row."""

from sqlalchemy import Connection

from service.control.requests import refuse_switched
from service.domain.errors import NotAllowedNow
from service.domain.version import VersionState
from service.storage import audit, champions, checks, models, versions
from service.storage.champions import Swap
from service.storage.checks import Check
from service.storage.database import now
from service.storage.models import Switch

__all__ = ["check", "clear_switch", "promote", "set_switch"]


def check(conn: Connection, model: str, *, actor: str, reason: str) -> Check:
    """Queue a check of the newest window; one that is under way already is returned instead.

    Raises
    ------
    UnknownModel
        If there is no such model.
    NotAllowedNow
        If it has no champion whose reference the window could be compared with.
    """
    models.get(conn, model)
    if champions.current(conn, model) is None:
        msg = "the model has no champion yet, so there is nothing to compare with"
        raise NotAllowedNow(msg, model=model)
    at = now(conn)
    found = checks.create(conn, model, actor=actor, at=at)
    audit.append(conn, actor=actor, action="check_asked", model=model, subject=found.id, reason=reason, at=at)
    return found


def promote(conn: Connection, model: str, *, version: int, expected: int, actor: str, reason: str) -> Swap:
    """Ask that `version` become champion, once every worker has loaded it.

    Parameters
    ----------
    expected
        The champion's generation that the person looked at; 0 while there is none.

    Raises
    ------
    UnknownModel, UnknownVersion
        If there is no such model or version.
    NotAllowedNow
        If a switch forbids it, or the version can't or need not be promoted.
    GenerationMismatch
        If the champion has changed since.
    Conflict
        If another change of champion waits.
    """
    models.get(conn, model)
    row, at = versions.get(conn, model, version), now(conn)
    refuse_switched(conn, model, "freeze", "pin", what="changes no champion")
    current = champions.current(conn, model)
    if row.state in {VersionState.QUARANTINED, VersionState.ARCHIVED}:
        is_gone = row.state is VersionState.ARCHIVED
        why = "archived: its artifact is gone" if is_gone else "quarantined: it did not load, or disappointed"
        msg = f"version {version} is {why}"
        raise NotAllowedNow(msg, model=model, version=version)
    if current is not None and current.version == version and current.generation == expected:
        msg = f"version {version} is the champion already"
        raise NotAllowedNow(msg, model=model, version=version)
    swap_id = champions.request_swap(
        conn, model, version=version, expected_generation=expected, actor=actor, reason=reason, kind="promote",
        run_id=None, event_time=None, at=at,
    )  # fmt: skip
    audit.append(
        conn, actor=actor, action="promotion_asked", model=model, subject=swap_id, reason=reason, at=at,
        facts={"version": version, "expected_generation": expected},
    )  # fmt: skip
    swap = champions.find_swap(conn, swap_id)
    if swap is None:
        msg = "the promotion was asked for and is gone"
        raise NotAllowedNow(msg, swap=swap_id)
    return swap


def set_switch(conn: Connection, model: str, switch: str, *, actor: str, reason: str) -> Switch:
    """Set a switch of the model, or set it anew."""
    at = now(conn)
    done = models.set_switch(conn, model, switch, value=True, actor=actor, reason=reason, at=at)
    audit.append(conn, actor=actor, action="switch_set", model=model, subject=switch, reason=reason, at=at)
    return done


def clear_switch(conn: Connection, model: str, switch: str, *, actor: str, reason: str) -> bool:
    """Clear a switch of the model; return whether it was set."""
    models.get(conn, model)
    was_set = models.clear_switch(conn, model, switch)
    if was_set:
        at = now(conn)
        audit.append(conn, actor=actor, action="switch_cleared", model=model, subject=switch, reason=reason, at=at)
    return was_set
