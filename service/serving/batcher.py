"""The batcher: joins the rows that wait into one block, and never waits for more.

While one batch is being answered the next gathers by itself. A batch that is expected to be quick is answered in the
event loop; a slow one on a thread, so that it does not hold up other requests.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from service.domain.errors import Broken, InvalidRows, NotRecorded, Overloaded, RetrueError
from service.serving.block import Block, join
from service.serving.bundle import Answers, Bundle
from service.serving.health import Health
from service.serving.limits import Limits
from service.serving.recent import Recent
from service.serving.recorder import Recorder
from service.telemetry import Slug, Telemetry

__all__ = ["Answered", "Batcher"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answered:
    """What one request gets: its own rows of a batch."""

    bundle: Bundle
    outputs: list[Any]
    probabilities: list[list[float]] | None
    ids: Sequence[str]
    """Empty where the answer could not be written down and the model's spec says to answer all the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One request's rows, with the bundle that they were validated for and that will answer them."""

    bundle: Bundle
    block: Block
    future: asyncio.Future[Answered]
    expires_at: float
    is_recorded: bool


Result = list[Answered | Exception]


class Batcher:
    """One model's queue. Everything but `_work` runs in the event loop.

    Parameters
    ----------
    model
        Its name, for the metrics.
    recorder
        Writes each batch down before it is answered.
    executor
        Threads for batches that are expected to be slow.
    limits
        Rows that may wait, rows of a batch, seconds the loop may be held.
    telemetry
        Event metrics.
    health
        Where it is counted how each bundle does.
    recent
        Takes rows that were answered, now and then.
    always_off_loop
        Whether every batch goes to a thread, as when each record waits for the disk.
    """

    def __init__(
        self,
        model: str,
        *,
        recorder: Recorder,
        executor: Executor,
        limits: Limits,
        telemetry: Telemetry,
        health: Health | None = None,
        recent: Recent | None = None,
        always_off_loop: bool = False,
    ) -> None:
        self._model, self._recorder, self._executor, self._limits = model, recorder, executor, limits
        self._health, self._recent = health or Health(), recent or Recent()
        self._always_off_loop = always_off_loop
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[Job] = deque()
        self._at_work: list[Job] = []
        self._rows = 0
        self._is_called = self._is_busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._telemetry = telemetry
        self._batch_rows = telemetry.timing(telemetry.batch_rows.labels(model))
        self._predict_seconds = telemetry.timing(telemetry.predict_seconds.labels(model))
        self._predictions = telemetry.counting(telemetry.predictions.labels(model, "champion"))
        self._queue_rows = telemetry.queue_rows.labels(model)
        self._record_failures = telemetry.record_failures.labels(model)
        self._unrecorded = telemetry.predictions_unrecorded.labels(model)

    def submit(self, bundle: Bundle, block: Block, *, is_recorded: bool = True) -> asyncio.Future[Answered]:
        """Queue rows; the future brings their answers, or the error.

        Raises
        ------
        Overloaded
            If more rows wait than may wait.
        """
        if self._rows + len(block) > self._limits.queue_rows and self._jobs:
            msg = f"{self._rows} rows are waiting already: try again in a moment"
            raise Overloaded(msg, model=self._model, retry_after_s=1)
        future: asyncio.Future[Answered] = self._loop.create_future()
        self._jobs.append(Job(bundle, block, future, self._loop.time() + self._limits.deadline_s, is_recorded))
        self._rows += len(block)
        if not self._is_called and not self._is_busy:
            # Requests that arrived in the same turn of the loop are queued before this is called: they are the batch.
            self._is_called = True
            self._idle.clear()
            self._loop.call_soon(self._run)
        return future

    async def drained(self) -> None:
        """Return once nothing waits and nothing is being answered."""
        await self._idle.wait()

    def expire(self) -> None:
        """Refuse what is past its deadline; for the worker's timer. An estimator that hangs can't be interrupted."""
        now = self._loop.time()
        for jobs, words in ((self._at_work, "took"), (self._jobs, "waited")):
            for job in jobs:
                if job.expires_at >= now:
                    break  # the newer ones have longer
                if not job.future.done():
                    msg = f"the request {words} longer than its deadline"
                    job.future.set_exception(Overloaded(msg, model=self._model, retry_after_s=1))

    def _run(self) -> None:
        self._is_called = False
        jobs = self._next()
        if not jobs:
            self._rest()
            return
        rows = sum(len(job.block) for job in jobs)
        self._batch_rows.observe(rows)
        if not self._always_off_loop and jobs[0].bundle.cost.of(rows) <= self._limits.loop_budget_s:
            self._deliver(jobs, self._work(jobs))
            self._rest()
            return
        self._is_busy, self._at_work = True, jobs
        self._queue_rows.set(self._rows)
        self._executor.submit(self._work, jobs).add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(self._land, jobs, done.result)
        )

    def _rest(self) -> None:
        if self._jobs:
            self._is_called = True
            self._loop.call_soon(self._run)
        else:
            self._idle.set()

    def _land(self, jobs: list[Job], result: Callable[[], Result]) -> None:
        self._is_busy, self._at_work = False, []
        self._deliver(jobs, result())
        self._rest()

    def _next(self) -> list[Job]:
        """Take jobs off the queue that one bundle answers together."""
        taken: list[Job] = []
        rows, now = 0, self._loop.time()
        while self._jobs:
            job = self._jobs[0]
            if taken and (
                job.bundle is not taken[0].bundle
                or job.is_recorded != taken[0].is_recorded
                or rows + len(job.block) > self._limits.batch_rows
            ):
                break
            self._jobs.popleft()
            self._rows -= len(job.block)
            if job.future.done():  # its client has gone
                continue
            if job.expires_at < now:
                msg = "the request waited longer than its deadline"
                job.future.set_exception(Overloaded(msg, model=self._model, retry_after_s=1))
                continue
            taken.append(job)
            rows += len(job.block)
        return taken

    def _work(self, jobs: list[Job]) -> Result:
        """Answer and record the jobs together; apart if one of them breaks the others' answers. Never raises."""
        try:
            return self._answer(jobs)
        except RetrueError as error:
            if isinstance(error, NotRecorded):
                self._record_failures.inc()
            return [error] * len(jobs)
        except Exception as error:  # noqa: BLE001  an estimator may raise anything; each caller gets an error
            if len(jobs) > 1:
                return [result for job in jobs for result in self._work([job])]
            log.warning(Slug.BATCH_FAILED, extra={"facts": {"model": self._model, "error": type(error).__name__}})
            failure = _failure(jobs[0])
            if isinstance(failure, Broken):
                self._health.of(jobs[0].bundle).failed += len(jobs[0].block)
            return [failure]

    def _answer(self, jobs: list[Job]) -> Result:
        bundle = jobs[0].bundle
        block = join([job.block for job in jobs])
        before = time.perf_counter()
        answers = bundle.answer(block)
        spent = time.perf_counter() - before
        self._predict_seconds.observe(spent)
        if not jobs[0].is_recorded:
            return _shares(bundle, jobs, answers, [""] * len(block))
        ids, signals = self._recorder.record(bundle, block, answers)
        if ids:
            self._predictions.inc(len(block))
        else:
            self._record_failures.inc()
            self._unrecorded.inc(len(block))
        self._flag(signals)
        tally = self._health.of(bundle)
        tally.answered += len(block)
        tally.batches += 1
        tally.seconds += spent
        self._recent.note(bundle, block, answers)
        return _shares(bundle, jobs, answers, ids)

    def _flag(self, signals: dict[str, int]) -> None:
        for name, count in signals.items():
            feature, _, signal = name.rpartition(":")
            self._telemetry.flagged_values.labels(self._model, feature, signal).inc(count)

    def _deliver(self, jobs: list[Job], result: Result) -> None:
        for job, one in zip(jobs, result, strict=True):
            if job.future.done():
                continue
            if isinstance(one, Exception):
                job.future.set_exception(one)
            else:
                job.future.set_result(one)


def _shares(bundle: Bundle, jobs: list[Job], answers: Answers, ids: Sequence[str]) -> Result:
    outputs = answers.outputs.tolist()
    probabilities = None if answers.probabilities is None else answers.probabilities.tolist()
    if len(jobs) == 1:
        return [Answered(bundle, outputs, probabilities, ids)]
    shares: Result = []
    start = 0
    for job in jobs:
        end = start + len(job.block)
        shares.append(
            Answered(
                bundle, outputs[start:end], None if probabilities is None else probabilities[start:end], ids[start:end]
            )
        )
        start = end
    return shares


def _failure(job: Job) -> RetrueError:
    """Return the error for rows that the estimator itself could not answer."""
    odd = job.bundle.layout.odd(job.block)
    if odd:
        msg = "the model can't answer values that are new to it"
        errors = [{"row": o.row, "field": o.feature, "code": o.signal, "detail": msg} for o in odd[:100]]
        return InvalidRows(msg, errors=errors, rows=len({o.row for o in odd}), more=max(len(odd) - 100, 0))
    return Broken("the model failed to answer these rows", model=job.bundle.model)
