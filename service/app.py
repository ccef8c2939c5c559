"""The wiring: builds the rooms for each role, opens and closes them. Children start here too, by ``python -m``.

Imports stand in the functions: a supervisor needs none of what a worker needs, and a worker none of a controller's.
"""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.domain.errors import DatabaseUnavailable, InvalidSetup, KeysMissing, RetrueError
from service.journal import facts, set_up
from service.settings import Settings, explain, load, prepare_home

if TYPE_CHECKING:
    from service.control.files import FoundModel
    from service.storage.database import Database

__all__ = [
    "read_models",
    "run_api",
    "run_committer",
    "run_controller",
    "run_serve",
    "run_worker",
]

log = logging.getLogger("service.app")

RETRY_S = 1.0
COMPLAIN_S = 5.0
NO_KEYS, NOT_KNOWN = 4, 5
"""Exit codes of the process that looks whether there are keys."""
WORKER_PATIENCE_S = 3.0
"""A worker's questions to the database are few and small, and somebody may be waiting for the answer."""


def run_serve(settings: Settings) -> None:
    """Run everything on this machine until SIGTERM or SIGINT.

    Raises
    ------
    HomeUnusable, PortInUse, SettingInvalid, KeysMissing
        If it cannot start.
    """
    _supervise(settings, with_controller=True)


def run_api(settings: Settings) -> None:
    """Run API workers and their committer until SIGTERM or SIGINT; raises as `run_serve`."""
    _supervise(settings, with_controller=False)


def run_controller(settings: Settings, *, life_line: int | None = None) -> None:
    """Run one controller in this process until SIGTERM or SIGINT.

    Raises
    ------
    HomeUnusable
        If it cannot start.
    """
    from service.control.beacon import Beacon
    from service.control.controller import Controller, Place
    from service.control.outbox import Webhooks
    from service.control.processes import Surroundings
    from service.control.supervisor import leave_with_parent
    from service.domain.notice import endpoints_of, secrets_of
    from service.telemetry import Telemetry
    from service.traces import open_traces

    stop = _stop_event()
    set_up("controller", level=settings.log_level, style=settings.log_format)
    leave_with_parent(life_line, grace_s=settings.shutdown_s)
    prepare_home(settings)
    database = _database(settings, stop)
    place = Place(
        database=settings.database,
        lake=settings.lake,
        artifacts=settings.artifacts,
        reports=settings.reports,
        models_folder=settings.models_folder,
        tick_s=settings.tick_s,
        settle_s=settings.spool_segment_s + settings.commit_s,
        report_every_s=settings.report_every_s,
        trainers=settings.trainers,
        queue=timedelta(hours=settings.queue_hours),
        approval=timedelta(days=settings.approval_days),
        compiles=settings.compile == "auto",
        surroundings=Surroundings(
            nice=settings.training_nice,
            threads=settings.training_threads,
            cpus=settings.cpus,
            memory_bytes=settings.training_memory_bytes,
            log_level=settings.log_level,
            log_format=settings.log_format,
        ),
        webhooks=Webhooks(
            endpoints=endpoints_of(settings.webhook_urls),
            keys=secrets_of(settings.webhook_secret),
            source=settings.webhook_source,
            timeout_s=settings.webhook_timeout_s,
            tries=settings.webhook_tries,
            first_pause=timedelta(seconds=settings.webhook_first_pause_s),
        ),
    )
    if stop.is_set():
        return
    telemetry, traces = Telemetry(), open_traces(settings.otlp_endpoint, role="controller")
    controller = Controller(place, database, telemetry, traces=traces)
    controller.start()
    beacon = None
    if life_line is None and settings.controller_port:
        beacon = Beacon(settings.host, settings.controller_port, telemetry, is_alive=controller.is_alive)
        beacon.start()
    log.info("controller_started", extra=facts(home=settings.home, database=database.address))
    stop.wait()
    controller.stop()
    if beacon is not None:
        beacon.stop()
    if traces is not None:
        traces.close()
    database.close()
    log.info("controller_stopped", extra=facts())


