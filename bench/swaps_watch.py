"""What only shows while swaps go on: when each worker took a generation, and how much memory the workers hold."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from service.domain.errors import DatabaseUnavailable
from service.storage import replicas
from service.storage.champions import Swap
from service.storage.database import Database

__all__ = ["Watch", "resident"]

POLL_S = 0.03


class Watch:
    """Notes the moment at which each replica says that it serves a generation of `model`."""

    def __init__(self, database: Database, model: str) -> None:
        self._database, self._model = database, model
        self._seen: dict[int, dict[str, datetime]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def settled(self, swaps: Sequence[Swap]) -> tuple[list[float], str]:
        """Return the seconds from each swap's commit to the last worker's rebind, and where they were read."""
        self._stop.set()
        self._thread.join(5)
        written = [swap for swap in swaps if swap.settled_at is not None]
        if len(written) >= len(swaps) * 0.9:
            took = [(s.settled_at - s.ended_at).total_seconds() for s in written if s.settled_at and s.ended_at]
            return took, "the swaps' own record"
        workers = max((len(by) for by in self._seen.values()), default=0)
        seen = []
        for swap in swaps:
            by = self._seen.get(swap.generation or 0, {})
            if len(by) == workers and swap.ended_at is not None:
                seen.append((max(by.values()) - swap.ended_at).total_seconds())
        return seen, f"what the workers reported, seen for {len(seen)} swaps"

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            with suppress(DatabaseUnavailable), self._database.read() as conn:
                for row in replicas.serving(conn, self._model):
                    if row.generation is not None:
                        by = self._seen.setdefault(row.generation, {})
                        by.setdefault(row.replica_id, row.bound_at or row.at)


def resident(database: Database) -> list[tuple[int, int]]:
    """Return resident and private dirty bytes of each worker, by worker."""
    with database.read() as conn:
        live = replicas.live(conn, 6.0)
    return [_sizes(replica.pid) for replica in sorted(live, key=lambda replica: replica.worker)]


def _sizes(pid: int) -> tuple[int, int]:
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) * 1024
    return found["Rss"], found["Private_Dirty"]
