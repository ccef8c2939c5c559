"""A whole service for the acceptance tests: HTTP, spool, committer, lake, two controllers and their real trainers.

The model file is the saboteur: it runs in the trainer, where it says what it runs under, waits while a file is there,
and kills its own process at the state that a file names.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pandas as pd

from service.control.controller import Controller
from service.domain.run import RunState
from service.storage import champions, checks, models, runs, versions
from service.storage.database import Database
from service.storage.lake import Lake
from service.storage.spool import segments_of, streams
from service.telemetry import Telemetry
from tests.asgi import Client
from tests.looped import WEEK, Loop

__all__ = ["NICE", "Given", "House"]

NICE = 3
LAUNCHER = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from service.control import controller as room
from service.control.leader import Leader, Term
from service.control.processes import Surroundings
from service.storage.database import Database
from service.telemetry import Telemetry

if __name__ == "__main__":
    home, models, wanted = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    write = Term.write

    @contextmanager
    def deadly(self):
        with write(self) as conn:
            yield conn
        with self.database.read() as conn:
            states = [row.state for row in conn.exec_driver_sql("SELECT state FROM runs WHERE active")]
        if wanted in states:
            os.kill(os.getpid(), signal.SIGKILL)

    Term.write = deadly
    room.RENEW_S = 0.5
    room.Processes.warm_up = lambda self: None  # it lives too short to need its children's libraries
    url = f"sqlite:///{home / 'retrue.db'}"
    place = room.Place(
        database=url, lake=home / "lake", artifacts=home / "artifacts", reports=home / "reports",
        models_folder=models, tick_s=0.1, surroundings=Surroundings(nice=0),
    )
    one = room.Controller(place, Database(url), Telemetry())
    one.leader = Leader(Database(url), ttl_s=5.0)
    one.start()
    signal.pause()
"""
"""A controller that kills itself after the transaction that finds an active run in the state it was given."""

MODEL = """
import json
import os
import signal
import time
from contextlib import contextmanager
from multiprocessing import current_process
from pathlib import Path

from sklearn.dummy import DummyClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from service.spec import Drift, Feature, Gate, ModelSpec, Probation, Retrain, Training

HERE = Path(__file__).parents[1]
IN_TRAINER = current_process().name.startswith("train-")


def die_at(*states):
    wanted = (HERE / "kill").read_text().split() if (HERE / "kill").exists() else []
    if wanted and wanted[0] in states:
        (HERE / "kill").write_text(" ".join(wanted[1:]))
        os.kill(os.getpid(), signal.SIGKILL)


if IN_TRAINER:
    from service.control.leader import Term

    write = Term.write

    @contextmanager
    def deadly(self):
        with write(self) as conn:
            yield conn
        with self.database.read() as conn:
            die_at(*(row.state for row in conn.exec_driver_sql("SELECT state FROM runs WHERE active")))

    Term.write = deadly
    die_at("preparing")


def build():
    if IN_TRAINER:
        caps = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        told = json.dumps({"pid": os.getpid(), "nice": os.nice(0), "caps": caps})
        (HERE / "trainer.part").write_text(told)
        (HERE / "trainer.part").replace(HERE / "trainer.json")
        ends = time.monotonic() + 60
        while (HERE / "hold").exists() and time.monotonic() < ends:
            time.sleep(0.02)
    if (HERE / "worse").exists():
        return DummyClassifier()
    return make_pipeline(SimpleImputer(keep_empty_features=True), LogisticRegression())


spec = ModelSpec(
    name="shop", task="classification", target="y", timestamp="at", build=build, metric="accuracy",
    features=[Feature("x", nullable=True), Feature("z", nullable=True)], source="data/shop.parquet",
    training=Training(initial="28d", windows=("7d", "all"), holdout="7d", min_rows=100), drift=Drift(window="7d"),
    # Each check finds a cause; a person starts the runs, so that each test knows its own.
    retrain=Retrain(mode="suggest", max_age="1d", min_labels=1, cooldown="20d", retry="20d"),
    gate=Gate(floor=0.5), probation=Probation(duration=None),
)
"""
TURNS = 3
"""Served weeks until the world turns round."""


@dataclass(frozen=True)
class Given:
    """One answer as a client remembers it."""

    id: str
    at: datetime
    version: int
    output: str
    truth: str


def write_project(folder: Path) -> None:
    """Write the model and half-hourly rows of 18 weeks."""
    (folder / "models").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "models" / "shop.py").write_text(MODEL)
    rng = np.random.default_rng(3)
    n = 48 * 7 * 18
    x, z, noise = rng.normal(size=n), rng.normal(size=n), rng.normal(size=n) * 0.3
    sign = np.where(np.arange(n) < 48 * 7 * (4 + TURNS), 1.0, -1.0)
    frame = {
        "at": pd.date_range("2026-01-01", periods=n, freq="30min", tz="UTC"),
        "x": x,
        "z": z,
        "y": np.where(sign * x + noise > 0, "up", "down"),
    }
    pd.DataFrame(frame).to_parquet(folder / "data" / "shop.parquet")


