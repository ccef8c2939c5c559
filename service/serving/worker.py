"""A worker's life: slots, batchers, recorder, replica thread; opened together, and closed in the right order."""

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from service.domain.errors import NoChampion, NotReady
from service.domain.spec import Schema
from service.serving.batcher import Answered, Batcher
from service.serving.block import Block
from service.serving.bundle import Bundle
from service.serving.feedback import FeedbackDecoder, Labels
from service.serving.health import Health
from service.serving.limits import Limits
from service.serving.recent import Recent
from service.serving.recorder import Recorder
from service.serving.replica import Replica
from service.serving.slot import Slots
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.spool import SpoolWriter
from service.telemetry import Slug, Telemetry

__all__ = ["Limits", "Worker"]

log = logging.getLogger(__name__)

TIMER_S = 0.05
SWITCH_S = 0.001
"""How long a loading thread may hold the interpreter before the event loop gets its turn."""
GC_THRESHOLDS = (20_000, 20, 50)
PREDICTING = 8
"""Threads for slow batches: at most one a model, so that one model's hanging estimator leaves the others some."""
DRAIN_S, PROBE_S = 2.0, 2.0
WATCH_S, STUCK_DEADLINES = 0.5, 3
"""An event loop that has not turned for so many deadlines will not turn again."""


