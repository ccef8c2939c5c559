"""The replica: a worker's thread that follows the champions.

It has loaded what a waiting swap asks for, says whether that is ready, rebinds slots when a champion has changed, and
goes on with what it has while the database is away.
"""

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from service.domain.errors import ArtifactInvalid, DatabaseUnavailable, InvalidSetup
from service.domain.version import VersionState
from service.serving.bundle import Bundle
from service.serving.health import Health
from service.serving.keyring import Keyring
from service.serving.lastgood import Held, LastGood
from service.serving.loading import Loader, tidy_memory
from service.serving.recent import Recent
from service.serving.slot import Slots
from service.serving.trials import Trials
from service.serving.view import seen
from service.storage import replicas, versions
from service.storage.artifacts import ArtifactStore
from service.storage.champions import Champion, Swap
from service.storage.database import Database
from service.storage.ids import new_id
from service.storage.versions import VersionRow
from service.telemetry import Slug, Telemetry

__all__ = ["Replica"]

log = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_S = 0.25
HEARTBEAT_S = 2.0
LONGEST_PAUSE_S = 5.0
COMPLAIN_S = 5.0
RETRY_LOAD_S = 5.0
JOIN_S = 1.0
KEPT = 3
"""Versions of a model that stay warm: the champion, the one before it, and one that waits."""


