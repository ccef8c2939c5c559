"""Every metric and every log slug, declared once.

Event metrics count what a process does; in multi-process mode they land in files that any worker can add up. State
metrics describe the database and are computed at the scrape, so that they are the same whoever is asked.
"""

import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client import Histogram as OneByOne
from prometheus_client.multiprocess import MultiProcessCollector

__all__ = ["STATES", "CountTally", "Declared", "Slug", "Telemetry", "TimeTally", "exposition"]

FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


class Slug(StrEnum):
    """What a worker's log lines say happened."""

    LOADED = "version_loaded"
    LOAD_FAILED = "version_load_failed"
    NOT_COMPILED = "compiled_version_fell_back"
    REBOUND = "slot_rebound"
    WAITING = "waiting_for_database"
    DATABASE_AWAY = "database_away"
    DATABASE_BACK = "database_back"
    REPLICA_ERROR = "replica_error"
    HEARTBEAT_BROKE = "heartbeat_broke"
    LOAD_BROKE = "version_load_broke"
    BATCH_FAILED = "batch_failed"
    PROBE_FAILED = "probe_failed"
    REQUEST_FAILED = "request_failed"
    FAST_REQUEST_FAILED = "fast_request_failed"
    REQUEST_DONE = "request_done"
    SPOOL_FAILED = "spool_failed"
    LOOP_STUCK = "event_loop_stuck"
    DRAIN_GIVEN_UP = "drain_given_up"
    WORKER_STARTED = "worker_started"
    WORKER_STOPPED = "worker_stopped"
    ACCESS_OPEN = "access_open"
    ACCESS_BY_KEY = "access_by_key"
    ACCESS_REFUSED = "access_refused"
    KEYS_CHANGED = "keys_changed"


_UNITS = {
    "_timestamp_seconds": "s since 1970",
    "_seconds": "s",
    "_bytes": "B",
    "_rows": "rows",
    "_loss": "the metric's, as a loss",
    "_generation": "generation",
}
"""By the end of a name; the first that fits."""


