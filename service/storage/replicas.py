"""Replicas: the worker processes that answer, what each one serves, and what it says of a waiting swap."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, select, update

from service.storage.database import insert_into, now
from service.storage.tables import replica_models, replicas, swaps

__all__ = [
    "Replica",
    "ReplicaModel",
    "answer_swap",
    "forget",
    "goodbye",
    "heartbeat",
    "hello",
    "live",
    "report",
    "report_health",
    "serving",
]


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One worker process."""

    id: str
    host: str
    pid: int
    worker: int
    started_at: datetime
    heartbeat_at: datetime


@dataclass(frozen=True, kw_only=True)
class ReplicaModel:
    """What one replica holds of one model, and its answer to the waiting swap."""

    replica_id: str
    model: str
    version: int | None
    generation: int | None
    swap_id: str | None
    swap_ready: bool | None
    error: str | None
    at: datetime
    bound_at: datetime | None
    health: dict[str, Any] | None


def hello(conn: Connection, replica_id: str, *, host: str, pid: int, worker: int) -> Replica:
    """Register a replica that has just started."""
    moment = now(conn)
    replica = Replica(id=replica_id, host=host, pid=pid, worker=worker, started_at=moment, heartbeat_at=moment)
    values = {"host": host, "pid": pid, "worker": worker, "started_at": moment, "heartbeat_at": moment}
    conn.execute(
        insert_into(conn, replicas)
        .values(id=replica_id, **values)
        .on_conflict_do_update(index_elements=["id"], set_=values)
    )
    return replica


def heartbeat(conn: Connection, replica_id: str) -> bool:
    """Say that the replica lives; False if it was forgotten meanwhile and must say hello again."""
    query = update(replicas).where(replicas.c.id == replica_id).values(heartbeat_at=now(conn))
    return conn.execute(query).rowcount > 0


def goodbye(conn: Connection, replica_id: str) -> None:
    """Remove a replica that leaves."""
    conn.execute(delete(replica_models).where(replica_models.c.replica_id == replica_id))
    conn.execute(delete(replicas).where(replicas.c.id == replica_id))


def forget(conn: Connection, silent_s: float) -> list[str]:
    """Remove the replicas that have been silent for so long; return their ids."""
    limit = now(conn) - timedelta(seconds=silent_s)
    gone = list(conn.scalars(select(replicas.c.id).where(replicas.c.heartbeat_at < limit)))
    for replica_id in gone:
        goodbye(conn, replica_id)
    return gone


def report(
    conn: Connection,
    replica_id: str,
    model: str,
    version: int | None,
    generation: int | None,
    *,
    bound_at: datetime | None = None,
    health: dict[str, Any] | None = None,
) -> datetime:
    """Write what the replica's slot holds since `bound_at`, which is now when left out; return that time."""
    bound_at = bound_at or now(conn)
    values = {"version": version, "generation": generation, "bound_at": bound_at, "health": health}
    _upsert(conn, replica_id, model, values)
    return bound_at


def report_health(conn: Connection, replica_id: str, model: str, health: dict[str, Any]) -> None:
    """Write how the bundles do that the replica holds or held; nothing if it has reported none."""
    at = {"replica_id": replica_id, "model": model}
    query = update(replica_models).where(*(replica_models.c[name] == value for name, value in at.items()))
    conn.execute(query.values(health=health))


def answer_swap(
    conn: Connection, replica_id: str, swap_id: str, model: str, *, ready: bool, error: str | None = None
) -> None:
    """Write whether the replica is ready to serve the waiting swap's version, and if not, why."""
    _upsert(conn, replica_id, model, {"swap_id": swap_id, "swap_ready": ready, "error": error})
    if not ready:
        # On the swap itself: the answer must outlive the replica, which may leave before the leader looks.
        told = update(swaps).where(swaps.c.id == swap_id, swaps.c.state == "waiting")
        conn.execute(told.values(error=error or "no reason given"))


def live(conn: Connection, within_s: float) -> list[Replica]:
    """Return the replicas that said within so many seconds, by the database's clock, that they live."""
    limit = now(conn) - timedelta(seconds=within_s)
    query = select(replicas).where(replicas.c.heartbeat_at >= limit).order_by(replicas.c.worker, replicas.c.id)
    return [Replica(**row) for row in conn.execute(query).mappings()]


def serving(conn: Connection, model: str | None = None) -> list[ReplicaModel]:
    """Return what every known replica, live or not, holds."""
    query = select(replica_models).join(replicas, replicas.c.id == replica_models.c.replica_id)
    if model is not None:
        query = query.where(replica_models.c.model == model)
    query = query.order_by(replica_models.c.model, replica_models.c.replica_id)
    return [ReplicaModel(**row) for row in conn.execute(query).mappings()]


def _upsert(conn: Connection, replica_id: str, model: str, values: dict[str, Any]) -> None:
    values = {**values, "at": now(conn)}
    conn.execute(
        insert_into(conn, replica_models)
        .values(replica_id=replica_id, model=model, **values)
        .on_conflict_do_update(index_elements=["replica_id", "model"], set_=values)
    )
