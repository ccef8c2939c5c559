"""Champions: which version answers. The pointer moves only by compare-and-set on its generation."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, select, update

from service.domain.errors import Conflict, GenerationMismatch, NotAllowedNow
from service.domain.version import VersionState
from service.storage import audit, notices, versions
from service.storage.database import insert_new
from service.storage.ids import new_id
from service.storage.tables import champions, swaps

__all__ = [
    "Champion",
    "Swap",
    "SwapKind",
    "all_current",
    "current",
    "fail_swap",
    "find_swap",
    "history",
    "request_swap",
    "settle",
    "swap",
    "taken_back",
    "unsettled",
    "waiting",
    "was_served",
]

SwapKind = Literal["promote", "rollback"]


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The version that answers, under its generation."""

    model: str
    version: int
    generation: int
    previous_version: int | None
    changed_at: datetime
    changed_by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Swap:
    """One change of champion: waiting for the replicas, committed, or failed."""

    id: str
    model: str
    version: int
    kind: str
    state: str
    expected_generation: int
    generation: int | None
    previous_version: int | None
    run_id: str | None
    actor: str
    reason: str
    error: str | None
    created_at: datetime
    ended_at: datetime | None
    event_time: datetime | None
    settled_at: datetime | None = None


def current(conn: Connection, model: str) -> Champion | None:
    """Return the model's champion; None while it has none."""
    row = conn.execute(select(champions).where(champions.c.model == model)).mappings().one_or_none()
    return None if row is None else Champion(**row)


def all_current(conn: Connection) -> list[Champion]:
    """Return all champions by model."""
    return [Champion(**row) for row in conn.execute(select(champions).order_by(champions.c.model)).mappings()]


def swap(
    conn: Connection,
    model: str,
    *,
    version: int,
    expected_generation: int,
    actor: str,
    reason: str,
    kind: SwapKind,
    run_id: str | None,
    event_time: datetime | None,
    at: datetime,
    swap_id: str | None = None,
) -> Champion:
    """Make `version` the champion, if the generation is still the expected one.

    All of it in the caller's transaction: the pointer, the committed swap, the states of both versions, the audit.

    Parameters
    ----------
    expected_generation
        What the caller saw; 0 for a model without a champion.
    swap_id
        The waiting swap that this commits; a new row is written without it.

    Raises
    ------
    GenerationMismatch
        If the champion has changed since the caller looked.
    NotAllowedNow
        If the swap no longer waits.
    """
    versions.get(conn, model, version)
    before = current(conn, model)
    after = Champion(
        model=model,
        version=version,
        generation=expected_generation + 1,
        previous_version=before.version if before else None,
        changed_at=at,
        changed_by=actor,
        reason=reason,
    )
    _compare_and_set(conn, after, expected_generation=expected_generation)
    record = {
        "state": "committed",
        "generation": after.generation,
        "previous_version": after.previous_version,
        "ended_at": at,
        "event_time": event_time,
    }
    if swap_id is None:
        swap_id = _insert_swap(
            conn,
            model,
            version=version,
            kind=kind,
            expected_generation=expected_generation,
            run_id=run_id,
            actor=actor,
            reason=reason,
            created_at=at,
            **record,
        )
    else:
        _end_waiting(conn, swap_id, **record)
    if before is not None and before.version != version:
        versions.set_state(conn, model, before.version, VersionState.RETIRED)
    versions.set_state(conn, model, version, VersionState.CHAMPION)
    audit.append(
        conn,
        actor=actor,
        action=f"champion_{kind}",
        model=model,
        subject=f"generation {after.generation}",
        reason=reason,
        facts={
            "version": version,
            "previous_version": after.previous_version,
            "generation": after.generation,
            "run": run_id,
            "swap": swap_id,
        },
        at=at,
    )
    notices.champion_changed(conn, after, is_rollback=kind == "rollback", run_id=run_id, at=at)
    return after


def request_swap(
    conn: Connection,
    model: str,
    *,
    version: int,
    expected_generation: int,
    actor: str,
    reason: str,
    kind: SwapKind,
    run_id: str | None,
    event_time: datetime | None,
    at: datetime,
) -> str:
    """Ask the replicas to get ready for `version`; return the waiting swap's id.

    Raises
    ------
    GenerationMismatch
        If the champion has changed since the caller looked.
    Conflict
        If another swap of the model waits; ``facts["swap"]`` names it.
    """
    versions.get(conn, model, version)
    before = current(conn, model)
    generation = before.generation if before else 0
    if generation != expected_generation:
        raise _mismatch(model, expected_generation, before)
    swap_id = _insert_swap(
        conn,
        model,
        version=version,
        kind=kind,
        state="waiting",
        expected_generation=expected_generation,
        previous_version=before.version if before else None,
        run_id=run_id,
        actor=actor,
        reason=reason,
        created_at=at,
        event_time=event_time,
    )
    if swap_id is None:
        other = conn.scalar(select(swaps.c.id).where(swaps.c.model == model, swaps.c.state == "waiting"))
        msg = "another swap of this model is waiting for the replicas"
        raise Conflict(msg, model=model, swap=other)
    return swap_id


