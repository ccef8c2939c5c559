"""The whole loop with the real command: two workers, a committer, a controller, and a stream until a swap."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.client import Refused, Retrue, Unreachable
from service.domain.answer import answers
from service.domain.spec import Schema
from service.learning.frames import design
from service.learning.package import unpack
from service.replay import Answer, Pace, Replay, rows_of
from service.storage.artifacts import ArtifactStore

MODEL_FILE = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.spec import Drift, Feature, Gate, ModelSpec, Retrain, Training

spec = ModelSpec(
    name="flip",
    task="classification",
    target="outcome",
    timestamp="at",
    features=[Feature("a", low=-10, high=10), Feature("b"), Feature("weekend", kind="boolean")],
    build=lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    metric="accuracy",
    source="data/flip.csv",
    training=Training(initial="28d", windows=("14d", "all"), holdout="7d", min_rows=100),
    drift=Drift(window="7d"),
    retrain=Retrain(cooldown="7d", min_labels=50, max_age=None),
    gate=Gate(min_rows=50),
)
"""

BROKEN_FILE = "raise RuntimeError('this model file is broken on purpose')\n"


def make_data(path: Path) -> pd.DataFrame:
    """Write 84 days of hourly rows whose meaning turns around after 49 days."""
    rng = np.random.default_rng(7)
    n = 84 * 24
    at = pd.date_range("2026-01-01", periods=n, freq="h", tz="UTC")
    a, b = rng.normal(size=n), rng.normal(size=n)
    turned = np.where(np.arange(n) < 49 * 24, 1.0, -1.0)
    outcome = np.where(turned * (a + 0.5 * b) + rng.normal(scale=0.5, size=n) > 0, "yes", "no")
    frame = pd.DataFrame({"at": at, "a": a, "b": b, "weekend": at.dayofweek >= 5, "outcome": outcome})
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return frame


def wait_for(claim: Callable[[], Any], *, deadline_s: float, what: str) -> Any:
    ends = time.monotonic() + deadline_s
    while time.monotonic() < ends:
        try:
            value = claim()
        except (Refused, Unreachable):
            value = None
        if value:
            return value
        time.sleep(0.05)
    pytest.fail(f"{what}: not within {deadline_s} s")