def run_worker(settings: Settings, *, fd: int, index: int, life_line: int | None = None) -> None:
    """Run one API worker on the listening socket `fd` until SIGTERM or SIGINT."""
    from service.api.application import Parts
    from service.api.problems import status_of
    from service.api.rates import Rates
    from service.api.server import run
    from service.api.session import Sessions
    from service.api.signing import Signing
    from service.console.door import KeyedDoor
    from service.console.routes import PAGES, router
    from service.console.site import Site
    from service.control.supervisor import leave_with_parent
    from service.serving.worker import Limits, Worker
    from service.storage.artifacts import ArtifactStore
    from service.storage.database import Database
    from service.storage.spool import SpoolWriter
    from service.telemetry import Telemetry
    from service.traces import open_traces

    set_up(f"api-{index}", level=settings.log_level, style=settings.log_format)
    leave_with_parent(life_line, grace_s=settings.shutdown_s)
    database = Database(settings.database, patience_s=WORKER_PATIENCE_S)
    telemetry = Telemetry()
    traces = open_traces(settings.otlp_endpoint, role="api", predictions=settings.trace_predictions)
    spool = SpoolWriter(
        settings.spool,
        max_bytes=settings.spool_segment_bytes,
        max_age_s=settings.spool_segment_s,
        cap_bytes=settings.spool_cap_bytes,
        sync=settings.spool_sync,
    )
    limits = Limits(
        body_bytes=settings.body_limit_bytes, queue_rows=settings.queue_rows, deadline_s=settings.request_deadline_s
    )
    worker = Worker(
        database,
        ArtifactStore(settings.artifacts),
        spool=spool,
        telemetry=telemetry,
        index=index,
        limits=limits,
        sync=settings.spool_sync,
        folder=settings.run,
    )
    keyring, may_be_open = worker.replica.keyring, settings.access == "auto" and settings.is_loopback
    signing = Signing(Sessions(database, keyring), is_open=lambda: may_be_open and not keyring.has_any)
    site = Site(
        database,
        settings=explain(settings),
        status_of=status_of,
        is_leaving=lambda: worker.is_leaving,
        door=KeyedDoor(signing),
    )
    parts = Parts(
        worker=worker,
        database=database,
        telemetry=telemetry,
        home=settings.home,
        rooms=[router(site)],
        may_be_open=may_be_open,
        rates=Rates(predict=settings.predict_rate_limit, other=settings.rate_limit),
        traces=traces,
        pages=PAGES,
    )
    run(parts, socket.socket(fileno=fd), shutdown_s=settings.shutdown_s)
    if traces is not None:
        traces.close()


def run_committer(settings: Settings, *, life_line: int | None = None) -> None:
    """Run this host's committer until SIGTERM or SIGINT."""
    from service.control.commits import commit_until
    from service.control.retention import Keeping
    from service.control.supervisor import leave_with_parent
    from service.storage.database import Database
    from service.storage.lake import Lake
    from service.telemetry import Telemetry

    stop = _stop_event()
    set_up("committer", level=settings.log_level, style=settings.log_format)
    leave_with_parent(life_line, grace_s=settings.shutdown_s)
    telemetry = Telemetry()
    telemetry.spool_cap_bytes.set(settings.spool_cap_bytes)
    commit_until(
        stop,
        settings.spool,
        Lake(settings.lake),
        every_s=settings.commit_s,
        maintain_s=settings.maintain_s,
        telemetry=telemetry,
        keeping=Keeping(Database(settings.database)),
    )


def read_models(settings: Settings, folder: Path | None = None) -> "list[FoundModel]":
    """Return what each model file holds, checked against its source; needs no database."""
    from service.control.files import read_files

    return read_files(folder or settings.models_folder)


