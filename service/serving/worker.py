"""A worker's life: slots, batchers, recorder, replica thread; opened together, and closed in the right order."""

import asyncio
import gc
import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.domain.errors import NoChampion, NotReady
from service.serving.batcher import Answered, Batcher
from service.serving.block import Block
from service.serving.bundle import Bundle
from service.serving.feedback import FeedbackDecoder, Labels
from service.serving.limits import Limits
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
    ) -> None:
        self.limits = limits or Limits()
        self.telemetry = telemetry
        self.index = index
        self.slots = Slots()
        self.recorder = Recorder(spool, clock_us=lambda: time.time_ns() // 1000)
        self.replica = Replica(database, store, slots=self.slots, telemetry=telemetry, index=index)
        self._sync = sync
        self._batchers: dict[str, Batcher] = {}
        self._feedback: dict[str, tuple[Bundle, FeedbackDecoder]] = {}
        self._threads = ThreadPoolExecutor(max_workers=max(os.cpu_count() or 1, 2), thread_name_prefix="predict")
        self._timer: asyncio.Task[None] | None = None
        self._is_stopped = False

    async def start(self) -> None:
        """Begin to follow the champions; the worker is ready once the first is loaded."""
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_S)
        self.replica.start()
        self._timer = asyncio.create_task(self._tick())
        log.info(Slug.WORKER_STARTED, extra={"facts": {"worker": self.index, "replica": self.replica.id}})

    async def stop(self) -> None:
        """Answer what was accepted, say goodbye, close the spool. Twice is once."""
        if self._is_stopped:
            return
        self._is_stopped = True
        for batcher in self._batchers.values():
            await batcher.drained()
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self.replica.stop)
        await asyncio.to_thread(self._threads.shutdown)
        self.recorder.close()
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
                always_off_loop=self._sync,
            )
        return batcher.submit(bundle, block, is_recorded=is_recorded)

    def decode_labels(self, model: str, body: bytes) -> Labels:
        """Return the labels in a feedback body, by the label type of the version that answers now."""
        bundle = self.slots.take(model)
        known = self._feedback.get(model)
        if known is None or known[0].schema is not bundle.schema:
            known = self._feedback[model] = (bundle, FeedbackDecoder(bundle.schema))
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
        said: dict[str, Any] = {}
        for model, bundle in self.slots.bundles().items():
            said[model] = "no champion" if bundle is None else await self._probed(bundle)
        if not any(isinstance(word, dict) for word in said.values()):
            msg = "no model answers yet" if said else "no model is registered yet"
            raise NoChampion(msg, models=said, retry_after_s=1)
        return said

    async def _probed(self, bundle: Bundle) -> Any:
        one = Block(bundle.golden.numeric[:1], {name: words[:1] for name, words in bundle.golden.text.items()})
        try:
            answered = await self.predict(bundle, one, is_recorded=False)
        except Exception as error:  # noqa: BLE001  whatever it is, the model does not answer
            log.warning(Slug.BATCH_FAILED, extra={"facts": {"model": bundle.model, "error": type(error).__name__}})
            return "does not answer"
        return {"version": answered.bundle.version, "generation": answered.bundle.generation}

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TIMER_S)
            try:
                if self._sync:
                    await asyncio.to_thread(self.recorder.tick)
                else:
                    self.recorder.tick()
            except Exception:
                # A segment that could not be closed now is closed with the next record or tick.
                log.exception(Slug.SPOOL_FAILED, extra={"facts": {"worker": self.index}})