@dataclass(frozen=True)
class Declared:
    """One metric; `docs/metrics.md` is its table."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter", "histogram"] = "gauge"
    unit: str = ""
    """Where the name does not tell it."""

    @property
    def measure(self) -> str:
        """The unit in words."""
        told = next((unit for ending, unit in _UNITS.items() if self.name.endswith(ending)), "")
        counted = self.name.removeprefix("retrue_").replace("_", " ") if self.kind == "counter" else ""
        return self.unit or told or counted


_MODEL = ("model",)
_COLUMN = ("model", "feature", "role")
_YES = "0 or 1"
_SHARE = "share, 0 to 1"

STATES = {
    metric.name: metric
    for metric in (
        Declared("retrue_build_info", "The release that runs.", ("release",), unit="1"),
        Declared("retrue_database_up", "1 if the database answered this scrape; else old values stand.", unit=_YES),
        Declared("retrue_leaderless_seconds", "Since the controllers' lease ran out; 0 while one of them leads."),
        Declared("retrue_workers", "Workers that are alive.", unit="workers"),
        Declared("retrue_model_info", "Which version has which role.", ("model", "version", "role"), unit="1"),
        Declared("retrue_model_broken", "1 if the model's file can't be used.", _MODEL, unit=_YES),
        Declared("retrue_model_learned_until_timestamp_seconds", "Newest event time that it learned from.", _MODEL),
        Declared("retrue_model_age_seconds", "Event time from what the champion learned to the newest window.", _MODEL),
        Declared("retrue_model_max_age_seconds", "Age at which a run is due; absent where age calls for none.", _MODEL),
        Declared("retrue_versions", "Versions by their present state.", ("model", "state"), unit="versions"),
        Declared("retrue_champion_generation", "Generation of the champion.", _MODEL),
        Declared("retrue_champion_changed_timestamp_seconds", "When the champion changed.", _MODEL),
        Declared("retrue_champion_compiled", "1 if the champion was compiled and proved equal.", _MODEL, unit=_YES),
        Declared("retrue_champion_changes", "Changes of champion ever.", ("model", "kind"), "counter"),
        Declared("retrue_swap_timestamp_seconds", "When the champion last changed so.", ("model", "kind")),
        Declared("retrue_serving_generation", "Generation that a live worker's slot holds.", ("model", "worker")),
        Declared("retrue_serving_lagging", "Live workers that are not yet on the champion.", _MODEL, unit="workers"),
        Declared("retrue_probation", "1 while the champion can still be taken back by itself.", _MODEL, unit=_YES),
        Declared("retrue_probation_rollback_timestamp_seconds", "When probation last took a champion back.", _MODEL),
        Declared("retrue_switch", "1 while the switch is set.", ("model", "switch"), unit=_YES),
        Declared("retrue_check_verdict", "1 for the latest check's verdict.", ("model", "verdict"), unit=_YES),
        Declared("retrue_check_rows", "Rows in the latest check's window.", _MODEL),
        Declared("retrue_check_findings", "Broken expectations in the latest check.", _MODEL, unit="findings"),
        Declared("retrue_check_finished_timestamp_seconds", "When the latest check ended.", _MODEL),
        Declared("retrue_check_window_timestamp_seconds", "Event time at which its window ends.", _MODEL),
        Declared("retrue_check_every_seconds", "Event time between checks; absent if counted in rows.", _MODEL),
        Declared("retrue_check_failures", "Checks without a verdict since the last with one.", _MODEL, unit="checks"),
        Declared("retrue_drift_statistic", "Distance in the latest check.", _COLUMN, unit="the method's"),
        Declared("retrue_drift_threshold", "At or above it the column has drifted.", _COLUMN, unit="the method's"),
        Declared("retrue_drift_family_statistic", "The latest check's largest score of all columns.", _MODEL, unit="1"),
        Declared("retrue_drift_family_threshold", "At or above it the window has drifted.", _MODEL, unit="1"),
        Declared("retrue_drift_calibrated", "1 if the champion's drift test is calibrated.", _MODEL, unit=_YES),
        Declared("retrue_drift_confirmed", "1 if so many windows in a row have drifted.", _MODEL, unit=_YES),
        Declared(
            "retrue_drift_expected_alarms_90d",
            "Confirmed alarms to be expected in 90 days of clean data, by the champion's calibration.",
            _MODEL,
            unit="alarms",
        ),
        Declared("retrue_drift_realised_alarms_90d", "Confirmed alarms in the newest 90 days.", _MODEL, unit="alarms"),
        Declared("retrue_performance_value", "Realised performance.", ("model", "metric"), unit="the model's metric"),
        Declared("retrue_performance_loss", "Realised loss; lower is better.", _MODEL),
        Declared("retrue_performance_reference_loss", "The champion's loss on its own holdout.", _MODEL),
        Declared("retrue_performance_worse", "1 if the loss rose for certain; absent: unknown.", _MODEL, unit=_YES),
        Declared("retrue_performance_estimate_loss", "Loss as estimated without labels.", _MODEL),
        Declared("retrue_performance_estimate_valid", "1 if the estimate's conditions hold.", _MODEL, unit=_YES),
        Declared("retrue_label_coverage", "Judged rows whose label has arrived.", _MODEL, unit=_SHARE),
        Declared("retrue_label_coverage_reached", "Labels that older rows have got.", _MODEL, unit=_SHARE),
        Declared("retrue_label_delay_seconds", "Median delay from event to label.", _MODEL),
        Declared("retrue_label_immature_seconds", "Event time from the newest mature row to the newest row.", _MODEL),
        Declared("retrue_runs", "Runs by their present state.", ("model", "state"), unit="runs"),
        Declared("retrue_run_active", "1 while a run is under way.", _MODEL, unit=_YES),
        Declared("retrue_run_waiting_since_timestamp_seconds", "When the oldest run there came.", ("model", "state")),
        Declared("retrue_run_state_seconds", "What the newest ended run spent in each state.", ("model", "state")),
        Declared("retrue_run_broken_in_a_row", "Newest runs that came to no verdict.", _MODEL, unit="runs"),
        Declared("retrue_run_budget", "Runs that checks may call for in a stretch of event time.", _MODEL, unit="runs"),
        Declared("retrue_run_budget_spent", "Of them started, when the latest check ended.", _MODEL, unit="runs"),
        Declared("retrue_gate_result", "1 for the newest judged run's outcome.", ("model", "outcome"), unit=_YES),
        Declared("retrue_gate_value", "A clause's value there.", ("model", "clause"), unit="the clause's"),
        Declared("retrue_gate_threshold", "A clause's threshold there.", ("model", "clause"), unit="the clause's"),
        Declared("retrue_webhook_deliveries", "Deliveries that wait, or were given up.", ("state",), unit="deliveries"),
        Declared("retrue_gate_outcome", "1 for the clause's outcome.", ("model", "clause", "outcome"), unit=_YES),
    )
}
"""By name."""


class Histogram(OneByOne):
    """A histogram that also takes what was added up elsewhere."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add `counts` observations by bucket, which sum up to `total`."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)

    @property
    def bounds(self) -> Sequence[float]:
        """The buckets' upper ends."""
        return tuple(self._upper_bounds)