def _supervise(settings: Settings, *, with_controller: bool) -> None:
    from service.control.supervisor import Child, Supervisor, bind, lock_family, lock_home, wipe

    set_up("supervisor", level=settings.log_level, style=settings.log_format)
    prepare_home(settings)
    _refuse_without_keys(settings)
    with lock_home(settings.home), ExitStack() as stack:
        family = lock_family(settings.home)
        stack.callback(os.close, family)
        listener = stack.enter_context(bind(settings.host, settings.port))
        wipe(settings.run)
        host, port = listener.getsockname()[:2]
        fd = listener.fileno()
        start = ("-m", "service.app")
        children = [
            Child(
                name=f"api-{index}",
                argv=(*start, "worker", "--parent", "{parent}", "--fd", str(fd), "--index", str(index)),
                fds=(fd, family),
            )
            for index in range(settings.workers)
        ]
        roles = ("committer", "controller") if with_controller else ("committer",)
        for role in roles:
            argv = (*start, role, "--parent", "{parent}")
            children.append(Child(name=role, argv=argv, fds=(family,), last=role == "committer"))
        log.info("listening", extra=facts(address=f"http://{host}:{port}", workers=settings.workers))
        environ = _environ(settings)
        os.environ.update(environ)  # before the first import of prometheus_client, which reads its folder from there
        from service.telemetry import Telemetry

        restarts = Telemetry().restarts
        Supervisor(
            children,
            environ=environ,
            grace_s=settings.shutdown_s,
            metrics=settings.run,
            restarted=lambda name: restarts.labels(role=name.partition("-")[0]).inc(),
        ).run()
        log.info("stopped", extra=facts())


def _refuse_without_keys(settings: Settings) -> None:
    """Refuse to listen where others may come by, while no key was ever made."""
    if settings.is_loopback:
        return
    # In a process of its own: a supervisor keeps for good what it once imported.
    argv = [sys.executable, "-m", "service.app", "keys"]
    code = subprocess.run(argv, env=_environ(settings), stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603
    if code == NO_KEYS:
        msg = (
            f"refusing to listen on {settings.host} without any key, for anybody who reaches it could do everything: "
            "make one with `retrue keys create --role admin --name NAME`, or set RETRUE_HOST to 127.0.0.1"
        )
        raise KeysMissing(msg, host=settings.host)
    if code:
        log.warning("keys_not_known", extra=facts(why="the database does not answer; until it does nobody comes in"))


def _look_for_keys(settings: Settings) -> int:
    from service.storage import keys
    from service.storage.database import Database

    database = Database(settings.database, patience_s=WORKER_PATIENCE_S)
    try:
        return 0 if keys.were_made_in(database) else NO_KEYS
    except DatabaseUnavailable:
        return NOT_KNOWN
    finally:
        database.close()


def _environ(settings: Settings) -> dict[str, str]:
    """Return a child's environment: these settings, one thread a library, and one folder for all metrics."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(settings.run), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **settings.environ(), **threads, **shared}


def _stop_event() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def leave(number: int, frame: object) -> None:  # noqa: ARG001  signal's own signature
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    return stop


def _database(settings: Settings, stop: threading.Event) -> "Database":
    """Return the database as soon as it answers and has its tables; says what it waits for."""
    from service.storage.database import Database

    database = Database(settings.database)
    complained = time.monotonic() - COMPLAIN_S
    while not stop.is_set():
        try:
            database.migrate()
        except (DatabaseUnavailable, InvalidSetup) as error:
            now = time.monotonic()
            if now - complained >= COMPLAIN_S:
                complained = now
                log.warning("controller_waits_for_database", extra=facts(database=database.address, why=error.detail))
            stop.wait(RETRY_S)
        else:
            return database
    sys.exit(0)


def _child(arguments: list[str]) -> None:
    """Run the role that a supervisor asked for; its settings came with the environment."""
    parser = argparse.ArgumentParser(prog="service.app")
    parser.add_argument("role", choices=["worker", "committer", "controller", "keys"])
    parser.add_argument("--parent", type=int, default=None)
    parser.add_argument("--fd", type=int, default=-1)
    parser.add_argument("--index", type=int, default=0)
    given: Any = parser.parse_args(arguments)
    settings = load(env_file=Path(os.devnull))
    try:
        if given.role == "worker":
            run_worker(settings, fd=given.fd, index=given.index, life_line=given.parent)
        elif given.role == "keys":
            sys.exit(_look_for_keys(settings))
        elif given.role == "committer":
            run_committer(settings, life_line=given.parent)
        else:
            run_controller(settings, life_line=given.parent)
    except RetrueError as error:
        log.critical("cannot_start", extra=facts(role=given.role, code=error.code, why=error.detail))
        sys.exit(2)


if __name__ == "__main__":
    _child(sys.argv[1:])
