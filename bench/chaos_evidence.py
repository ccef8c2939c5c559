"""Reads what the service wrote down, from the database and the lake, for the ledger."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from sqlalchemy import Connection, RowMapping, select

from bench.chaos_ledger import Event, Evidence, Recorded, RunFacts, SwapFacts
from service.domain.errors import ArtifactInvalid
from service.domain.run import ACTIVE, RunState
from service.domain.version import VersionState
from service.serving.bundle import load
from service.storage import audit, champions, probations, replicas, tables, versions
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.lake import Lake

__all__ = ["astray", "busy", "gather", "spooled"]

LIVE_S = 6.0
OUT_OF_USE = frozenset({VersionState.QUARANTINED, VersionState.ARCHIVED})


def gather(evidence: Evidence, database: Database, home: Path, models: Sequence[str]) -> Evidence:
    """Fill `evidence` with what the database and the lake hold."""
    lake = Lake(home / "lake")
    evidence.recorded = {model: _recorded(home, model) for model in models}
    evidence.labels = {
        model: dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))
        for model in models
        if (table := lake.labels_known(model)) is not None
    }
    with database.read() as conn:
        history = [swap for model in models for swap in champions.history(conn, model)]
        evidence.swaps = [
            SwapFacts(
                id=swap.id, model=swap.model, kind=swap.kind,
                generation=swap.generation or 0, expected_generation=swap.expected_generation,
                version=swap.version, previous_version=swap.previous_version, run_id=swap.run_id,
            )
            for swap in history
        ]  # fmt: skip
        current = champions.all_current(conn)
        evidence.champions = {one.model: (one.version, one.generation) for one in current}
        evidence.open_swaps = [f"{swap.model} {swap.id}" for swap in champions.waiting(conn)]
        evidence.audited = _audited(conn)
        evidence.audit_broken_at = audit.verify(conn)
        evidence.runs, evidence.events = _runs(conn)
        evidence.unloadable = _unloadable(conn, home, current)
    return evidence


def busy(database: Database) -> list[str]:
    """Return the runs and swaps that are still under way."""
    with database.read() as conn:
        found = [
            f"{run.model} run {run.state.value}"
            for run in _facts(conn)
            if run.state in ACTIVE and run.waits_for is None
        ]
        return found + [f"{swap.model} swap" for swap in champions.waiting(conn)]


def astray(database: Database) -> list[str]:
    """Return the live workers that do not serve the champion."""
    with database.read() as conn:
        current = {one.model: one.generation for one in champions.all_current(conn)}
        live = {replica.id: replica for replica in replicas.live(conn, LIVE_S)}
        held = {(row.replica_id, row.model): row.generation for row in replicas.serving(conn)}
    return [
        f"worker {replica.worker} (pid {replica.pid}): {model} at {held.get((replica_id, model))}, not {generation}"
        for replica_id, replica in live.items()
        for model, generation in current.items()
        if held.get((replica_id, model)) != generation
    ]


def spooled(home: Path) -> list[str]:
    """Return the segments that are not in the lake yet."""
    spool = home / "spool"
    return sorted(str(path.relative_to(spool)) for kind in ("ready", "open") for path in spool.glob(f"*/*.{kind}"))


def _recorded(home: Path, model: str) -> list[Recorded]:
    path = home / "lake" / "predictions" / model
    if not path.exists():
        return []
    table = DeltaTable(str(path)).to_pyarrow_table(columns=["id", "version", "generation", "output"])
    return [Recorded(**row) for row in table.to_pylist()]


def _audited(conn: Connection) -> list[tuple[str, int, int]]:
    c = tables.audit.c
    query = select(c.model, c.facts).where(c.action.in_(["champion_promote", "champion_rollback"])).order_by(c.seq)
    return [(model, facts["generation"], facts["version"]) for model, facts in conn.execute(query)]


def _facts(conn: Connection) -> list[RunFacts]:
    return [
        RunFacts(
            id=row["id"], model=row["model"], state=RunState(row["state"]), waits_for=_waits_for(conn, row)
        )
        for row in conn.execute(select(tables.runs)).mappings().all()
    ]  # fmt: skip


def _waits_for(conn: Connection, row: RowMapping) -> str | None:
    """Return the champion's open probation that an automatic promotion waits for; None where nothing says that."""
    watched = probations.open_of(conn, row["model"])
    if row["state"] != RunState.PROMOTING.value or watched is None:
        return None
    if any(swap.run_id == row["id"] for swap in champions.waiting(conn, row["model"])):
        return None
    words = f"waits until the probation of version {watched.version} is over"
    return words if (row["progress"] or {}).get("words") == words else None


def _runs(conn: Connection) -> tuple[list[RunFacts], list[Event]]:
    facts = _facts(conn)
    model_of = {run.id: run.model for run in facts}
    events = [
        Event(
            model=model_of[row["run_id"]],
            run_id=row["run_id"],
            seq=row["seq"],
            at=row["at"],
            before=None if row["before"] is None else RunState(row["before"]),
            after=RunState(row["after"]),
            token=row["token"],
        )
        for row in conn.execute(select(tables.run_events)).mappings()
    ]
    return facts, events


def _unloadable(conn: Connection, home: Path, current: Sequence[Any]) -> list[str]:
    store = ArtifactStore(home / "artifacts")
    found: list[str] = []
    for champion in current:
        for number in {champion.version, champion.previous_version} - {None}:
            row = versions.get(conn, champion.model, number)
            if row.state in OUT_OF_USE and number != champion.version:
                continue  # nobody can go back to it
            try:
                load(store, row, generation=0)
            except ArtifactInvalid as error:
                found.append(f"{champion.model} version {number}: {error.detail}")
    return found
