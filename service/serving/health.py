"""Health: how each bundle that a worker holds is doing, in plain counts that cost a batch next to nothing."""

import threading
from datetime import UTC, datetime
from typing import Any

from service.serving.bundle import Bundle

__all__ = ["Health", "Tally"]

KEPT = 2
"""Generations of a model that are told: the one that answers, and the one before it to compare with."""


class Tally:
    """Counts of one bundle under one generation. Written by its model's batcher alone, read by anybody."""

    __slots__ = ("answered", "batches", "failed", "generation", "seconds", "since", "version")

    def __init__(self, version: int, generation: int, since: datetime) -> None:
        self.version, self.generation, self.since = version, generation, since
        self.answered = self.failed = self.batches = 0
        self.seconds = 0.0

    def words(self) -> dict[str, Any]:
        """Return the counts as the database keeps them."""
        return {
            "version": self.version,
            "answered": self.answered,
            "failed": self.failed,
            "batches": self.batches,
            "seconds": self.seconds,
            "since": self.since.isoformat(),
        }


class Health:
    """The tallies of a worker: of each model those of the newest generations that it held."""

    def __init__(self) -> None:
        self._tallies: dict[str, dict[int, Tally]] = {}
        self._lock = threading.Lock()

    def of(self, bundle: Bundle) -> Tally:
        """Return where the bundle's answers are counted."""
        tally = self._tallies.get(bundle.model, {}).get(bundle.generation)
        return tally if tally is not None else self._new(bundle, datetime.now(UTC))

    def begin(self, bundle: Bundle, since: datetime) -> None:
        """Say when, by the database's clock, the slot took the bundle."""
        self._new(bundle, since).since = since

    def words(self, model: str) -> dict[str, Any]:
        """Return the model's tallies by generation, JSON-able."""
        return {str(generation): tally.words() for generation, tally in sorted(self._tallies.get(model, {}).items())}

    def _new(self, bundle: Bundle, since: datetime) -> Tally:
        with self._lock:
            known = self._tallies.get(bundle.model, {})
            tally = known.get(bundle.generation) or Tally(bundle.version, bundle.generation, since)
            newest = sorted({*known, bundle.generation})[-KEPT:]
            # Replaced, never changed: readers hold no lock. A straggler of an old generation is counted nowhere.
            self._tallies[bundle.model] = {one: known.get(one, tally) for one in newest}
            return tally