class CountTally:
    """Adds up for one counter, in a plain number, until it is flushed.

    In multi-process mode one event takes microseconds, for it goes to a file; a prediction has eight of them.
    """

    __slots__ = ("_child", "_count", "_lock")

    def __init__(self, child: Counter) -> None:
        self._child, self._count, self._lock = child, 0.0, Lock()

    def inc(self, amount: float = 1) -> None:
        """Count."""
        with self._lock:
            self._count += amount

    def flush(self) -> None:
        """Hand on what was added up."""
        if self._count:
            with self._lock:
                count, self._count = self._count, 0.0
            self._child.inc(count)


class TimeTally:
    """Adds up for one histogram, until it is flushed; see `CountTally`."""

    __slots__ = ("_bounds", "_child", "_counts", "_lock", "_total")

    def __init__(self, child: Histogram) -> None:
        self._child, self._bounds, self._lock = child, child.bounds, Lock()
        self._counts, self._total = [0] * len(self._bounds), 0.0

    def observe(self, amount: float) -> None:
        """Take one observation."""
        place = bisect_left(self._bounds, amount)
        with self._lock:
            self._counts[place] += 1
            self._total += amount

    def flush(self) -> None:
        """Hand on what was added up."""
        if any(self._counts):
            with self._lock:
                counts, self._counts = self._counts, [0] * len(self._bounds)
                total, self._total = self._total, 0.0
            self._child.add(counts, total)


