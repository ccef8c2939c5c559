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

__all__ = ["STATES", "CountTally", "Slug", "StateMetric", "Telemetry", "TimeTally", "exposition"]

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
    KEYS_CHANGED = "keys_changed"


@dataclass(frozen=True)
class StateMetric:
    """One metric that is computed from the database at the scrape."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"


STATES = {
    metric.name: metric
    for metric in (
        StateMetric("retrue_database_up", "1 if the database answered this scrape, else 0 and the last values stand."),
        StateMetric("retrue_model_info", "Which version has which role.", ("model", "version", "role")),
        StateMetric("retrue_model_broken", "1 if the model's file can't be used.", ("model",)),
        StateMetric("retrue_champion_generation", "Generation of the champion.", ("model",)),
        StateMetric("retrue_serving_generation", "Generation that a live worker's slot holds.", ("model", "worker")),
        StateMetric("retrue_serving_lagging", "Live workers that are not yet on the champion.", ("model",)),
        StateMetric("retrue_workers", "Workers that are alive."),
        StateMetric("retrue_champion_changed_timestamp_seconds", "When the champion changed.", ("model",)),
        StateMetric(
            "retrue_model_learned_until_timestamp_seconds",
            "Newest event time that the champion learned from.",
            ("model",),
        ),
        StateMetric(
            "retrue_model_age_seconds",
            "Event time between what the champion learned from and the newest window.",
            ("model",),
        ),
        StateMetric("retrue_drift_statistic", "Of the latest check.", ("model", "feature", "role")),
        StateMetric("retrue_drift_threshold", "Of the latest check.", ("model", "feature", "role")),
        StateMetric("retrue_drift_family_statistic", "The latest check's largest score of all columns.", ("model",)),
        StateMetric("retrue_drift_family_threshold", "At or above it the window has drifted.", ("model",)),
        StateMetric("retrue_drift_calibrated", "1 if the champion's drift test is calibrated.", ("model",)),
        StateMetric(
            "retrue_drift_expected_alarms_90d",
            "Confirmed alarms to be expected in 90 days of clean data, by the champion's calibration.",
            ("model",),
        ),
        StateMetric(
            "retrue_drift_realised_alarms_90d", "Confirmed alarms in the newest 90 days of event time.", ("model",)
        ),
        StateMetric("retrue_check_verdict", "1 for the latest check's verdict.", ("model", "verdict")),
        StateMetric("retrue_check_rows", "Rows in the latest check's window.", ("model",)),
        StateMetric("retrue_check_findings", "Broken expectations in the latest check.", ("model",)),
        StateMetric("retrue_check_finished_timestamp_seconds", "When the latest check ended.", ("model",)),
        StateMetric("retrue_performance_value", "Realised performance, in the model's metric.", ("model", "metric")),
        StateMetric("retrue_performance_loss", "Realised loss; lower is better.", ("model",)),
        StateMetric("retrue_performance_reference_loss", "The champion's loss on its own holdout.", ("model",)),
        StateMetric("retrue_label_coverage", "Share of the judged rows whose label has arrived.", ("model",)),
        StateMetric("retrue_label_delay_seconds", "Median delay from event to label.", ("model",)),
        StateMetric(
            "retrue_label_immature_seconds",
            "Event time from the newest row whose labels are mature to the newest answered row.",
            ("model",),
        ),
        StateMetric("retrue_label_coverage_reached", "Share of labels that older rows have got.", ("model",)),
        StateMetric("retrue_performance_worse", "1 if the loss has risen for certain; absent if unknown.", ("model",)),
        StateMetric("retrue_performance_estimate_loss", "Loss as estimated without labels.", ("model",)),
        StateMetric("retrue_performance_estimate_valid", "1 if the estimate's conditions hold.", ("model",)),
        StateMetric("retrue_runs", "Runs by their present state.", ("model", "state")),
        StateMetric("retrue_run_active", "1 while a run is under way.", ("model",)),
        StateMetric("retrue_gate_value", "A clause's value in the newest judged run.", ("model", "clause")),
        StateMetric("retrue_gate_threshold", "A clause's threshold in the newest judged run.", ("model", "clause")),
        StateMetric("retrue_gate_outcome", "1 for the clause's outcome.", ("model", "clause", "outcome")),
        StateMetric("retrue_champion_compiled", "1 if the champion was compiled and is proved equal.", ("model",)),
        StateMetric("retrue_probation", "1 while the champion can still be taken back automatically.", ("model",)),
        StateMetric("retrue_switch", "1 while the switch is set.", ("model", "switch")),
        StateMetric("retrue_webhook_deliveries", "Webhook deliveries that wait, and that were given up.", ("state",)),
        StateMetric("retrue_champion_changes", "Changes of champion ever.", ("model", "kind"), "counter"),
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
        r = self.registry = registry if registry is not None else CollectorRegistry()
        self._tallies: list[CountTally | TimeTally] = []
        # api workers
        self.requests = Counter("retrue_requests", "Requests by outcome.", ("model", "endpoint", "outcome"), registry=r)
        self.request_seconds = Histogram(
            "retrue_request_seconds", "From body to answer.", ("model", "endpoint"), buckets=FAST, registry=r
        )
        self.http_responses = Counter(
            "retrue_http_responses", "Answers of all other routes.", ("route", "status"), registry=r
        )
        self.predictions = Counter("retrue_predictions", "Answered and recorded rows.", ("model", "role"), registry=r)
        self.batch_rows = Histogram("retrue_batch_rows", "Rows per batch.", ("model",), buckets=ROWS, registry=r)
        self.predict_seconds = Histogram(
            "retrue_predict_seconds", "The estimator's time per batch.", ("model",), buckets=FAST, registry=r
        )
        self.queue_rows = Gauge(
            "retrue_queue_rows", "Rows that wait.", ("model",), multiprocess_mode="livesum", registry=r
        )
        self.flagged_values = Counter(
            "retrue_flagged_values",
            "Answered values that are odd: unseen category, out of range.",
            ("model", "feature", "signal"),
            registry=r,
        )
        self.refused_rows = Counter("retrue_refused_rows", "Rows that broke the schema.", ("model",), registry=r)
        self.labels = Counter("retrue_labels", "Labels received.", ("model", "outcome"), registry=r)
        self.record_failures = Counter(
            "retrue_record_failures", "Batches that could not be written down, so were not answered.", ("model",),
            registry=r,
        )  # fmt: skip
        self.predictions_unrecorded = Counter(
            "retrue_predictions_unrecorded", "Rows answered though they could not be written down, as the spec says.",
            ("model",), registry=r,
        )  # fmt: skip
        self.refused_requests = Counter(
            "retrue_refused_requests", "Requests that were not taken on, by what they ran into.", ("reason",),
            registry=r,
        )  # fmt: skip
        self.loads = Counter(
            "retrue_loads", "Loads of a version by a worker: ok, or why it was refused.", ("model", "outcome"),
            registry=r,
        )  # fmt: skip
        self.compiled_fallbacks = Counter(
            "retrue_compiled_fallbacks", "Loads of a compiled version that ended with scikit-learn.", ("model",),
            registry=r,
        )  # fmt: skip
        self.load_seconds = Histogram(
            "retrue_load_seconds", "Fetch, verify and warm a version.", ("model",), buckets=SLOW, registry=r
        )
        self.rebinds = Counter("retrue_rebinds", "Slots that were pointed at another bundle.", ("model",), registry=r)
        self.degraded = Gauge(
            "retrue_degraded", "Workers that serve on without the database.", multiprocess_mode="livesum", registry=r
        )
        # controller
        self.checks = Counter("retrue_checks", "Checks by verdict.", ("model", "verdict"), registry=r)
        self.check_seconds = Histogram(
            "retrue_check_seconds", "Duration of a check.", ("model",), buckets=SLOW, registry=r
        )
        self.drift_alarms = Counter(
            "retrue_drift_alarms", "Drift alarms that were confirmed by so many windows in a row.", ("model",),
            registry=r,
        )  # fmt: skip
        self.decisions = Counter("retrue_decisions", "What checks led to.", ("model", "code"), registry=r)
        self.runs = Counter("retrue_runs_finished", "Runs by outcome.", ("model", "trigger", "outcome"), registry=r)
        self.compilations = Counter(
            "retrue_compilations", "Versions by what came of compiling them: proved, refused, unavailable.",
            ("model", "outcome"), registry=r,
        )  # fmt: skip
        self.run_seconds = Histogram("retrue_run_seconds", "Duration of a run.", ("model",), buckets=SLOW, registry=r)
        self.promotions = Counter("retrue_promotions", "Swaps by outcome.", ("model", "kind", "outcome"), registry=r)
        self.swap_seconds = Histogram(
            "retrue_swap_seconds", "From the request of a swap to its commit.", ("model",), buckets=SLOW, registry=r
        )
        self.swap_mixed_seconds = Histogram(
            "retrue_swap_mixed_seconds",
            "From the commit of a swap until the last live worker serves it.",
            ("model",),
            buckets=FAST,
            registry=r,
        )
        self.swaps_late = Counter(
            "retrue_swaps_late", "Times that a live worker had not followed a swap after 5 s, and after 2 min.",
            ("model",), registry=r,
        )  # fmt: skip
        self.probations = Counter(
            "retrue_probations",
            "Champions on probation by what became of them: extended, pinned, kept, unproven, rolled_back, ended, "
            "no_target.",
            ("model", "outcome"),
            registry=r,
        )
        self.tick_seconds = Histogram("retrue_tick_seconds", "Duration of a tick.", buckets=FAST, registry=r)
        self.ticks = Counter("retrue_ticks", "Ticks by outcome.", ("outcome",), registry=r)
        self.last_tick = Gauge(
            "retrue_last_tick_timestamp_seconds", "When the leader last looked.", multiprocess_mode="max", registry=r
        )
        self.leader = Gauge("retrue_leader", "Controllers that lead.", multiprocess_mode="livesum", registry=r)
        self.peak_bytes = Gauge(
            "retrue_peak_bytes",
            "Most resident memory: of the controller so far; of the newest child of each kind that ended.",
            ("process",), multiprocess_mode="livemax", registry=r,
        )  # fmt: skip
        self.webhooks = Counter(
            "retrue_webhooks", "Tries to tell a webhook: delivered, failed, dead (given up).", ("outcome",), registry=r
        )
        self.restarts = Counter("retrue_restarts", "Children started again.", ("role",), registry=r)
        # committer
        self.commits = Counter("retrue_commits", "Commits to the lake.", ("kind", "outcome"), registry=r)
        self.commit_seconds = Histogram("retrue_commit_seconds", "Duration of a pass.", buckets=SLOW, registry=r)
        self.committed_rows = Counter("retrue_committed_rows", "Rows moved to the lake.", ("model", "kind"), registry=r)
        self.damaged_segments = Counter("retrue_damaged_segments", "Spool segments set aside.", registry=r)
        self.spool_bytes = Gauge("retrue_spool_bytes", "Size of the spool.", multiprocess_mode="livemax", registry=r)
        self.spool_oldest_seconds = Gauge(
            "retrue_spool_oldest_seconds", "Age of the oldest segment.", multiprocess_mode="livemax", registry=r
        )
        self.lake_lag_seconds = Gauge(
            "retrue_lake_lag_seconds",
            "Age of the oldest row in the newest commit.",
            ("model",),
            multiprocess_mode="livemax",
            registry=r,
        )

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