def find_swap(conn: Connection, swap_id: str) -> Swap | None:
    """Return the swap, or None."""
    row = conn.execute(select(swaps).where(swaps.c.id == swap_id)).mappings().one_or_none()
    return None if row is None else Swap(**row)


def waiting(conn: Connection, model: str | None = None) -> list[Swap]:
    """Return the swaps that wait for the replicas."""
    query = select(swaps).where(swaps.c.state == "waiting").order_by(swaps.c.model)
    if model is not None:
        query = query.where(swaps.c.model == model)
    return [Swap(**row) for row in conn.execute(query).mappings()]


def fail_swap(conn: Connection, swap_id: str, *, error: str, at: datetime) -> None:
    """End a waiting swap without a change of champion.

    Raises
    ------
    NotAllowedNow
        If the swap no longer waits.
    """
    _end_waiting(conn, swap_id, state="failed", error=error, ended_at=at)


def history(conn: Connection, model: str) -> list[Swap]:
    """Return the model's committed swaps, the newest first."""
    query = select(swaps).where(swaps.c.model == model, swaps.c.state == "committed")
    return [Swap(**row) for row in conn.execute(query.order_by(swaps.c.generation.desc())).mappings()]


def taken_back(conn: Connection, model: str) -> dict[int, Swap]:
    """Return the versions that were rolled back from and not crowned since, each with the swap that took it back.

    Whoever goes back to such a version undoes a rollback: the version that this leaves was not found wanting.
    """
    found: dict[int, Swap] = {}
    for swap in reversed(history(conn, model)):
        if swap.kind == "rollback" and swap.previous_version is not None and swap.version not in found:
            found[swap.previous_version] = swap
        found.pop(swap.version, None)
    return found


def unsettled(conn: Connection) -> list[Swap]:
    """Return the committed swaps that made the present champions and have not reached every replica yet."""
    query = (
        select(swaps)
        .join(champions, (champions.c.model == swaps.c.model) & (champions.c.generation == swaps.c.generation))
        .where(swaps.c.state == "committed", swaps.c.settled_at.is_(None))
        .order_by(swaps.c.model)
    )
    return [Swap(**row) for row in conn.execute(query).mappings()]


def was_served(conn: Connection, model: str) -> bool:
    """Return whether replicas have ever held a champion of the model's."""
    return (
        conn.scalar(select(swaps.c.id).where(swaps.c.model == model, swaps.c.settled_at.is_not(None)).limit(1))
        is not None
    )


def settle(conn: Connection, swap_id: str, *, at: datetime) -> None:
    """Write when the last live replica had rebound to a committed swap; the first moment written stays."""
    query = update(swaps).where(swaps.c.id == swap_id, swaps.c.settled_at.is_(None))
    conn.execute(query.values(settled_at=at))


def _compare_and_set(conn: Connection, after: Champion, *, expected_generation: int) -> None:
    values = asdict(after)
    if expected_generation == 0:
        is_written = insert_new(conn, champions, **values)
    else:
        c = champions.c
        query = update(champions).where(c.model == after.model, c.generation == expected_generation)
        is_written = conn.execute(query.values(**values)).rowcount == 1
    if not is_written:
        raise _mismatch(after.model, expected_generation, current(conn, after.model))


def _mismatch(model: str, expected: int, found: Champion | None) -> GenerationMismatch:
    generation = found.generation if found else 0
    msg = f"the champion is at generation {generation}, not {expected}: look again before you change it"
    return GenerationMismatch(
        msg, model=model, expected=expected, generation=generation, version=found.version if found else None
    )


def _insert_swap(conn: Connection, model: str, **values: Any) -> str | None:
    swap_id = new_id()
    return swap_id if insert_new(conn, swaps, id=swap_id, model=model, **values) else None


def _end_waiting(conn: Connection, swap_id: str, **values: Any) -> None:
    query = update(swaps).where(swaps.c.id == swap_id, swaps.c.state == "waiting").values(**values)
    if not conn.execute(query).rowcount:
        msg = "that swap no longer waits"
        raise NotAllowedNow(msg, swap=swap_id)