class House(Loop):
    """All of the service on one home."""

    client: Client

    def __init__(self, folder: Path) -> None:
        write_project(folder / "project")
        super().__init__(folder, "shop", nice=NICE)
        self.controllers = [self.controller, self._another()]
        self._api = ExitStack()
        self.champion(1)
        self.open_api()
        with self.database.read() as conn:
            self.now: datetime = versions.get(conn, "shop", 1).learned_until
        self.given: list[Given] = []
        self.labels: dict[str, str] = {}

    def close(self) -> None:
        """End all of it."""
        self.close_api()
        self.stop_controllers()
        super().close()

    def open_api(self) -> None:
        """Start a worker and its application."""
        self._api = ExitStack()
        self.client = self._api.enter_context(self.api())

    def close_api(self) -> None:
        """Stop them."""
        self._api.close()

    def stop_controllers(self) -> None:
        """Stop both controllers."""
        for one in self.controllers:
            one.stop()
        self.controllers = []

    def start_controllers(self) -> None:
        """Start two controllers that know nothing of those before."""
        self.controllers = [self._another(), self._another()]

    def doomed_controller(self, state: RunState) -> "subprocess.Popen[bytes]":
        """Return the process of a controller that dies when a run is in that state."""
        launcher = self.project / "launcher.py"
        launcher.write_text(LAUNCHER)
        command = [sys.executable, str(launcher), str(self.home), str(self.project / "models"), state.value]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        return subprocess.Popen(command, env=environment)

    @contextmanager
    def told(self, word: Literal["hold", "worse"]) -> Iterator[None]:
        """Let trainers wait in the middle of their fit, or learn nothing that could pass."""
        file = self.project / word
        file.touch()
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    def kill_trainer_at(self, *states: RunState) -> None:
        """Let the coming trainers kill themselves, one after the other, at these states."""
        (self.project / "kill").write_text(" ".join(state.value for state in states))

    def answer(self, rows: pd.DataFrame) -> list[Given]:
        """Ask for the rows day by day, with their event times."""
        new: list[Given] = []
        for first in range(0, len(rows), 48):
            part = rows.iloc[first : first + 48]
            values = zip(part["x"].tolist(), part["z"].tolist(), part["event_time"], strict=True)
            asked = [
                {"x": None if np.isnan(x) else x, "z": None if np.isnan(z) else z, "at": at.isoformat()}
                for x, z, at in values
            ]
            response = self.client.post("/v1/models/shop/predict", json={"instances": asked})
            assert response.status_code == httpx.codes.OK, response.text
            told = response.json()
            moments = [moment.to_pydatetime() for moment in part["event_time"]]
            columns = zip(told["ids"], moments, told["predictions"], part["label"], strict=True)
            new += [Given(one, at, told["version"], output, truth) for one, at, output, truth in columns]
        self.given += new
        return new

    def label(self, answers: Sequence[Given], *, after: timedelta = timedelta(hours=1), is_wrong: bool = False) -> None:
        """Send labels, that many hours of event time late."""
        other = {"up": "down", "down": "up"} if is_wrong else {"up": "up", "down": "down"}
        for first in range(0, len(answers), 500):
            labels = [
                {"id": one.id, "label": other[one.truth], "observed_at": (one.at + after).isoformat()}
                for one in answers[first : first + 500]
            ]
            response = self.client.post("/v1/models/shop/feedback", json={"labels": labels})
            assert response.status_code == httpx.codes.ACCEPTED, response.text
            self.labels |= {label["id"]: label["label"] for label in labels}

    def settle(self) -> None:
        """Move everything that was answered and labelled into the lake."""

        def is_there(_: Any) -> bool:
            self.traffic.commit()
            return not any(list(segments_of(one, with_open=True)) for one in streams(self.home / "spool"))

        self.until(is_there)

    def next_week(self) -> pd.DataFrame:
        """Return the rows of the week that comes next; it is the present one from now on."""
        self.now += WEEK
        return self.week(self.now)

    def live(self, rows: pd.DataFrame, *, is_labelled: bool = True) -> checks.Check:
        """Answer a week, label what has come of age, and return its check."""
        new = self.answer(rows)
        if is_labelled:
            self.label([one for one in new if one.at + timedelta(hours=1) <= self.now])
        self.settle()
        return self.checked(self.now)

    def ask_run(self, *, force: bool = True) -> str:
        """Ask for a run over HTTP; return its id."""
        response = self.client.post("/v1/models/shop/runs", json={"reason": "acceptance", "force": force})
        assert response.status_code == httpx.codes.ACCEPTED, response.text
        return str(response.json()["id"])

    def run_is(self, run_id: str, state: RunState) -> runs.Run:
        """Return the run, once it is in that state."""
        found: runs.Run = self.until(lambda conn: (now := runs.get(conn, run_id)).state is state and now)
        return found

    def pointer(self) -> champions.Champion:
        """Return the champion of now."""
        with self.database.read() as conn:
            found = champions.current(conn, "shop")
        assert found is not None
        return found

    def accuracy(self, version: int) -> tuple[int, float]:
        """Return how many answers of `version` are labelled in the newest such week, and how many of them are right."""
        mine = [one for one in self.given if one.version == version and one.id in self.labels]
        newest = max(one.at for one in mine)
        judged = [one for one in mine if one.at > newest - WEEK]
        return len(judged), sum(one.output == self.labels[one.id] for one in judged) / len(judged)

    def state(self) -> dict[str, Any]:
        """Return what a rejected challenger may not touch: champion, reference, checks and switches, to the byte."""
        champion = self.pointer()
        with self.database.read() as conn:
            version = versions.get(conn, "shop", champion.version)
            # The evidence of the newest check may still be drawn.
            listed = [replace(one, report=None) for one in checks.list_of(conn, "shop")]
            switches = models.switches(conn, "shop")
        return {
            "champion": champion,
            "version": version,
            "artifact": (self.home / "artifacts" / version.artifact).read_bytes(),
            "reference": Lake(self.home / "lake").read_snapshot(version.reference),
            "checks": listed,
            "switches": switches,
        }

    def _another(self) -> Controller:
        controller = Controller(self.place, Database(self.url), Telemetry())
        controller.start()
        return controller