class Worker:
    """All that one api process answers with.

    Parameters
    ----------
    database, store
        Where champions and artifacts are.
    spool
        This process's own stream; the worker closes it.
    telemetry
        Event metrics.
    index
        Number of the worker on its host.
    limits
        What it refuses beyond.
    sync
        Whether the spool waits for the disk: then nothing is recorded in the event loop.
    folder
        What the workers of this host know together, for one life of the service; without it no version is tried in a
        process of its own before it is loaded here.
    """

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        *,
        spool: SpoolWriter,
        telemetry: Telemetry,
        index: int = 0,
        limits: Limits | None = None,
        sync: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.telemetry = telemetry
        self.index = index
        self.slots = Slots()
        self.recorder = Recorder(
            spool,
            clock_us=lambda: time.time_ns() // 1000,
            when_full=lambda model: self.replica.recording.get(model, "refuse"),
        )
        self._health = Health()
        self._recent: dict[str, Recent] = {}
        self.replica = Replica(
            database,
            store,
            slots=self.slots,
            telemetry=telemetry,
            index=index,
            health=self._health,
            recent=self._recent_of,
            folder=folder,
        )
        self._sync = sync
        self._batchers: dict[str, Batcher] = {}
        self._feedback: dict[str, tuple[Schema, FeedbackDecoder]] = {}
        self._threads = ThreadPoolExecutor(PREDICTING, thread_name_prefix="predict")
        self._ticks = 0
        self.is_leaving = False
        """Whether the process was told to end: what streams for ever must end now."""
        self._timer: asyncio.Task[None] | None = None
        self._is_stopped = False

    async def start(self) -> None:
        """Begin to follow the champions; return when all that can be loaded are.

        Workers share a socket: one that took requests earlier would refuse what its siblings can answer.
        """
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_S)
        self.replica.start()
        while not (self.replica.has_looked.is_set() or self.is_leaving):  # noqa: ASYNC110  threads and signals set them
            await asyncio.sleep(TIMER_S)
        # What is here now lives long; a full collection over it would be a pause in the middle of requests.
        gc.collect()
        gc.freeze()
        self._timer = asyncio.create_task(self._tick())
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        log.info(Slug.WORKER_STARTED, extra={"facts": {"worker": self.index, "replica": self.replica.id}})

    async def stop(self) -> None:
        """Answer what was accepted, say goodbye, close the spool. Twice is once."""
        if self._is_stopped:
            return
        self._is_stopped = self.is_leaving = True
        await _within(DRAIN_S, asyncio.gather(*(batcher.drained() for batcher in self._batchers.values())))
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self.replica.stop)
        await _within(DRAIN_S, asyncio.to_thread(self._threads.shutdown))
        self.recorder.close()
        self.telemetry.flush()
        log.info(Slug.WORKER_STOPPED, extra={"facts": {"worker": self.index}})

    def predict(self, bundle: Bundle, block: Block, *, is_recorded: bool = True) -> asyncio.Future[Answered]:
        """Queue rows that were validated for `bundle`, which will answer them; raises Overloaded."""
        batcher = self._batchers.get(bundle.model)
        if batcher is None:
            batcher = self._batchers[bundle.model] = Batcher(
                bundle.model,
                recorder=self.recorder,
                executor=self._threads,
                limits=self.limits,
                telemetry=self.telemetry,
                health=self._health,
                recent=self._recent_of(bundle.model),
                always_off_loop=self._sync,
            )
        return batcher.submit(bundle, block, is_recorded=is_recorded)

    def decode_labels(self, model: str, body: bytes) -> Labels:
        """Return the labels in a feedback body, by the label type of the version that answers now."""
        schema = self.slots.take(model).schema
        known = self._feedback.get(model)
        if known is None or known[0] is not schema:
            known = self._feedback[model] = (schema, FeedbackDecoder(schema))
        return known[1].decode(body, max_rows=self.limits.request_rows)

    async def record_labels(self, model: str, labels: Labels) -> None:
        """Write accepted labels before they are acknowledged; raises NotRecorded."""
        if self._sync:
            await asyncio.get_running_loop().run_in_executor(self._threads, self.recorder.record_labels, model, labels)
        else:
            self.recorder.record_labels(model, labels)

    async def probe(self) -> dict[str, Any]:
        """Answer each model's golden row through the live path, unrecorded; return what each said.

        Raises
        ------
        NotReady
            If no model answers.
        """
        if not self.replica.has_looked.is_set():
            msg = "the worker has not yet read the database"
            raise NotReady(msg, retry_after_s=1)
        held = self.slots.bundles()
        words = await asyncio.gather(*(self._probed(bundle) for bundle in held.values()))
        said: dict[str, Any] = dict(zip(held, words, strict=True))
        if not any(isinstance(word, dict) for word in said.values()):
            msg = "no model answers yet" if said else "no model is registered yet"
            raise NoChampion(msg, models=said, retry_after_s=1)
        return said

    async def answers(self, bundle: Bundle) -> bool:
        """Return whether the bundle answers its golden row through the live path."""
        return isinstance(await self._probed(bundle), dict)

    async def _probed(self, bundle: Bundle | None) -> Any:
        if bundle is None:
            return "no champion"
        one = Block(bundle.golden.numeric[:1], {name: words[:1] for name, words in bundle.golden.text.items()})
        try:
            async with asyncio.timeout(PROBE_S):
                answered = await self.predict(bundle, one, is_recorded=False)
        except Exception as error:  # noqa: BLE001  whatever it is, the model does not answer
            log.warning(Slug.PROBE_FAILED, extra={"facts": {"model": bundle.model, "error": type(error).__name__}})
            return "does not answer"
        return {"version": answered.bundle.version, "generation": answered.bundle.generation}

    def _watch(self) -> None:
        """End the process if its event loop hangs, as over an estimator that was quick when it was measured."""
        seen, looks, most = -1, 0, STUCK_DEADLINES * self.limits.deadline_s / WATCH_S
        while not self._is_stopped:
            time.sleep(WATCH_S)
            # Looks are counted, not seconds: a process that was stopped for a while was not stuck.
            looks = looks + 1 if self._ticks == seen else 0
            seen = self._ticks
            if looks > most:
                log.critical(Slug.LOOP_STUCK, extra={"facts": {"worker": self.index, "after_s": looks * WATCH_S}})
                os._exit(1)  # the supervisor starts another; what was answered is in the spool

    def _recent_of(self, model: str) -> Recent:
        return self._recent.setdefault(model, Recent())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TIMER_S)
            self._ticks += 1
            for batcher in self._batchers.values():
                batcher.expire()
            try:
                self.telemetry.flush()
                if self._sync:
                    await asyncio.to_thread(self.recorder.tick)
                else:
                    self.recorder.tick()
            except Exception:
                # A segment that could not be closed now is closed with the next record or tick.
                log.exception(Slug.SPOOL_FAILED, extra={"facts": {"worker": self.index}})


async def _within(seconds: float, work: Awaitable[object]) -> None:
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        # An estimator that hangs: the process leaves without it, and whoever waited for it was refused already.
        log.warning(Slug.DRAIN_GIVEN_UP, extra={"facts": {"after_s": seconds}})
