"""The clockwork: APScheduler calls "look what is due". It holds no state; what is due stands in the database.

Its memory store is rebuilt at each start, a look that comes late is made all the same (no misfire grace), several late
ones are made once (coalesce), and never two at a time. It goes by the host's wall clock, so a thread that does not
watches over it: where that clock is set back an hour, no look would come for an hour.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from service.domain.errors import RetrueError
from service.journal import facts

__all__ = ["Oddity", "Tick"]

log = logging.getLogger(__name__)

Oddity = Literal["missed", "error", "overlapped"]
"""What can go wrong with a look. A closed set: it is a metric label."""


WATCH_S = 0.5
"""Pause between two looks at whether the looks come."""
LATE = 3
"""A job that has not run for so many of its periods, and of these pauses, is late."""


class _Pulse:
    """Whether a job runs, and whether it shall run once more because something ended meanwhile."""

    def __init__(self, every_s: float) -> None:
        self._lock = threading.Lock()
        self._runs = self._again = False
        self._late_s = LATE * max(every_s, WATCH_S)
        self._ended = time.monotonic()

    def begin(self) -> None:
        with self._lock:
            self._runs, self._again = True, False

    def is_over(self) -> bool:
        with self._lock:
            self._runs, self._again = self._again, False
            self._ended = time.monotonic()
            return not self._runs

    def is_late(self) -> bool:
        with self._lock:
            return not self._runs and time.monotonic() - self._ended > self._late_s

    def ask_again(self) -> bool:
        """Return whether it runs, and so will look again by itself."""
        with self._lock:
            self._again = self._runs
            return self._runs


class Tick:
    """Calls jobs at their periods, each in a thread, no job twice at a time.

    Parameters
    ----------
    odd
        Told of each look that was missed, overlapped or ended in an error: job name and what.
    """

    def __init__(self, odd: Callable[[str, Oddity], None]) -> None:
        self._odd = odd
        self._pulses: dict[str, _Pulse] = {}
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._stopped = threading.Event()
        self._scheduler.add_listener(self._listen, EVENT_JOB_MISSED | EVENT_JOB_ERROR | EVENT_JOB_MAX_INSTANCES)

    def add(self, name: str, job: Callable[[], None], *, every_s: float) -> None:
        """Call `job` now and every so many seconds from now on."""
        pulse = self._pulses[name] = _Pulse(every_s)

        def look() -> None:
            pulse.begin()
            while True:
                self._guarded(name, job)
                if pulse.is_over():
                    return

        self._scheduler.add_job(
            look, "interval", seconds=every_s, id=name, replace_existing=True, next_run_time=datetime.now(UTC)
        )

    def nudge(self, name: str) -> None:
        """Look now instead of at the next period: something has ended."""
        job = self._scheduler.get_job(name)
        if not self._pulses[name].ask_again() and job is not None:
            job.modify(next_run_time=datetime.now(UTC))

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()
        threading.Thread(target=self._watch, name="tick-watch", daemon=True).start()

    def stop(self) -> None:
        """End; waits for the looks under way."""
        self._stopped.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def _watch(self) -> None:
        while not self._stopped.wait(WATCH_S):
            for name in [name for name, pulse in self._pulses.items() if pulse.is_late()]:
                log.warning("tick_late", extra=facts(job=name))
                self._odd(name, "missed")
                self.nudge(name)

    def _guarded(self, name: str, job: Callable[[], None]) -> None:
        try:
            job()
        except RetrueError as error:
            log.warning("tick_failed", extra=facts(job=name, code=error.code, why=error.detail))
            self._odd(name, "error")
        except Exception:
            # The one place where scheduled work is caught whole: the next look must come whatever this one met.
            log.exception("tick_broke", extra=facts(job=name))
            self._odd(name, "error")

    def _listen(self, event: Any) -> None:
        if event.code == EVENT_JOB_MAX_INSTANCES:
            self._odd(event.job_id, "overlapped")
        elif event.code == EVENT_JOB_MISSED:
            self._odd(event.job_id, "missed")
        else:
            self._odd(event.job_id, "error")
