"""The committer's process: it counts what fails, says it now and then, and goes on whatever breaks."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.control.commits import Complaints, commit_until
from service.control.retention import Keeping
from service.domain.errors import LakeUnavailable
from service.storage.committer import Committer
from service.storage.database import Database
from service.storage.lake import Lake
from service.storage.spool import SpoolWriter, streams
from service.telemetry import Telemetry
from tests.batches import label_batch, prediction_batch
from tests.migrated import migrated

MODEL = "electricity"


class Process:
    """The committer in a thread."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root, self.lake = root, Lake(root / "lake")
        self.telemetry = Telemetry(CollectorRegistry())
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(Keeping(database),))
        self.thread.start()

    def _run(self, keeping: Keeping) -> None:
        commit_until(
            self.stop, self.root / "spool", self.lake, every_s=0.02, maintain_s=0.1, telemetry=self.telemetry,
            keeping=keeping,
        )  # fmt: skip

    def value(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert self.thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    database = migrated(tmp_path / "retrue.db")
    process = Process(tmp_path, database)
    yield process
    process.end()
    database.close()


def answer(root: Path, first: int = 0) -> None:
    with SpoolWriter(root / "spool", max_bytes=1, max_age_s=60, cap_bytes=1 << 30, sync=False) as writer:
        batch = prediction_batch(3, first=first)
        writer.append_predictions(batch)
        writer.append_labels(label_batch(["018f0000-0000-7000-8000-000000000000"], ["UP"]))


def test_failed_commits_are_counted_by_kind_and_told_once_in_a_while(
    process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def away(*_: Any, **__: Any) -> int:
        raise LakeUnavailable("the lake is away")

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "append_predictions", away)
        patch.setattr(Lake, "append_labels", away)
        answer(process.root)
        process.until(lambda: min(process.value("retrue_commits_total", kind=k, outcome="error") for k in KINDS) >= 3)
        assert process.value("retrue_spool_bytes") > 0
    process.until(lambda: streams(process.root / "spool") == [])
    process.until(lambda: process.value("retrue_spool_bytes") == 0)
    assert process.value("retrue_commits_total", kind="predictions", outcome="ok") == 1
    assert process.value("retrue_committed_rows_total", model=MODEL, kind="predictions") == 3
    assert [record.getMessage() for record in caplog.records].count("commit_failed") == 1


KINDS = ("predictions", "labels")


def test_what_breaks_in_a_round_or_in_maintenance_ends_no_process(
    process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def breaks(*_: Any, **__: Any) -> Any:
        calls.append("round")
        raise RuntimeError("a fault of our own")

    def breaks_too(*_: Any, **__: Any) -> Any:
        calls.append("maintenance")
        raise RuntimeError("another")

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "run_once", breaks)
        process.until(lambda: calls.count("round") >= 3)
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "maintain", breaks_too)
        answer(process.root)
        process.until(lambda: calls.count("maintenance") >= 2)
        answer(process.root, first=3)
        process.until(lambda: streams(process.root / "spool") == [])
    assert Lake(process.root / "lake").read_window(MODEL, after=None, until=None).num_rows == 6
    told = [record.getMessage() for record in caplog.records]
    assert told.count("commit_broke") == 1
    assert told.count("maintenance_broke") == 1


def test_tables_are_maintained_on_the_schedule_while_answers_are_committed(process: Process) -> None:
    log = process.root / "lake" / "predictions" / MODEL / "_delta_log"
    for number in range(10):
        answer(process.root, first=3 * number)
    process.until(lambda: any(log.glob("*.checkpoint.parquet")))
    answer(process.root, first=100)
    process.until(lambda: streams(process.root / "spool") == [])
    process.end()
    assert Lake(process.root / "lake").read_window(MODEL, after=None, until=None).num_rows == 33


def test_a_complaint_is_made_at_once_and_then_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    complaints = Complaints()
    assert complaints.are_due("commit")
    assert not complaints.are_due("commit")
    assert complaints.are_due("maintain m")
    now[0] += 10.0
    assert complaints.are_due("commit")