class Service:
    """The real command in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {
            "RETRUE_HOME": str(self.home),
            "RETRUE_MODELS_FOLDER": str(folder / "models"),
            "RETRUE_URL": self.url,
            "OMP_NUM_THREADS": "1",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "service.log").open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve", "--workers", "2", "--port", str(self.port)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("loop")
    make_data(folder / "data" / "flip.csv")
    (folder / "models").mkdir()
    (folder / "models" / "flip.py").write_text(MODEL_FILE)
    (folder / "models" / "broken.py").write_text(BROKEN_FILE)
    running = Service(folder)
    running.start()
    with Retrue(running.url) as retrue:
        wait_for(lambda: retrue.is_ready() and retrue.model("flip").get("champion"), deadline_s=60, what="version 1")
    yield running
    if running.process is not None and running.process.poll() is None:
        assert running.stop() == 0


@pytest.mark.timeout(240)
def test_the_loop_end_to_end(service: Service) -> None:
    """Drift in the concept leads to a swap; every answer is that of the version it names; nothing fails or is lost."""
    data = pd.read_csv(service.folder / "data" / "flip.csv")
    data["at"] = pd.to_datetime(data["at"], utc=True)
    with Retrue(service.url) as retrue:
        learned = datetime.fromisoformat(retrue.version("flip", 1)["learned_until"]).astimezone(UTC)
        stream = data[data["at"] > learned]
        rows = rows_of(stream, timestamp="at", target="outcome", features=["a", "b", "weekend"])
        given: list[Answer] = []
        totals = Replay(
            service.url,
            "flip",
            rows,
            pace=Pace(lead=pd.Timedelta("12h").to_pytimedelta(), batch=3),
            answered=given.append,
        ).run()
        assert totals.failed == 0, totals.errors
        assert totals.labels_failed == 0, totals.errors

        promoted = [run for run in retrue.runs(model="flip") if run["state"] in {"succeeded", "probation"}]
        assert len(promoted) >= 2, "the initial run and at least one caused by the turned concept"
        assert promoted[0]["trigger"] == "performance"
        versions = {answer.answer["version"] for answer in given if answer.answer}
        assert len(versions) >= 2

        _assert_answers_are_those_of_their_versions(service, retrue, given, rows.instances)
        _assert_answers_are_recorded(retrue, given)
        last_week = given[-50:]
        hits = [
            prediction == rows.labels[answer.first + offset]
            for answer in last_week
            if answer.answer
            for offset, prediction in enumerate(answer.answer["predictions"])
        ]
        assert sum(hits) / len(hits) > 0.7, "the champion has learned the turned concept"


def _assert_answers_are_those_of_their_versions(
    service: Service, retrue: Retrue, given: list[Answer], instances: Any
) -> None:
    store = ArtifactStore(service.home / "artifacts")
    for number in {answer.answer["version"] for answer in given if answer.answer}:
        version = retrue.version("flip", number)
        schema = Schema.from_json(version["manifest"]["schema"])
        estimator = unpack(store.read(version["artifact"]))
        mine = [answer for answer in given if answer.answer and answer.answer["version"] == number]
        asked = [instances[answer.first + offset] for answer in mine for offset in range(answer.count)]
        outputs, _ = answers(
            estimator, version["manifest"]["output"], schema.classes, design(schema, pd.DataFrame(asked))
        )
        told = [prediction for answer in mine if answer.answer for prediction in answer.answer["predictions"]]
        assert list(outputs) == told


def _assert_answers_are_recorded(retrue: Retrue, given: list[Answer]) -> None:
    for answer in (given[0], given[len(given) // 2], given[-1]):
        assert answer.answer is not None
        wanted = str(answer.answer["ids"][0])
        recorded = wait_for(
            partial(retrue.prediction, wanted, model="flip"), deadline_s=15, what="a recorded prediction"
        )
        assert recorded["version"] == answer.answer["version"]


def test_a_swap_reaches_every_worker_and_no_client_is_taken_back(service: Service) -> None:
    with Retrue(service.url) as retrue, ThreadPoolExecutor(4) as pool:
        before = retrue.model("flip")["champion"]
        other = next(v["version"] for v in retrue.versions("flip") if v["version"] != before["version"])
        row = {"a": 0.1, "b": 0.2, "weekend": False}
        enough = threading.Event()
        seen: list[int] = []

        def ask(_: int) -> list[int]:
            told = []
            with Retrue(service.url) as client:  # one connection, so one worker
                while not enough.is_set():
                    told.append(client.predict("flip", [row]).generation)
                    seen.append(told[-1])
            return told

        asking = [pool.submit(ask, n) for n in range(4)]
        try:
            retrue.promote("flip", other, generation=before["generation"], reason="test")
            swapped = wait_for(
                lambda: (now := retrue.model("flip")["champion"])["generation"] > before["generation"] and now,
                deadline_s=60,
                what="the swap",
            )
            begun = len(seen)
            new = before["generation"] + 1
            wait_for(lambda: len(seen) > begun + 200 and set(seen[-200:]) == {new}, deadline_s=30, what="all workers")
        finally:
            enough.set()
        assert (swapped["version"], swapped["generation"]) == (other, new)
        for told in (future.result() for future in asking):
            assert told == sorted(told)
            assert set(told) <= {before["generation"], new}


def test_rollback_is_one_command_and_holds_automation(service: Service) -> None:
    with Retrue(service.url) as retrue:
        before = retrue.model("flip")["champion"]
        done = service.command("rollback", "flip", "--reason", "test")
        assert done.returncode == 0, done.stderr
        after = retrue.model("flip")
        assert after["champion"]["version"] == before["previous_version"]
        assert after["champion"]["generation"] == before["generation"] + 1
        assert "hold" in after["switches"]
        assert service.command("release", "flip", "hold").returncode == 0
        assert "hold" not in retrue.model("flip")["switches"]
        assert retrue.audit(model="flip")[0]["reason"]


def test_a_manual_run_takes_the_same_path_and_unchanged_data_is_a_recorded_no_op(service: Service) -> None:
    first = service.command("retrain", "flip", "--wait", "--reason", "test")
    second = service.command("retrain", "flip", "--wait", "--json")
    assert first.returncode in {0, 4}, first.stderr
    run = json.loads(second.stdout)
    assert (run["state"], run["code"]) == ("skipped", "no_new_data"), run


def test_every_decision_is_explained_as_it_was_made_and_another_policy_is_tried(service: Service) -> None:
    with Retrue(service.url) as retrue:
        listed = [check for check in retrue.checks("flip") if check["state"] == "done"]
        told = [retrue.explanation(check["id"]) for check in listed]
    assert len(told) >= 5
    assert [one["warnings"] for one in told if not one["same"]] == []
    shown = service.command("decide", "--explain", listed[0]["id"])
    assert shown.returncode == 0, shown.stderr
    order = ["contract", "quality", "drift", "performance", "estimate", "reading", "situation", "rules", "decision"]
    places = [shown.stdout.index(name) for name in order]
    assert places == sorted(places)
    assert "the same, word for word" in shown.stdout
    assert json.loads(service.command("decide", "--explain", listed[0]["id"], "--json").stdout)["same"] is True
    off = service.command("decide", "--dry-run", "flip", "--policy", "mode=off", "--last", "50", "--json")
    found = json.loads(off.stdout)
    assert (found["replayed"]["runs"], found["checks"]) == (0, len(listed))
    assert found["recorded"]["runs"] >= 1
    assert "decisions change" in service.command("decide", "--dry-run", "flip", "-p", "mode=off").stdout
    for words in (["--explain", "nothing"], ["--dry-run", "flip", "-p", "mode=sometimes"], ["--dry-run", "nothing"]):
        refused = service.command("decide", *words)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr


def test_a_broken_model_file_takes_down_no_other(service: Service) -> None:
    with Retrue(service.url) as retrue:
        listed = {model["name"]: model for model in retrue.models()}
    assert "broken on purpose" in str(listed["broken"]["error"])
    assert listed["flip"]["champion"]
    checked = service.command("models", "check")
    assert checked.returncode == 2
    assert "broken.py" in checked.stdout


def test_every_command_that_finds_no_service_says_so_in_one_line(service: Service) -> None:
    silent = subprocess.run(
        [sys.executable, "-m", "service", "status", "--url", "http://127.0.0.1:9"],
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert silent.returncode == 3
    assert silent.stderr.count("\n") == 1
    assert "retrue serve" in silent.stderr
    unknown = service.command("versions", "nothing")
    assert unknown.returncode == 2
    assert "nothing" in unknown.stderr


def test_a_killed_service_starts_again_with_the_same_champion(service: Service) -> None:
    with Retrue(service.url) as retrue:
        before = retrue.model("flip")["champion"]
        assert service.process is not None
        service.process.kill()
        service.process.wait(10)
        wait_for(lambda: not retrue.is_ready(), deadline_s=15, what="the orphaned children to leave")
        service.start()
        wait_for(retrue.is_ready, deadline_s=60, what="the restart")
        after = retrue.model("flip")["champion"]
        assert (after["version"], after["generation"]) == (before["version"], before["generation"])
        assert retrue.predict("flip", [[0.1, 0.2, True]]).version == before["version"]
