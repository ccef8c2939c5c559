"""The replica: a worker's thread that follows the champions.

It pre-loads what a waiting swap asks for, says whether it is ready, rebinds slots when a champion has changed, and goes
on with what it has while the database is away.
"""

import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.domain.errors import ArtifactInvalid, DatabaseUnavailable
from service.serving.bundle import Bundle, load
from service.serving.slot import Slots
from service.storage import champions, models, replicas, versions
from service.storage.artifacts import ArtifactStore
from service.storage.champions import Champion, Swap
from service.storage.database import Database
from service.storage.ids import new_id
from service.telemetry import Slug, Telemetry

__all__ = ["Replica"]

log = logging.getLogger(__name__)

LOOK_S = 0.25
HEARTBEAT_S = 2.0
LONGEST_PAUSE_S = 5.0
RETRY_LOAD_S = 5.0
KEPT = 3
"""Versions of a model that stay warm: the champion, the one before it, and one that waits."""


@dataclass(frozen=True)
class View:
    """What one look at the database showed."""

    names: list[str]
    champions: list[Champion]
    swaps: list[Swap]


class Replica:
    """Keeps a worker's slots on the champions.

    Parameters
    ----------
    database, store
        Where champions and artifacts are.
    slots
        What it binds.
    telemetry
        Event metrics.
    index
        Number of the worker on its host.
    """

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        *,
        slots: Slots,
        telemetry: Telemetry,
        index: int,
        look_s: float = LOOK_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = new_id()
        self.has_looked = threading.Event()
        """Set once the database has been read: before it, nothing is known, not even that a model has no champion."""
        self.is_degraded = False
        self._database, self._store, self._slots, self._telemetry = database, store, slots, telemetry
        self._index, self._look_s, self._monotonic = index, look_s, monotonic
        self._warm: dict[str, dict[int, Bundle]] = {}
        self._failed: dict[tuple[str, int], tuple[float, str]] = {}
        self._answered: dict[str, str] = {}
        self._reported: dict[str, tuple[int, int]] = {}
        self._is_known = False
        self._stop = threading.Event()
        self._beating = threading.Lock()
        self._threads = [
            threading.Thread(target=self._follow, name="replica", daemon=True),
            # Its own thread: a load that takes long must not look like a dead worker.
            threading.Thread(target=self._live, name="heartbeat", daemon=True),
        ]

    def start(self) -> None:
        """Begin to follow."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop, and say goodbye where the database still listens."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(LONGEST_PAUSE_S)
        try:
            with self._database.write() as conn:
                replicas.goodbye(conn, self.id)
        except DatabaseUnavailable:
            pass  # the heartbeat grows old, which says the same

    def look(self) -> None:
        """Look once: load, answer swaps, rebind, report.

        Raises
        ------
        DatabaseUnavailable
            If the database does not answer.
        """
        if not self._is_known:
            self._beat()
        view = self._view()
        for name in view.names:
            self._slots.open(name)
        for champion in view.champions:
            self._follow_champion(champion)
        for swap in view.swaps:
            if self._answered.get(swap.model) != swap.id:
                self._prepare(swap)
        self.has_looked.set()

    def _follow(self) -> None:
        pause = self._look_s
        while not self._stop.is_set():
            try:
                self.look()
            except DatabaseUnavailable as error:
                self._degrade(error.detail)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            except Exception:
                # Whatever it is, requests go on being answered, and the next look may succeed.
                log.exception(Slug.REPLICA_ERROR, extra={"facts": {"worker": self._index}})
                pause = min(pause * 2, LONGEST_PAUSE_S)
            else:
                self._recover()
                pause = self._look_s
            self._stop.wait(pause)

    def _live(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                self._beat()
            except DatabaseUnavailable:
                continue  # the other thread sees it too, and tells
            except Exception:
                log.exception(Slug.REPLICA_ERROR, extra={"facts": {"worker": self._index}})

    def _view(self) -> View:
        with self._database.read() as conn:
            return View(
                names=[row.name for row in models.list_all(conn)],
                champions=champions.all_current(conn),
                swaps=champions.waiting(conn),
            )

    def _beat(self) -> None:
        with self._beating, self._database.write() as conn:
            if not self._is_known or not replicas.heartbeat(conn, self.id):
                replicas.hello(conn, self.id, host=socket.gethostname(), pid=os.getpid(), worker=self._index)
                for model, (version, generation) in list(self._reported.items()):
                    replicas.report(conn, self.id, model, version, generation)
        self._is_known = True

    def _follow_champion(self, champion: Champion) -> None:
        held = self._slots.bundles().get(champion.model)
        if held is None or held.generation < champion.generation:
            bundle = self._loaded(champion.model, champion.version)
            if bundle is None:
                return  # the old bundle serves on
            bundle = bundle.under(champion.generation)
            if self._slots.bind(bundle):
                self._telemetry.rebinds.labels(champion.model).inc()
                log.info(
                    Slug.REBOUND,
                    extra={
                        "facts": {
                            "model": bundle.model, "version": bundle.version, "generation": bundle.generation
                        }
                    },
                )  # fmt: skip
            held = bundle
        self._report(held)

    def _report(self, held: Bundle) -> None:
        now_serving = (held.version, held.generation)
        if self._reported.get(held.model) != now_serving:
            with self._database.write() as conn:
                replicas.report(conn, self.id, held.model, held.version, held.generation)
            self._reported[held.model] = now_serving

    def _prepare(self, swap: Swap) -> None:
        bundle = self._loaded(swap.model, swap.version, is_urgent=True)
        error = None if bundle is not None else self._failed[swap.model, swap.version][1]
        with self._database.write() as conn:
            replicas.answer_swap(conn, self.id, swap.id, swap.model, ready=bundle is not None, error=error)
        self._answered[swap.model] = swap.id

    def _loaded(self, model: str, version: int, *, is_urgent: bool = False) -> Bundle | None:
        """Return the warm bundle of a version, loading it if need be; None if it can't be loaded."""
        warm = self._warm.setdefault(model, {})
        if version in warm:
            warm[version] = warm.pop(version)  # the newest use last: the oldest is dropped first
            return warm[version]
        failed = self._failed.get((model, version))
        if failed is not None and not is_urgent and self._monotonic() < failed[0]:
            return None
        with self._database.read() as conn:
            row = versions.get(conn, model, version)
        started = self._monotonic()
        try:
            bundle = load(self._store, row, generation=0)
        except ArtifactInvalid as error:
            self._telemetry.loads.labels(model, "error").inc()
            self._failed[model, version] = (self._monotonic() + RETRY_LOAD_S, error.detail)
            log.error(  # noqa: TRY400  a refused artifact is an answer, not a bug: its words say all
                Slug.LOAD_FAILED,
                extra={"facts": {"model": model, "version": version, "error": error.detail}},
            )
            return None
        taken = self._monotonic() - started
        self._telemetry.loads.labels(model, "ok").inc()
        self._telemetry.load_seconds.labels(model).observe(taken)
        log.info(
            Slug.LOADED,
            extra={"facts": {"model": model, "version": version, "seconds": round(taken, 3)}},
        )
        self._failed.pop((model, version), None)
        warm[version] = bundle
        self._forget_oldest(model)
        # What was just loaded lives long; a full collection over it would be a pause in the middle of requests.
        gc.collect()
        gc.freeze()
        return bundle

    def _forget_oldest(self, model: str) -> None:
        held = self._slots.bundles().get(model)
        warm = self._warm[model]
        for version in list(warm)[: max(len(warm) - KEPT, 0)]:
            if held is None or held.version != version:
                del warm[version]

    def _degrade(self, reason: str) -> None:
        if not self.is_degraded:
            self.is_degraded = True
            self._is_known = False
            self._telemetry.degraded.set(1)
            log.warning(Slug.DATABASE_AWAY, extra={"facts": {"reason": reason}})

    def _recover(self) -> None:
        if self.is_degraded:
            self.is_degraded = False
            self._telemetry.degraded.set(0)
            log.info(Slug.DATABASE_BACK, extra={"facts": {"worker": self._index}})
