"""State metrics: computed from the database at the scrape, so that any worker tells the same."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select
from typing_extensions import override

from service.domain.check import Verdict
from service.domain.gate import Outcome
from service.domain.run import ACTIVE, RunState
from service.storage import alarms, champions, checks, models, outbox, probations, replicas, versions
from service.storage.champions import Champion
from service.storage.checks import Check
from service.storage.database import Database
from service.storage.tables import runs as runs_table
from service.storage.tables import swaps as swaps_table
from service.telemetry import STATES

__all__ = ["Sample", "StateMetrics", "samples"]

FRESH_S = 1.0
PATIENCE_S = 2.0
LIVE_S = 6.0

Sample = tuple[str, tuple[str, ...], float]
"""A metric's name without its prefix, its label values, its value."""


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


def samples(conn: Connection) -> Iterator[Sample]:
    """Yield every sample that the database holds now."""
    current = {champion.model: champion for champion in champions.all_current(conn)}
    for row in models.list_all(conn):
        yield "model_broken", (row.name,), float(row.error is not None)
        yield "probation", (row.name,), float(probations.open_of(conn, row.name) is not None)
        for switch in models.switches(conn, row.name):
            yield "switch", (row.name, switch), 1.0
        check = checks.latest_done(conn, row.name)
        if check is not None:
            yield from _of_check(check)
            if check.window_until is not None:
                count = len(alarms.realised(conn, row.name, until=check.window_until))
                yield "drift_realised_alarms_90d", (row.name,), float(count)
        if row.name in current:
            yield from _of_champion(conn, current[row.name], check)
        yield from _of_gate(conn, row.name)
    yield from _of_replicas(conn, current)
    yield from _of_runs(conn, [row.name for row in models.list_all(conn)])
    for state, count in outbox.counts(conn).items():
        yield "webhook_deliveries", (state.value,), float(count)
    changes = (
        select(swaps_table.c.model, swaps_table.c.kind, func.count())
        .where(swaps_table.c.state == "committed")
        .group_by(swaps_table.c.model, swaps_table.c.kind)
    )
    for model, kind, count in conn.execute(changes):
        yield "champion_changes", (model, kind), float(count)


def _of_champion(conn: Connection, champion: Champion, check: Check | None) -> Iterator[Sample]:
    model = champion.model
    row = versions.get(conn, model, champion.version)
    yield "model_info", (model, str(champion.version), "champion"), 1.0
    if champion.previous_version is not None and champion.previous_version != champion.version:
        yield "model_info", (model, str(champion.previous_version), "previous"), 1.0
    yield "champion_generation", (model,), float(champion.generation)
    yield "champion_compiled", (model,), float(row.compiled == "proved")
    yield "champion_changed_timestamp_seconds", (model,), champion.changed_at.timestamp()
    yield "model_learned_until_timestamp_seconds", (model,), row.learned_until.timestamp()
    if check is not None and check.window_until is not None:
        yield "model_age_seconds", (model,), (check.window_until - row.learned_until).total_seconds()


def _of_check(check: Check) -> Iterator[Sample]:
    model, seen = check.model, check.examination or {}
    for verdict in Verdict:
        yield "check_verdict", (model, verdict.value), float(check.verdict == verdict.value)
    if check.finished_at is not None:
        yield "check_finished_timestamp_seconds", (model,), check.finished_at.timestamp()
    yield "check_rows", (model,), float(check.rows or 0)
    yield "check_findings", (model,), float(len(seen.get("findings") or ()))
    for column in seen.get("columns") or ():
        labels = (model, column["column"], column["role"])
        yield "drift_threshold", labels, float(column["threshold"])
        if column.get("statistic") is not None:
            yield "drift_statistic", labels, float(column["statistic"])
    tested = seen.get("drift")
    if tested:
        yield "drift_family_statistic", (model,), float(tested["statistic"])
        yield "drift_family_threshold", (model,), float(tested["threshold"])
        yield "drift_calibrated", (model,), float(tested["state"] == "calibrated")
        if tested.get("expected_alarms") is not None:
            yield "drift_expected_alarms_90d", (model,), float(tested["expected_alarms"])
    realised = seen.get("performance")
    if realised:
        yield from _of_performance(model, realised)


def _of_performance(model: str, realised: dict[str, Any]) -> Iterator[Sample]:
    if realised.get("value") is not None:
        yield "performance_value", (model, realised["metric"]), float(realised["value"])
    for name, key in (
        ("performance_loss", "loss"),
        ("performance_reference_loss", "reference_loss"),
        ("label_delay_seconds", "delay_p50_s"),
    ):
        if realised.get(key) is not None:
            yield name, (model,), float(realised[key])
    if realised.get("rows"):
        yield "label_coverage", (model,), realised["labelled"] / realised["rows"]
    extra = realised.get("extra") or {}
    for name, key in (("label_immature_seconds", "immature_s"), ("label_coverage_reached", "coverage_reached")):
        if extra.get(key) is not None:
            yield name, (model,), float(extra[key])
    if realised.get("worse") is not None:
        yield "performance_worse", (model,), float(realised["worse"])
    if realised.get("estimate"):
        yield "performance_estimate_loss", (model,), float(realised["estimate"]["loss"])
        yield "performance_estimate_valid", (model,), float(realised["estimate"]["valid"])


def _of_gate(conn: Connection, model: str) -> Iterator[Sample]:
    judged = (
        select(runs_table.c.gate)
        .where(runs_table.c.model == model, runs_table.c.gate.is_not(None))
        .order_by(runs_table.c.requested_at.desc(), runs_table.c.id.desc())
        .limit(1)
    )
    for clause in (conn.scalar(judged) or {}).get("clauses", ()):
        labels = (model, clause["name"])
        for name in ("value", "threshold"):
            if clause.get(name) is not None:
                yield f"gate_{name}", labels, float(clause[name])
        for outcome in Outcome:
            yield "gate_outcome", (*labels, outcome.value), float(clause["outcome"] == outcome.value)


def _of_replicas(conn: Connection, current: dict[str, Champion]) -> Iterator[Sample]:
    living = {replica.id: replica for replica in replicas.live(conn, LIVE_S)}
    yield "workers", (), float(len(living))
    on_champion = dict.fromkeys(current, 0)
    for held in replicas.serving(conn):
        if held.replica_id not in living or held.generation is None:
            continue
        replica = living[held.replica_id]
        yield "serving_generation", (held.model, f"{replica.host}/{replica.worker}"), float(held.generation)
        if held.model in current and held.generation == current[held.model].generation:
            on_champion[held.model] += 1
    for model, count in on_champion.items():
        yield "serving_lagging", (model,), float(len(living) - count)


def _of_runs(conn: Connection, names: list[str]) -> Iterator[Sample]:
    query = select(runs_table.c.model, runs_table.c.state, func.count())
    counts = {(m, s): n for m, s, n in conn.execute(query.group_by(runs_table.c.model, runs_table.c.state))}
    for model in names:
        for state in RunState:
            yield "runs", (model, state.value), float(counts.get((model, state.value), 0))
        yield "run_active", (model,), float(any(counts.get((model, state.value)) for state in ACTIVE))


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
