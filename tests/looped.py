"""A controller in the test's process with its real children, and the traffic of one model: for tests of the loop."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from service.api.application import Parts, create
from service.control.controller import Controller, Place
from service.control.files import load_spec, read_source
from service.control.processes import Surroundings
from service.learning.frames import between, canonical
from service.learning.schema import infer
from service.serving.worker import Worker
from service.storage import champions, checks, models, runs
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.telemetry import Telemetry
from tests.asgi import Client, serving
from tests.served import spool
from tests.serving_stand_in import StandIn

__all__ = ["WEEK", "Loop"]

WEEK = timedelta(days=7)


class Loop:
    """A controller with its real children, and the traffic of one model.

    Parameters
    ----------
    folder
        Holds a folder ``project`` with ``models/<model>.py`` and its source; the home is made beside it.
    model
        The model that gets the traffic.
    nice
        How nice the children are.
    """

    def __init__(self, folder: Path, model: str, *, nice: int = 0) -> None:
        self.model = model
        self.project = folder / "project"
        self.home = folder / "home"
        self.home.mkdir()
        self.url = f"sqlite:///{self.home / 'retrue.db'}"
        self.database = Database(self.url)
        self.database.migrate()
        self.place = Place(
            database=self.url,
            lake=self.home / "lake",
            artifacts=self.home / "artifacts",
            reports=self.home / "reports",
            models_folder=self.project / "models",
            tick_s=0.1,
            surroundings=Surroundings(nice=nice),
        )
        self.controller = self.start()
        self.traffic = StandIn(self.home, self.database, model, label_delay=timedelta(hours=1))
        spec = load_spec(self.project / "models" / f"{model}.py", self.project)
        source = read_source(spec, self.project)
        self.rows = canonical(spec, infer(spec, source), source)

    def start(self) -> Controller:
        """Return a controller that ticks."""
        controller = Controller(self.place, self.database, Telemetry())
        controller.start()
        return controller

    def close(self) -> None:
        """End all of it."""
        self.controller.stop()
        self.traffic.close()
        self.database.close()

    @contextmanager
    def api(self) -> Iterator[Client]:
        """Yield a client of a worker's application, on connections of its own, that has loaded the champion."""
        database, telemetry = Database(self.url), Telemetry()
        worker = Worker(
            database, ArtifactStore(self.home / "artifacts"), spool=spool(self.home / "spool"), telemetry=telemetry
        )
        app = create(Parts(worker=worker, database=database, telemetry=telemetry, home=self.home))
        with serving(app) as client:
            self.until(lambda _: client.get("/readyz").status_code == httpx.codes.OK)
            yield client
        database.close()

    def until(self, seen: Callable[[Any], Any], *, within_s: float = 60) -> Any:
        """Return what `seen` finds in the database, once it finds something."""
        ends = time.monotonic() + within_s
        while time.monotonic() < ends:
            with self.database.read() as conn:
                if found := seen(conn):
                    return found
            time.sleep(0.02)
        with self.database.read() as conn:
            facts = [(run.state, run.code, (run.gate or {}).get("reason"), run.detail) for run in runs.list_of(conn)]
            broken = [(row.name, row.error) for row in models.list_all(conn)]
        pytest.fail(f"not within {within_s} s; runs: {facts}; models: {broken}")

    def champion(self, version: int) -> champions.Champion:
        """Return the champion, once it is that version and no run is under way."""
        found: champions.Champion = self.until(
            lambda conn: (now := champions.current(conn, self.model)) and now.version == version and now
        )
        self.until(lambda conn: not [run for run in runs.unfinished(conn) if run.active])
        return found

    def ended(self, run_id: str | None) -> runs.Run:
        """Return the run, once it is no longer active."""
        assert run_id is not None
        found: runs.Run = self.until(lambda conn: not (now := runs.get(conn, run_id)).active and now)
        return found

    def week(self, end: Any) -> pd.DataFrame:
        """Return the rows of the week that ends then."""
        return between(self.rows, after=end - WEEK, until=end)

    def stream(self, rows: pd.DataFrame) -> None:
        """Let the champion answer these rows day by day, and bring all of it into the lake."""
        for first in range(0, len(rows), 24):
            self.traffic.send(rows.iloc[first : first + 24])
        self.traffic.commit()

    def checked(self, end: Any) -> checks.Check:
        """Return the check of the window that ends then, once it is done."""
        done: checks.Check = self.until(
            lambda conn: (last := checks.latest_done(conn, self.model)) and last.window_until == end and last
        )
        return done

    def stream_week(self, end: Any) -> checks.Check:
        """Let the champion answer a week; return its check."""
        self.stream(self.week(end))
        return self.checked(end)
