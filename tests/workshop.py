"""Model files whose code misbehaves in a trainer in a way of the test's choosing, and a home for controllers."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.control.controller import Place
from service.control.processes import Surroundings
from service.domain.run import TERMINAL, Trigger
from service.storage import champions, models, runs
from service.storage.database import Database
from service.storage.runs import Run

__all__ = ["Workshop"]

MODEL = '''
import multiprocessing, os, resource, signal, subprocess, sys, threading, time
from pathlib import Path
import numpy as np
from sklearn.linear_model import LogisticRegression
from service.spec import Drift, Gate, ModelSpec, Retrain, Training

FLAGS = Path(__file__).parent.parent / "flags"
NAME = "{name}"

def in_trainer():
    return multiprocessing.current_process().name.startswith("train-")

def begun():
    """Write down that a fit has begun; return how many have by now."""
    with (FLAGS / f"{{NAME}}.begun").open("a") as file:
        file.write(f"{{os.getpid()}}\\n")
    return len((FLAGS / f"{{NAME}}.begun").read_text().splitlines())

def child():
    """Start a process of the estimator's own."""
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    (FLAGS / f"{{NAME}}.child").write_text(str(started.pid))

def is_set(flag):
    return (FLAGS / f"{{NAME}}.{{flag}}").exists()

class Odd(LogisticRegression):
    def fit(self, X, y):
        if in_trainer():
            tries = begun()
            {fit}
        self.fitted_by_ = os.getpid()
        return super().fit(X, y)

    def predict_proba(self, X):
        if in_trainer() and self.fitted_by_ != os.getpid() and is_set("champion-broken"):
            raise RuntimeError("the champion cannot answer")
        return super().predict_proba(X)

def build():
    if in_trainer():
        {build}
    return Odd()

spec = ModelSpec(
    name=NAME, task="classification", target="y", timestamp="at", build=build, metric="accuracy",
    source="data/source.parquet", drift=Drift(window="7d"), gate=Gate(floor=0.5, approval={approval}),
    training=Training(windows=("all",), holdout="7d", min_rows=100, refit=False, deadline="{deadline}"),
    retrain=Retrain(min_labels=50, max_age=None),
)
'''


class Workshop:
    """A project with odd models and a home, on either database.

    Parameters
    ----------
    folder
        An empty one.
    url
        The database's; a SQLite file in the home when left out.
    """

    def __init__(self, folder: Path, *, url: str | None = None) -> None:
        self.project, self.home = folder / "project", folder / "home"
        for made in (self.project / "models", self.project / "data", self.project / "flags", self.home):
            made.mkdir(parents=True)
        rng = np.random.default_rng(0)
        at = pd.date_range("2026-01-01", periods=24 * 35, freq="1h", tz="UTC")
        x = rng.normal(size=len(at))
        y = np.where(x + rng.normal(size=len(at)) * 0.4 > 0, "up", "down")
        pd.DataFrame({"at": at, "x": x, "y": y}).to_parquet(self.project / "data" / "source.parquet")
        self.url = url or f"sqlite:///{self.home / 'retrue.db'}"
        self.database = Database(self.url)
        self.database.migrate()

    def add(
        self, name: str, *, fit: str = "pass", build: str = "pass", deadline: str = "15m", approval: bool = False
    ) -> None:
        """Write a model file; `fit` and `build` run in trainers only."""
        text = MODEL.format(
            name=name, fit=_indented(fit, 12), build=_indented(build, 8), deadline=deadline, approval=approval
        )
        part = self.project / "models" / f"{name}.part"
        part.write_text(text)
        part.replace(part.with_suffix(".py"))

    def place(self, **overrides: Any) -> Place:
        """Return what a controller needs, with pauses and patience that a test can wait for."""
        values: dict[str, Any] = {
            "tick_s": 0.1,
            "first_pause": timedelta(seconds=0.2),
            "silent_s": 6.0,
            "surroundings": Surroundings(nice=0),
            **overrides,
        }
        return Place(
            database=self.url,
            lake=self.home / "lake",
            artifacts=self.home / "artifacts",
            reports=self.home / "reports",
            models_folder=self.project / "models",
            **values,
        )

    def flag(self, name: str) -> Path:
        """Return the path of a flag: what a model's code reads and writes."""
        return self.project / "flags" / name

    def fits(self, name: str) -> int:
        """Return how many fits of the model have begun."""
        path = self.flag(f"{name}.begun")
        return len(path.read_text().splitlines()) if path.exists() else 0

    def ask(self, model: str, *, force: bool = True) -> Run:
        """Ask for a run."""
        with self.database.write() as conn:
            return runs.create(
                conn, model, trigger=Trigger.MANUAL, actor="me", reason="now", force=force, at=self.database.now(conn)
            )

    def get(self, run_id: str) -> Run:
        """Return the run as it stands."""
        with self.database.read() as conn:
            return runs.get(conn, run_id)

    def first_run(self, model: str) -> Run:
        """Return the model's first run, as soon as there is one."""
        found: Run = self.until(lambda conn: runs.list_of(conn, model)[-1:])[0]
        return found

    def ended(self, run_id: str, *, within_s: float = 120) -> Run:
        """Return the run, once it has ended."""
        found: Run = self.until(
            lambda conn: (run := runs.get(conn, run_id)).state in TERMINAL and run, within_s=within_s
        )
        return found

    def codes(self, run_id: str) -> list[str | None]:
        """Return why the run went back to the queue, each time."""
        with self.database.read() as conn:
            told = runs.events(conn, run_id)
        return [event.code for event in told[1:] if event.after.value == "queued"]

    def champion(self, model: str) -> champions.Champion:
        """Return the model's champion, as soon as it has one."""
        found: champions.Champion = self.until(lambda conn: champions.current(conn, model))
        return found

    def until(self, seen: Callable[[Any], Any], *, within_s: float = 120) -> Any:
        """Return what `seen` finds in the database, once it finds something."""
        ends = time.monotonic() + within_s
        while time.monotonic() < ends:
            with self.database.read() as conn:
                if found := seen(conn):
                    return found
            time.sleep(0.02)
        with self.database.read() as conn:
            facts = [(run.model, run.state, run.attempt, run.code, run.detail) for run in runs.list_of(conn)]
            broken = [(row.name, row.error) for row in models.list_all(conn) if row.error]
        pytest.fail(f"not within {within_s} s; runs: {facts}; models: {broken}")


def _indented(code: str, by: int) -> str:
    return code.strip("\n").replace("\n", "\n" + " " * by)
