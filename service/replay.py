"""Stream a data set in event-time order through the real HTTP API, each label after its delay.

A replay squeezes months into minutes, while a check and a run still take their seconds of wall clock. Without care
the stream would be weeks ahead (in event time) before a run that took three seconds is over, which no real stream
ever is. `Pace.lead` holds the stream back: it gets at most that much event time ahead of the loop, and trickles
meanwhile, so that requests keep flowing while a version is swapped in.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from service.client import FINISHED, WAITING, Json, Refused, Retrue, Unreachable, moment
from service.domain.check import SCHEDULE
from service.domain.duration import parse_duration, parse_window

__all__ = ["Answer", "Pace", "Replay", "Rows", "Totals"]

LABELS_A_REQUEST = 24
"""Labels are sent when so many are due: one request a label would cost more than the predictions do."""

TRICKLE_S = 0.02
"""Seconds between requests while the stream waits for the loop: some dozens of requests fall into each swap."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is streamed: parallel lists, sorted by time."""

    times: Sequence[datetime]
    instances: Sequence[Json]
    """As they go into a request, the timestamp field included."""
    labels: Sequence[Any]

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast the stream goes."""

    rate: float | None = None
    """Event seconds per wall-clock second; as fast as the service answers when None."""
    lead: timedelta | None = None
    """How far ahead of the control loop the stream may get, in event time; None: it never waits."""
    batch: int = 4
    """Rows a request."""
    label_delay: timedelta = timedelta(days=1)
    patience_s: float = 180.0
    """Wall-clock seconds that the stream waits for the loop before it gives up."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answered (or failed) request."""

    first: int
    """Position of its first row in `Rows`."""
    count: int
    answer: Json | None
    error: str | None
    started_at: float
    """Wall clock, seconds since the epoch."""
    latency_s: float


@dataclass
class Totals:
    """What came of it."""

    sent: int = 0
    failed: int = 0
    labels_sent: int = 0
    labels_failed: int = 0
    errors: list[str] = field(default_factory=list)


class Replay:
    """One stream of `rows` to `model`.

    Parameters
    ----------
    url
        Address of the service.
    answered
        Called with each answer, in order.
    """

    def __init__(
        self,
        url: str,
        model: str,
        rows: Rows,
        *,
        pace: Pace,
        answered: Callable[[Answer], None],
        key: str | None = None,
    ) -> None:
        self._client = Retrue(url, key=key)
        self._watcher = LoopWatcher(Retrue(url, key=key), model) if pace.lead is not None else None
        self._model = model
        self._rows = rows
        self._pace = pace
        self._answered = answered
        self._due: deque[tuple[datetime, str, Any]] = deque()
        self._sent_until = datetime.min.replace(tzinfo=UTC)
        self.totals = Totals()

    def run(self) -> Totals:
        """Send every row, then the labels that are still due; return what came of it.

        Raises
        ------
        Unreachable
            If the service has gone.
        TimeoutError
            If the loop does not come forward for `Pace.patience_s` seconds.
        """
        try:
            began, times = time.monotonic(), self._rows.times
            for first in range(0, len(self._rows), self._pace.batch):
                last = min(first + self._pace.batch, len(self._rows)) - 1
                # Labels go in handfuls, but none is held back when a check becomes due.
                is_due = self._watcher is not None and times[last] >= self._watcher.next_check
                self._send_labels(until=times[first], at_least=1 if is_due else LABELS_A_REQUEST)
                self._wait_for_rate(began, times[first] - times[0])
                self._wait_for_loop(times[first])
                self._send(first, last - first + 1)
                self._sent_until = times[last]
            if len(self._rows):
                self._send_labels(until=times[-1])
            return self.totals
        finally:
            if self._watcher is not None:
                self._watcher.close()
            self._client.close()

    def _send(self, first: int, count: int) -> None:
        instances = self._rows.instances[first : first + count]
        started_at, began = time.time(), time.perf_counter()
        answer, error = None, None
        try:
            answer = self._client.predict(self._model, instances).document
        except Refused as refused:
            error = f"{refused.status} {refused}"
        latency_s = time.perf_counter() - began
        self.totals.sent += 1
        if error is not None:
            self.totals.failed += 1
            self.totals.errors = [*self.totals.errors[-9:], error]
        elif answer is not None:
            for offset, prediction_id in enumerate(answer["ids"]):
                at = self._rows.times[first + offset] + self._pace.label_delay
                self._due.append((at, prediction_id, self._rows.labels[first + offset]))
        self._answered(
            Answer(first=first, count=count, answer=answer, error=error, started_at=started_at, latency_s=latency_s)
        )

    def _send_labels(self, until: datetime, *, at_least: int = 1) -> None:
        """Send the labels that are due at event time `until`, if there are `at_least` so many."""
        if len(self._due) < at_least or self._due[at_least - 1][0] > until:
            return
        ripe: list[Json] = []
        while self._due and self._due[0][0] <= until:
            at, prediction_id, label = self._due.popleft()
            ripe.append({"id": prediction_id, "label": label, "observed_at": at.isoformat().replace("+00:00", "Z")})
        try:
            accepted = self._client.feedback(self._model, ripe).accepted
        except Refused as refused:
            accepted = 0
            self.totals.errors = [*self.totals.errors[-9:], f"feedback: {refused.status} {refused}"]
        self.totals.labels_sent += accepted
        self.totals.labels_failed += len(ripe) - accepted

    def _wait_for_rate(self, began: float, event: timedelta) -> None:
        if self._pace.rate is not None:
            ahead = event.total_seconds() / self._pace.rate - (time.monotonic() - began)
            if ahead > 0:
                time.sleep(ahead)

    def _wait_for_loop(self, now: datetime) -> None:
        if self._watcher is None or self._pace.lead is None:
            return
        owed = self._watcher.owed(now)
        if owed is None:
            return
        if self._sent_until < owed:
            return  # the check is due only once a row at or past its window's end has arrived: a gap must not block
        if now <= owed + self._pace.lead:
            self._watcher.settled(TRICKLE_S)
            return
        ends = time.monotonic() + self._pace.patience_s
        while self._watcher.owed(now) is not None:
            if time.monotonic() > ends:
                msg = f"the loop has not come past {owed:%Y-%m-%d %H:%M} for {self._pace.patience_s:.0f} s"
                raise TimeoutError(msg)
            self._watcher.settled(0.1)