@dataclass(frozen=True)
class Bound:
    """What the database was told that a slot holds."""

    version: int
    generation: int
    at: datetime


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
    health
        Counts how each bundle does.
    recent
        Gives the rows of a model that were answered lately.
    folder
        What the workers of this host know together, for one life of the service; None: nothing.
    """

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        *,
        slots: Slots,
        telemetry: Telemetry,
        index: int,
        health: Health | None = None,
        recent: Callable[[str], Recent] = lambda _: Recent(),
        folder: Path | None = None,
        look_s: float = LOOK_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = new_id()
        self.has_looked = threading.Event()
        """Set once every champion that could be loaded is: before it the worker takes no requests."""
        self.is_degraded = False
        self.recording: dict[str, str] = {}
        """What each model's spec says of answers that can't be written down."""
        self.keyring = Keyring(None if folder is None else folder / "keys.json", monotonic=monotonic)
        """The keys that requests come with."""
        self._database, self._slots, self._telemetry = database, slots, telemetry
        self._index, self._look_s, self._monotonic = index, look_s, monotonic
        self._health = health or Health()
        self._woken = threading.Event()
        trials = None if folder is None else Trials(folder / "trials", store)
        self.loader = Loader(
            store, recent=recent, trials=trials, telemetry=telemetry, woken=self._woken.set, monotonic=monotonic
        )
        self._last_good = None if folder is None else LastGood(folder / "champions.json")
        self._warm: dict[str, dict[int, Bundle]] = {}
        self._rows: dict[tuple[str, int], VersionRow] = {}
        self._failed: dict[tuple[str, int], tuple[float, ArtifactInvalid]] = {}
        self._answered: dict[str, str] = {}
        self._kept: dict[str, int] = {}
        self._reported: dict[str, Bound] = {}
        self._is_known = self._is_checked = self._is_untidy = False
        self._complained_at = monotonic()
        self._stop = threading.Event()
        self._beating = threading.Lock()
        self._threads = [
            threading.Thread(target=self._follow, name="replica", daemon=True),
            # Its own thread: a look that takes long must not seem like a dead worker.
            threading.Thread(target=self._live, name="heartbeat", daemon=True),
        ]

    def start(self) -> None:
        """Begin to follow."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop, and say goodbye where the database still listens."""
        self._stop.set()
        self._woken.set()
        self.loader.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(JOIN_S)
        if self.is_degraded or not self._is_known:
            return  # the heartbeat grows old, which says the same
        with suppress(DatabaseUnavailable), self._database.write() as conn:
            replicas.goodbye(conn, self.id)

    def look(self, *, waits: bool = True) -> None:
        """Look once: load, answer swaps, rebind, report.

        Parameters
        ----------
        waits
            Whether for loads that this look begins; without it a later look finds what has become of them.

        Raises
        ------
        DatabaseUnavailable, InvalidSetup
            If the database does not answer, or has no tables yet.
        """
        self._tidy()
        if not self._is_checked:
            self._database.check_migrated()
            self._is_checked = True
        if not (self._is_known or self._is_new):
            self._beat()
        view = seen(self._database)
        self.recording = view.recording
        self.keyring.follow(view.ring)
        for name in view.names:
            self._slots.open(name)
        self._settle(self._follow_champion, view.champions, waits=waits or self._is_new)
        if not self._is_known:
            # Hello only now: a swap waits for those who answer requests, and this one comes up on the champion anyway.
            self._beat()
            for champion in view.champions:
                self._follow_champion(champion)
        self.has_looked.set()
        self._settle(self._prepare, view.swaps, waits=waits)
        self._settle(self._keep_previous, view.champions, waits=waits)

    @property
    def _is_new(self) -> bool:
        return not self.has_looked.is_set()

    def _settle(self, act: Callable[[T], None], subjects: Sequence[T], *, waits: bool) -> None:
        for subject in subjects:
            act(subject)
        while waits and self.loader.is_busy and not self._stop.is_set():
            self._woken.wait(self._look_s)
            self._woken.clear()
            for subject in subjects:
                act(subject)

    def _follow(self) -> None:
        pause = self._look_s
        while not self._stop.is_set():
            try:
                self.look(waits=False)
            except (DatabaseUnavailable, InvalidSetup) as error:
                self._degrade(error)
                pause = min(pause * 2, LONGEST_PAUSE_S if not self._is_new else 1.0)
            except Exception:
                # Whatever it is, requests go on being answered, and the next look may succeed.
                log.exception(Slug.REPLICA_ERROR, extra={"facts": {"worker": self._index}})
                pause = min(pause * 2, LONGEST_PAUSE_S)
            else:
                self._recover()
                pause = self._look_s
            # All workers lost the database at one moment; they must not all come back at one.
            spread = 1.0 if pause == self._look_s else random.uniform(0.6, 1.0)  # noqa: S311  no secret
            self._woken.wait(pause * spread)
            self._woken.clear()

    def _live(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            if self._is_new:
                continue
            try:
                self._beat()
                self.keyring.write_uses(self._database)
            except DatabaseUnavailable:
                continue  # the other thread sees it too, and tells
            except Exception:
                log.exception(Slug.HEARTBEAT_BROKE, extra={"facts": {"worker": self._index}})

    def _beat(self) -> None:
        with self._beating, self._database.write() as conn:
            is_new = not self._is_known or not replicas.heartbeat(conn, self.id)
            if is_new:
                replicas.hello(conn, self.id, host=socket.gethostname(), pid=os.getpid(), worker=self._index)
            for model, bound in list(self._reported.items()):
                health = self._health.words(model)
                if is_new:
                    held = (bound.version, bound.generation)
                    replicas.report(conn, self.id, model, *held, bound_at=bound.at, health=health)
                else:
                    replicas.report_health(conn, self.id, model, health)
        self._is_known = True

    def _follow_champion(self, champion: Champion) -> None:
        held = self._slots.bundles().get(champion.model)
        if held is None or held.generation < champion.generation:
            # While nothing is served there is nobody to protect from a version that was champion before.
            bundle = self._loaded(champion.model, champion.version, is_tried=self._slots.serves)
            if not isinstance(bundle, Bundle):
                return  # the old bundle serves on
            held = self._bind(bundle.under(champion.generation))
        self._report(held)

    def _keep_previous(self, champion: Champion) -> None:
        """Have the champion before this one ready too: a rollback must not wait for a load, after a restart either."""
        model, version = champion.model, champion.previous_version
        if version is None or version in self._warm.get(model, {}):
            return
        if self.loader.knows(model, version):
            self._taken(model, version)
        elif self._kept.get(model) != version:
            self._kept[model] = version  # tried once: nobody waits for it
            with self._database.read() as conn:
                row = versions.get(conn, model, version)
            if row.state is VersionState.RETIRED:
                self._rows[model, version] = row
                self.loader.begin(row, is_tried=True)

    def _bind(self, bundle: Bundle) -> Bundle:
        # A rollback comes back under a new generation, so its counts begin anew.
        if self._slots.bind(bundle):
            self._telemetry.rebinds.labels(bundle.model).inc()
            told = {"model": bundle.model, "version": bundle.version, "generation": bundle.generation}
            log.info(Slug.REBOUND, extra={"facts": told})
            row = self._rows.get((bundle.model, bundle.version))
            if self._last_good is not None and row is not None:
                self._last_good.note(Held(bundle.generation, row))
        return bundle

    def _report(self, held: Bundle) -> None:
        if not self._is_known:
            return
        bound = self._reported.get(held.model)
        now_serving = (held.version, held.generation)
        if bound is not None and (bound.version, bound.generation) == now_serving:
            return
        with self._database.write() as conn:
            at = self._database.now(conn)
            self._health.begin(held, at)
            health = self._health.words(held.model)
            replicas.report(conn, self.id, held.model, *now_serving, bound_at=at, health=health)
        self._reported[held.model] = Bound(*now_serving, at)

    def _prepare(self, swap: Swap) -> None:
        if self._answered.get(swap.model) == swap.id:
            return
        found = self._loaded(swap.model, swap.version, is_tried=True, is_urgent=True)
        if found is None or self._stop.is_set():
            return  # a worker that leaves says nothing: its trials were broken off
        error = None if isinstance(found, Bundle) else found.detail
        with self._database.write() as conn:
            replicas.answer_swap(conn, self.id, swap.id, swap.model, ready=error is None, error=error)
        self._answered[swap.model] = swap.id

    def _loaded(
        self, model: str, version: int, *, is_tried: bool, is_urgent: bool = False
    ) -> Bundle | ArtifactInvalid | None:
        """Return the warm bundle of a version, or why it can't be loaded; None while that is not known."""
        warm = self._warm.setdefault(model, {})
        if version in warm:
            warm[version] = warm.pop(version)  # the newest use last: the oldest is dropped first
            return warm[version]
        if not self.loader.knows(model, version):
            failed = self._failed.get((model, version))
            if failed is not None and not is_urgent and self._monotonic() < failed[0]:
                return failed[1]
            with self._database.read() as conn:
                row = versions.get(conn, model, version)
            self._rows[model, version] = row
            self.loader.begin(row, is_tried=is_tried)
            return None
        return self._taken(model, version)

    def _taken(self, model: str, version: int) -> Bundle | ArtifactInvalid | None:
        found = self.loader.take(model, version)
        if isinstance(found, ArtifactInvalid):
            now = self._monotonic()
            self._failed = {key: failed for key, failed in self._failed.items() if failed[0] > now}
            self._failed[model, version] = (now + RETRY_LOAD_S, found)
        elif found is not None:
            self._warm[model][version] = found
            self._forget_oldest(model)
        return found

    def _forget_oldest(self, model: str) -> None:
        held = self._slots.bundles().get(model)
        warm = self._warm[model]
        idle = [version for version in warm if held is None or held.version != version]
        for version in idle[: max(len(warm) - KEPT, 0)]:
            del warm[version]
            self._is_untidy = True
        self._rows = {
            key: row for key, row in self._rows.items() if key[0] != model or key[1] in warm or self.loader.knows(*key)
        }

    def _tidy(self) -> None:
        # A look after the last use was dropped: by now the requests that still held it are answered.
        if self._is_untidy:
            self._is_untidy = False
            tidy_memory()

    def _degrade(self, error: DatabaseUnavailable | InvalidSetup) -> None:
        if self._is_new:
            self._restore()
        if self._is_new:
            now = self._monotonic()
            if now - self._complained_at >= COMPLAIN_S:
                self._complained_at = now
                told = {"database": self._database.address, "why": error.detail}
                log.warning(Slug.WAITING, extra={"facts": told})
        elif not self.is_degraded:
            self.is_degraded = True
            self._is_known = False
            self._telemetry.degraded.set(1)
            log.warning(Slug.DATABASE_AWAY, extra={"facts": {"reason": error.detail}})

    def _recover(self) -> None:
        if self.is_degraded:
            self.is_degraded = False
            self._telemetry.degraded.set(0)
            log.info(Slug.DATABASE_BACK, extra={"facts": {"worker": self._index}})

    def _restore(self) -> None:
        """Come up on what this host's workers served last, since nobody says what is to be served now."""
        self.keyring.restore()
        known = {} if self._last_good is None else self._last_good.read()
        for model, held in known.items():
            key = (model, held.row.version)
            if held.row.version not in self._warm.setdefault(model, {}) and not self.loader.knows(*key):
                self._rows[key] = held.row
                self.loader.begin(held.row, is_tried=False)
        while self.loader.is_busy and not self._stop.is_set():
            self._woken.wait(self._look_s)
            self._woken.clear()
            for model, held in known.items():
                if self.loader.knows(model, held.row.version):
                    found = self._taken(model, held.row.version)
                    if isinstance(found, Bundle):
                        self._bind(found.under(held.generation))
        if self._slots.serves:
            self.has_looked.set()
