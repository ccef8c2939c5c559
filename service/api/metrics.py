"""State metrics: computed from the database at the scrape, so that any worker tells the same."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from service.api.samples import Sample, samples
from service.storage.database import Database
from service.telemetry import STATES

__all__ = ["Sample", "StateMetrics", "samples"]

FRESH_S = 1.0
PATIENCE_S = 2.0


class StateMetrics:
    """The state metrics, read at most once a second, and the last good ones while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._samples: list[Sample] = []
        self._read_at = float("-inf")
        self._is_up = False
        self._reading: asyncio.Task[None] | None = None

    async def exposition(self) -> bytes:
        """Return the metrics as text. A database that does not answer soon delays no scrape."""
        if time.monotonic() - self._read_at > FRESH_S:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            await asyncio.wait({self._reading}, timeout=PATIENCE_S)
            if not self._reading.done():
                self._is_up = False
        registry = CollectorRegistry()
        registry.register(_Fixed([("database_up", (), float(self._is_up)), *self._samples]))
        return generate_latest(registry)

    async def _read(self) -> None:
        try:
            self._samples = await asyncio.to_thread(self._look)
        except Exception:  # noqa: BLE001  whatever it is, the last good values stand and database_up says so
            self._is_up = False
        else:
            self._is_up, self._read_at = True, time.monotonic()

    def _look(self) -> list[Sample]:
        with self._database.read() as conn:
            return list(samples(conn))


class _Fixed(Collector):
    """Samples that are known already."""

    def __init__(self, found: list[Sample]) -> None:
        self._found = found

    @override
    def collect(self) -> Iterable[Metric]:
        families: dict[str, Any] = {}
        told: set[tuple[str, tuple[str, ...]]] = set()
        for name, labels, value in self._found:
            declared = STATES[f"retrue_{name}"]
            if (name, labels) in told:
                continue  # two workers of one number, while one is on its way out
            told.add((name, labels))
            family = families.get(name)
            if family is None:
                kind = CounterMetricFamily if declared.kind == "counter" else GaugeMetricFamily
                family = families[name] = kind(declared.name, declared.help, labels=declared.labels)
            family.add_metric(labels, value)
        return families.values()