class LoopWatcher:
    """Knows which check the loop still owes, by asking the service while it owes one."""

    def __init__(self, client: Retrue, model: str) -> None:
        self._client = client
        self._model = model
        described = client.model(model)
        drift = described["policies"]["drift"]
        window = parse_window(drift["window"])
        every = parse_duration(drift["every"]) if drift["every"] else window.duration
        if every is None:
            msg = f"{model} checks every {window}, not every so much event time: replay it without --in-step"
            raise ValueError(msg)
        self._every = every
        self._next = self._first_check()
        self._poke = threading.Event()
        self._free = threading.Event()
        self._free.set()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="loop-watcher", daemon=True)
        self._thread.start()

    @property
    def next_check(self) -> datetime:
        """Event time at which the next check is due."""
        return self._next

    def owed(self, now: datetime) -> datetime | None:
        """Return the event time of the check that the loop owes at event time `now`, if it owes one."""
        if now <= self._next:
            return None
        if self._free.is_set():
            self._free.clear()
            self._poke.set()
        return self._next

    def settled(self, timeout_s: float) -> bool:
        """Wait until the loop owes nothing, for at most `timeout_s` seconds; return whether it does."""
        return self._free.wait(timeout_s)

    def close(self) -> None:
        """Stop asking."""
        self._closed = True
        self._free.set()
        self._poke.set()
        self._thread.join(5)
        self._client.close()

    def _first_check(self) -> datetime:
        learned = self._client.learned_until(self._model)
        if learned is None:
            msg = f"{self._model} has no version yet: train one first (`retrue retrain {self._model} --wait`)"
            raise ValueError(msg)
        done = [
            moment(check["window_until"])
            for check in self._client.checks(self._model, limit=20)
            if check.get("window_until") and check["state"] == "done" and check["actor"] == SCHEDULE
        ]
        return max(done, default=learned) + self._every

    def _watch(self) -> None:
        while not self._closed:
            self._poke.wait()
            self._poke.clear()
            while not self._free.is_set():
                try:
                    self._look()
                except (Refused, Unreachable):
                    time.sleep(0.5)  # a service on its way down or up; `patience_s` ends the wait
                time.sleep(0.05)

    def _look(self) -> None:
        newest = next(
            (check for check in self._client.checks(self._model, limit=5) if check["actor"] == SCHEDULE), None
        )
        if newest is None or newest["state"] not in {"done", "failed"} or not newest.get("window_until"):
            return
        until = moment(newest["window_until"])
        if until < self._next:
            return
        run_id = newest.get("run_id")
        if run_id:
            if self._client.run(run_id)["state"] not in FINISHED | WAITING:
                return
            # A fast stream would otherwise pass a week in the moment that the replicas take to rebind.
            described = self._client.model(self._model)
            generation = (described.get("champion") or {}).get("generation")
            if any(replica["generation"] != generation for replica in described.get("serving", [])):
                return
        self._next = until + self._every
        self._free.set()


def rows_of(frame: Any, *, timestamp: str, target: str, features: Sequence[str]) -> Rows:
    """Return the rows of a pandas frame, sorted by time, as JSON-able values.

    Raises
    ------
    KeyError
        If the frame has not the columns.
    """
    ordered = frame.sort_values(timestamp, kind="stable")
    times = [stamp.to_pydatetime().astimezone(UTC) for stamp in ordered[timestamp]]
    columns = {name: _plain(ordered[name].tolist()) for name in features}
    stamps = [at.isoformat().replace("+00:00", "Z") for at in times]
    instances = [
        {timestamp: stamps[row], **{name: values[row] for name, values in columns.items()}} for row in range(len(times))
    ]
    return Rows(times=times, instances=instances, labels=_plain(ordered[target].tolist()))


def _plain(values: list[Any]) -> list[Any]:
    return [None if isinstance(value, float) and value != value else value for value in values]
