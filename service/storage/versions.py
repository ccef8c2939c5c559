"""Versions: immutable trained artifacts with their lineage. Only their state ever changes."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, update

from service.domain.errors import UnknownVersion
from service.domain.version import VersionState
from service.storage.tables import models, versions

__all__ = ["VersionRow", "find", "get", "insert", "list_of", "next_number", "set_state"]


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """One version."""

    model: str
    version: int
    state: VersionState
    run_id: str | None
    parent: int | None
    """The champion when the run began."""
    artifact: str
    """The sha256 of its file."""
    manifest: dict[str, Any]
    """Schema, golden rows, library versions: what a load needs."""
    lineage: dict[str, Any]
    metrics: dict[str, Any]
    """Of the holdout: value, loss, metric, n, ci."""
    reference: dict[str, Any]
    """The snapshot that its checks compare with."""
    learned_until: datetime
    created_at: datetime
    calibration: dict[str, Any] | None = None
    """What clean windows of the reference show; None where an older release made the version."""

    @property
    def compiled(self) -> str:
        """What came of compiling it: ``proved``, ``refused`` or ``unavailable``."""
        told = self.manifest.get("compiled") or {}
        return "proved" if "artifact" in told else "refused" if "refused" in told else "unavailable"


def next_number(conn: Connection, model: str) -> int:
    """Return the number that the model's next version takes; hold it by inserting in the same transaction."""
    conn.execute(select(models.c.name).where(models.c.name == model).with_for_update())
    newest = conn.scalar(select(func.max(versions.c.version)).where(versions.c.model == model))
    return (newest or 0) + 1


def insert(conn: Connection, row: VersionRow) -> VersionRow:
    """Write a new version."""
    conn.execute(versions.insert().values(**{**asdict(row), "state": row.state.value}))
    return row


def find(conn: Connection, model: str, version: int) -> VersionRow | None:
    """Return the version, or None."""
    query = select(versions).where(versions.c.model == model, versions.c.version == version)
    row = conn.execute(query).mappings().one_or_none()
    return None if row is None else _row(row)


def get(conn: Connection, model: str, version: int) -> VersionRow:
    """Return the version.

    Raises
    ------
    UnknownVersion
        If the model has no such version.
    """
    row = find(conn, model, version)
    if row is None:
        msg = f"the model has no version {version}"
        raise UnknownVersion(msg, model=model, version=version)
    return row


def list_of(conn: Connection, model: str) -> list[VersionRow]:
    """Return the model's versions, the newest first."""
    query = select(versions).where(versions.c.model == model).order_by(versions.c.version.desc())
    return [_row(row) for row in conn.execute(query).mappings()]


def set_state(conn: Connection, model: str, version: int, state: VersionState) -> None:
    """Write the version's state.

    Raises
    ------
    UnknownVersion
        If the model has no such version.
    """
    query = update(versions).where(versions.c.model == model, versions.c.version == version)
    if not conn.execute(query.values(state=state.value)).rowcount:
        msg = f"the model has no version {version}"
        raise UnknownVersion(msg, model=model, version=version)


def _row(row: Any) -> VersionRow:
    return VersionRow(**{**row, "state": VersionState(row["state"])})
