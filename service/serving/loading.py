"""Loading: versions become warm bundles on threads of their own, so that one which never ends holds nobody up."""

import contextlib
import ctypes
import gc
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from service.domain.errors import ArtifactInvalid
from service.domain.spec import Schema
from service.serving.block import Layout
from service.serving.bundle import Bundle, load
from service.serving.imports import import_learners, spare_pandas
from service.serving.recent import Recent
from service.serving.trials import Trials, starved_s
from service.storage.artifacts import ArtifactStore
from service.storage.versions import VersionRow
from service.telemetry import Slug, Telemetry

__all__ = ["LOAD_S", "Loader", "tidy_memory"]

log = logging.getLogger(__name__)

LOAD_S = 60.0
"""A load that takes longer is given up; its trial, and what it waits for a processor on a busy host, do not count."""

Outcome = Bundle | ArtifactInvalid


@dataclass(eq=False)
class Load:
    """One load under way."""

    row: VersionRow
    is_tried: bool
    since: float | None = None
    """When the load in this process began."""
    outcome: Outcome | None = None
    taken_s: float = 0.0
    thread: threading.Thread = field(init=False)


class Loader:
    """Loads versions, each on its own thread.

    Parameters
    ----------
    store
        The artifacts.
    recent
        Gives the rows of a model that were answered lately.
    trials
        Where versions are tried first; None: they are loaded right away.
    telemetry
        Event metrics.
    woken
        Called when a load has ended.
    deadline_s, monotonic
        When a load is given up, on which clock.
    """

    def __init__(
        self,
        store: ArtifactStore,
        *,
        recent: Callable[[str], Recent],
        trials: Trials | None,
        telemetry: Telemetry,
        woken: Callable[[], None],
        deadline_s: float = LOAD_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._recent, self._trials, self._telemetry = store, recent, trials, telemetry
        self._woken, self._deadline_s, self._monotonic = woken, deadline_s, monotonic
        self._loads: dict[tuple[str, int], Load] = {}
        spare_pandas()

    @property
    def is_busy(self) -> bool:
        """Whether a load is under way that was not given up."""
        return bool(self._loads)

    def knows(self, model: str, version: int) -> bool:
        """Return whether the version is being loaded."""
        return (model, version) in self._loads

    def begin(self, row: VersionRow, *, is_tried: bool) -> None:
        """Start to load a version, after a trial elsewhere if `is_tried`."""
        job = Load(row, is_tried=is_tried)
        job.thread = threading.Thread(target=self._run, args=(job,), name=f"load-{row.model}", daemon=True)
        self._loads[row.model, row.version] = job
        job.thread.start()

    def take(self, model: str, version: int) -> Outcome | None:
        """Return what became of the load, once; None while it is under way."""
        job = self._loads[model, version]
        if job.outcome is None and not self._is_late(job):
            return None
        del self._loads[model, version]
        # A thread can't be ended: it is left to itself, and what it may yet bring is dropped.
        outcome = job.outcome or _given_up(job.row, self._deadline_s)
        self._tell(job, outcome)
        return outcome

    def _is_late(self, job: Load) -> bool:
        if job.since is None or self._monotonic() - job.since < self._deadline_s:
            return False
        thread = job.thread.native_id or 0
        return self._monotonic() - job.since - starved_s(os.getpid(), thread) >= self._deadline_s

    def close(self) -> None:
        """End the trials that run; threads end with the process."""
        if self._trials is not None:
            self._trials.close()

    def _run(self, job: Load) -> None:
        began = self._monotonic()
        try:
            outcome: Outcome = self._loaded(job)
        except ArtifactInvalid as error:
            outcome = error
        except Exception as error:
            log.exception(Slug.LOAD_BROKE, extra={"facts": {"model": job.row.model, "version": job.row.version}})
            outcome = _broken(job.row, error)
        job.taken_s = self._monotonic() - began
        job.outcome = outcome
        self._woken()

    def _loaded(self, job: Load) -> Bundle:
        row, rows = job.row, self._recent(job.row.model).rows
        known = len(sys.modules)
        if self._trials is not None and (job.is_tried or self._trials.has_killed(row)):
            layout = _layout(row)
            _import(self._trials.prove(row, None if layout is None else rows(layout)))
        job.since = self._monotonic()
        with contextlib.nullcontext() if self._trials is None else self._trials.loading(row):
            bundle = load(self._store, row, generation=0)
        bundle.warm(rows(bundle.layout))
        if len(sys.modules) > known:
            _settle_in()
        return bundle

    def _tell(self, job: Load, outcome: Outcome) -> None:
        row, told = job.row, {"model": job.row.model, "version": job.row.version}
        if isinstance(outcome, Bundle):
            self._telemetry.loads.labels(row.model, "ok").inc()
            self._telemetry.load_seconds.labels(row.model).observe(job.taken_s)
            seconds = round(job.taken_s, 3)
            log.info(Slug.LOADED, extra={"facts": {**told, "engine": outcome.engine, "seconds": seconds}})
            if outcome.fallback is not None:
                self._telemetry.compiled_fallbacks.labels(row.model).inc()
                log.warning(Slug.NOT_COMPILED, extra={"facts": {**told, "why": outcome.fallback}})
            return
        self._telemetry.loads.labels(row.model, str(outcome.facts.get("reason", "broken"))).inc()
        log.error(Slug.LOAD_FAILED, extra={"facts": {**told, "error": outcome.detail}})


def tidy_memory() -> None:
    """Free what retired bundles left: their cycles, and the pages that the allocator keeps.

    Quick, because what was imported is frozen: the collector looks at the bundles and the requests under way alone.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _settle_in() -> None:
    # Modules live for ever, and a collection over scikit-learn's takes a tenth of a second in the middle of requests.
    # It is not collected first for that very reason, and never thawed: bundles are loaded after it, so they stay out.
    gc.freeze()


def _import(modules: list[str]) -> None:
    """Import what the version needs before it is loaded."""
    known = len(sys.modules)
    import_learners(modules)
    for name in modules:
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # the load itself says what is missing
                importlib.import_module(name)
    if len(sys.modules) > known:
        _settle_in()


def _layout(row: VersionRow) -> Layout | None:
    try:
        return Layout(Schema.from_json(row.manifest["schema"]))
    except (KeyError, TypeError, ValueError):
        return None  # the load itself says what is wrong with it


def _given_up(row: VersionRow, after_s: float) -> ArtifactInvalid:
    msg = f"{row.model} version {row.version}: its load did not end within {after_s:g} s"
    return ArtifactInvalid(msg, model=row.model, version=row.version, reason="hang")


def _broken(row: VersionRow, error: Exception) -> ArtifactInvalid:
    msg = f"{row.model} version {row.version}: it could not be loaded ({type(error).__name__})"
    return ArtifactInvalid(msg, model=row.model, version=row.version, reason="broken")
