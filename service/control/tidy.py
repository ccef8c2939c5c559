"""Takes away what nothing needs any more: artifacts and references of old versions, and what a crash left behind.

A version is written as archived before its file goes, and the file goes only when two sweeps agree: a request that was
being committed during the first is seen by the second. A crash in between leaves an orphan for the next sweep.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from service.control.leader import Term
from service.domain.errors import RetrueError
from service.domain.policy import Retention
from service.domain.version import VersionState
from service.journal import facts
from service.storage import audit, champions, checks, models, probations, runs, tables, versions
from service.storage.artifacts import ArtifactStore
from service.storage.database import now as now_of
from service.storage.lake import Lake

__all__ = ["Tidy", "needed"]

log = logging.getLogger(__name__)

SWEEP_S = 300.0
YOUNG = timedelta(hours=1)
"""A file is stored before the row that names it: nothing younger goes."""
ROLLBACKS = 3
"""So many champions before this one can be gone back to."""


@dataclass(frozen=True)
class _Version:
    """What of a version's row is asked here."""

    model: str
    version: int
    state: str
    files: frozenset[str]
    reference: str | None
    created_at: datetime


class Tidy:
    """The leader's broom.

    Parameters
    ----------
    store, lake
        What is swept.
    wall, monotonic
        Seconds since 1970, by which files are dated, and seconds that only grow.
    """

    def __init__(
        self,
        store: ArtifactStore,
        lake: Lake,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._lake, self._wall, self._monotonic = store, lake, wall, monotonic
        self._marked: frozenset[str] = frozenset()
        self._swept_at: float | None = None

    def look(self, term: Term) -> None:
        """Sweep if it is time; never raises what a later sweep may not meet."""
        now = self._monotonic()
        if self._swept_at is not None and now - self._swept_at < SWEEP_S:
            return
        self._swept_at = now
        try:
            gone = self.sweep(term)
        except (RetrueError, OSError) as error:
            log.warning("tidy_failed", extra=facts(why=str(error)))
            return
        if gone:
            log.info("tidied", extra=facts(artifacts=gone))

    def sweep(self, term: Term) -> list[str]:
        """Archive versions that nothing needs, and delete the files that no sweep since the last has found a need for.

        Returns
        -------
        list of str
            The digests of the artifacts that were deleted.

        Raises
        ------
        LeaseLost
            If another leader works: then nothing was archived and nothing deleted.
        """
        with term.write() as conn:
            known = _versions(conn)
            kept = {model: needed(conn, model) for model in {row.model for row in known}}
            _archive(conn, known, kept, at=term.database.now(conn))
            living = [row for row in known if row.version in kept[row.model]]
        wanted = frozenset(digest for row in living for digest in row.files)
        before = self._wall() - YOUNG.total_seconds()
        orphans = {digest for digest, at in self._store.dated().items() if digest not in wanted and at < before}
        gone = sorted(orphans & self._marked)
        for digest in gone:
            self._store.delete(digest)
        self._marked = frozenset(orphans - set(gone))
        self._store.forget_unfinished(before)
        for model in kept:
            self._lake.forget_references(
                model, {row.reference for row in living if row.model == model and row.reference}, before=before
            )
        return gone


def needed(conn: Connection, model: str) -> set[int]:
    """Return the versions of the model whose artifact must stay."""
    row = models.find(conn, model)
    numbers = conn.execute(
        select(tables.versions.c.version, tables.versions.c.created_at)
        .where(tables.versions.c.model == model)
        .order_by(tables.versions.c.version.desc())
    ).all()
    now = now_of(conn)
    kept = {number.version for number in numbers[: models.policy_of(row, Retention).artifacts]}
    kept |= {number.version for number in numbers if now - number.created_at < YOUNG}
    champion = champions.current(conn, model)
    kept |= set() if champion is None else {champion.version}
    kept |= set(_went_before(conn, model))
    kept |= set(probations.rollback_targets(conn, model)[:ROLLBACKS])
    for swap in champions.waiting(conn, model):
        kept |= {swap.version, *_known(swap.previous_version)}
    watched = probations.open_of(conn, model)
    kept |= set() if watched is None else {watched.version, watched.previous_version}
    kept |= {one.version for one in runs.unfinished(conn) if one.model == model and one.version is not None}
    kept |= {one.version for one in checks.unfinished(conn) if one.model == model and one.version is not None}
    pin = models.switches(conn, model).get("pin")
    return kept | ({pin.value} if pin is not None and type(pin.value) is int else set())


def _went_before(conn: Connection, model: str) -> list[int]:
    """Return the champions before this one, the newest first, as far back as one may want to go."""
    current = champions.current(conn, model)
    found = dict.fromkeys(
        version
        for swap in champions.history(conn, model)
        for version in (swap.version, *_known(swap.previous_version))
        if current is None or version != current.version
    )
    return list(found)[:ROLLBACKS]


def _known(version: int | None) -> tuple[int, ...]:
    return () if version is None else (version,)


def _versions(conn: Connection) -> list[_Version]:
    c = tables.versions.c
    query = select(c.model, c.version, c.state, c.artifact, c.manifest, c.reference, c.created_at)
    return [
        _Version(row.model, row.version, row.state, _files(row), (row.reference or {}).get("digest"), row.created_at)
        for row in conn.execute(query)
    ]


def _files(row: Any) -> frozenset[str]:
    compiled = ((row.manifest or {}).get("compiled") or {}).get("artifact")
    return frozenset({row.artifact, compiled} - {None})


def _archive(conn: Connection, known: list[_Version], kept: dict[str, set[int]], *, at: datetime) -> None:
    for model, numbers in sorted(kept.items()):
        old = {
            row.version: row.state
            for row in known
            if row.model == model and row.version not in numbers and row.state != VersionState.ARCHIVED
        }
        for version in old:
            versions.set_state(conn, model, version, VersionState.ARCHIVED)
        if old:
            audit.append(
                conn,
                actor="controller",
                action="versions_archived",
                model=model,
                subject=", ".join(str(version) for version in sorted(old)),
                reason="nothing needs their artifacts any more",
                at=at,
                facts={"states": {str(version): state for version, state in sorted(old.items())}},
            )