class Telemetry:
    """The event metrics of one process.

    Parameters
    ----------
    registry
        Where they are registered; a fresh one when left out.

    Notes
    -----
    `version` is no label of any of them: versions grow for ever.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.declared: list[Declared] = []
        """In the order of their declaration."""
        self._tallies: list[CountTally | TimeTally] = []
        count, gauge, times, sizes = self._count, self._gauge, self._times, self._sizes
        # api workers
        self.requests = count("retrue_requests", "Requests by outcome.", "model", "endpoint", "outcome")
        self.request_seconds = times("retrue_request_seconds", "From body to answer.", FAST, "model", "endpoint")
        self.http_responses = count("retrue_http_responses", "Answers of all other routes.", "route", "status")
        self.refused_requests = count("retrue_refused_requests", "Requests not taken on, by what they met.", "reason")
        self.predictions = count("retrue_predictions", "Answered and recorded rows.", "model", "role")
        self.predictions_unrecorded = count(
            "retrue_predictions_unrecorded", "Rows answered that could not be written down, as the spec says.", "model"
        )
        self.record_failures = count(
            "retrue_record_failures", "Batches that could not be written down, so were not answered.", "model"
        )
        self.refused_rows = count("retrue_refused_rows", "Rows that broke the schema.", "model")
        self.flagged_values = count(
            "retrue_flagged_values",
            "Answered values that are odd: unseen category, out of range.",
            *("model", "feature", "signal"),
        )
        self.labels = count("retrue_labels", "Labels received.", "model", "outcome")
        self.batch_rows = sizes("retrue_batch_rows", "Rows per batch.", "model")
        self.predict_seconds = times("retrue_predict_seconds", "The estimator's time per batch.", FAST, "model")
        self.queue_rows = gauge("retrue_queue_rows", "Rows that wait.", "model")
        self.loads = count("retrue_loads", "Loads of a version: ok, or why it was refused.", "model", "outcome")
        self.load_seconds = times("retrue_load_seconds", "Fetch, verify and warm a version.", SLOW, "model")
        self.compiled_fallbacks = count(
            "retrue_compiled_fallbacks", "Loads of a compiled version that ended with scikit-learn.", "model"
        )
        self.rebinds = count("retrue_rebinds", "Slots that were pointed at another bundle.", "model")
        self.degraded = gauge("retrue_degraded", "Workers that serve on without the database.", unit="workers")
        # controller
        self.checks = count("retrue_checks", "Checks by verdict.", "model", "verdict")
        self.check_seconds = times("retrue_check_seconds", "Duration of a check.", SLOW, "model")
        self.drift_alarms = count("retrue_drift_alarms", "Drift confirmed by so many windows in a row.", "model")
        self.decisions = count("retrue_decisions", "What checks led to.", "model", "code")
        self.runs = count("retrue_runs_finished", "Runs by outcome.", "model", "trigger", "outcome")
        self.run_seconds = times("retrue_run_seconds", "Duration of a run.", SLOW, "model")
        self.compilations = count("retrue_compilations", "Versions: proved, refused, unavailable.", "model", "outcome")
        self.promotions = count("retrue_promotions", "Swaps by outcome.", "model", "kind", "outcome")
        self.webhooks = count("retrue_webhooks", "Tries to tell a webhook: delivered, failed, dead.", "outcome")
        self.swap_seconds = times("retrue_swap_seconds", "From a swap's request to its commit.", SLOW, "model")
        self.swap_mixed_seconds = times(
            "retrue_swap_mixed_seconds", "From a swap's commit until the last live worker serves it.", FAST, "model"
        )
        self.swaps_late = count(
            "retrue_swaps_late", "Times that a live worker had not followed a swap after 5 s, and after 2 min.", "model"
        )
        self.probations = count(
            "retrue_probations",
            "Champions on probation by what became of them: extended, pinned, kept, unproven, rolled_back, ended, "
            "no_target.",
            *("model", "outcome"),
        )
        self.tick_seconds = times("retrue_tick_seconds", "Duration of a look at what is due.", FAST)
        self.ticks = count("retrue_ticks", "Parts of such looks by outcome.", "outcome")
        self.last_tick = gauge("retrue_last_tick_timestamp_seconds", "When the leader last looked.", mode="max")
        self.leader = gauge("retrue_leader", "Controllers here that lead.", unit="controllers")
        self.peak_bytes = gauge(
            "retrue_peak_bytes",
            "Most resident memory: of the controller so far; of the newest child of each kind that ended.",
            "process",
            mode="livemax",
        )
        self.restarts = count("retrue_restarts", "Children started again.", "role")
        # committer
        self.commits = count("retrue_commits", "Commits to the lake.", "kind", "outcome")
        self.commit_seconds = times("retrue_commit_seconds", "Duration of a pass.", SLOW)
        self.committed_rows = count("retrue_committed_rows", "Rows moved to the lake.", "model", "kind")
        self.damaged_segments = count("retrue_damaged_segments", "Spool segments set aside.")
        self.spool_bytes = gauge("retrue_spool_bytes", "Size of the spool.", mode="livemax")
        self.spool_cap_bytes = gauge("retrue_spool_cap_bytes", "Size at which it takes no more.", mode="livemax")
        self.spool_oldest_seconds = gauge("retrue_spool_oldest_seconds", "Age of the oldest segment.", mode="livemax")
        self.lake_lag_seconds = gauge(
            "retrue_lake_lag_seconds", "Age of the oldest row in the newest commit.", "model", mode="livemax"
        )

    def _count(self, name: str, text: str, *labels: str) -> Counter:
        self.declared.append(Declared(name, text, labels, "counter"))
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(
        self, name: str, text: str, *labels: str, mode: Literal["livesum", "livemax", "max"] = "livesum", unit: str = ""
    ) -> Gauge:
        self.declared.append(Declared(name, text, labels, "gauge", unit))
        return Gauge(name, text, labels, multiprocess_mode=mode, registry=self.registry)

    def _times(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        self.declared.append(Declared(name, text, labels, "histogram"))
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _sizes(self, name: str, text: str, *labels: str) -> Histogram:
        return self._times(name, text, ROWS, *labels)

    def counting(self, child: Counter) -> CountTally:
        """Return what adds up for `child` between flushes."""
        self._tallies.append(tally := CountTally(child))
        return tally

    def timing(self, child: Histogram) -> TimeTally:
        """Return what adds up for `child` between flushes."""
        self._tallies.append(tally := TimeTally(child))
        return tally

    def flush(self) -> None:
        """Hand on what the tallies have added up; whoever has some calls it by a clock, and before the end."""
        for tally in self._tallies:
            tally.flush()


def exposition(telemetry: Telemetry) -> bytes:
    """Return the event metrics as text: of all processes in multi-process mode, else of this one."""
    telemetry.flush()
    if os.environ.get(MULTIPROCESS):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest(telemetry.registry)
