"""Whatever is killed, and at whatever line: each acknowledged row is in the lake once, and no other row twice."""

import multiprocessing
import time
from collections import Counter
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.storage import delta
from service.storage.committer import Committer
from service.storage.ids import id_texts
from service.storage.lake import Lake
from service.storage.spool import SpoolWriter, streams
from tests.batches import label_batch, prediction_batch
from tests.killed import Point, dies_at

MODELS = ("bikes", "electricity")
BATCHES = 2
WRITER = [
    Point(function, when, nth)
    for function, calls in (
        ("os:writev", (0, 1, 3)),
        ("os:open", (0, 1, 2)),
        ("pathlib:Path.rename", (0, 1, 3)),
        ("os:close", (0, 1)),
        ("pathlib:Path.mkdir", (0,)),
    )
    for when in ("before", "after")
    for nth in calls
]
COMMITTER = [
    Point(function, when, nth)
    for function, calls in (
        ("service.storage.delta:write_deltalake", (0, 1, 2, 3)),  # two models, predictions and labels of each
        ("service.storage.delta:sync_commit", (0, 1, 2, 5)),
        ("service.storage.delta:DeltaFolder._create", (0, 1)),
        ("service.storage.delta:DeltaFolder.committed", (0, 2)),
        ("pathlib:Path.unlink", (0, 1, 3)),
        ("pathlib:Path.rmdir", (0,)),
    )
    for when in ("before", "after")
    for nth in calls
]
MAINTENANCE = [
    Point(function, when, nth)
    for function, calls in (
        ("deltalake.table:TableOptimizer.compact", (0, 1)),
        ("deltalake:DeltaTable.create_checkpoint", (0, 1)),
        ("deltalake:DeltaTable.cleanup_metadata", (0, 1)),
        ("deltalake:DeltaTable.vacuum", (0, 1)),
        ("deltalake:DeltaTable.delete", (0, 1)),
        ("service.storage.delta:sync_commit", (0, 2)),
        ("service.storage.delta:sync_checkpoint", (0,)),
    )
    for when in ("before", "after")
    for nth in calls
]


def a_writer(root: Path, **overrides: Any) -> SpoolWriter:
    limits = {"max_bytes": 1, "max_age_s": 60.0, "cap_bytes": 1 << 30, "sync": False, **overrides}
    return SpoolWriter(root / "spool", **limits)


def rows_of(model: str, number: int) -> Any:
    one = prediction_batch(3, first=3 * number)
    if model == "electricity":
        return one
    return prediction_batch(
        3, first=3 * number, model=model, output=np.array([1.5, 2.5, 3.5]), probabilities=None, classes=()
    )


def answer(root: Path, told: "Connection[Any, Any]") -> None:
    """Write predictions and labels of both models, and tell each once it is acknowledged."""
    with a_writer(root) as writer:
        for number in range(BATCHES):
            for model in MODELS:
                batch = rows_of(model, number)
                ids = [text.decode() for text in id_texts(batch.ids)]
                writer.append_predictions(batch)
                told.send(("predictions", model, ids))
                kind = "string" if model == "electricity" else "number"
                truth: list[Any] = ["UP", "DOWN", "UP"] if model == "electricity" else [1.0, 2.0, 3.0]
                writer.append_labels(label_batch(ids, truth, model=model, kind=kind))
                told.send(("labels", model, ids))


def commit(root: Path) -> None:
    Committer(root / "spool", lake_of(root)).run_once()


def lake_of(root: Path) -> Lake:
    return Lake(root / "lake", history=timedelta(0))  # maintenance removes what is unused at once


def maintain(root: Path) -> None:
    delta._SMALL_FILES = 2  # in this process alone: any two files are merged
    lake = lake_of(root)
    for model in MODELS:
        for kind in ("predictions", "labels"):
            watermark = lake.watermark(model)
            assert watermark is not None
            lake.forget(model, kind, before=watermark - timedelta(days=365))
        lake.maintain(model)


class Ledger:
    """What was acknowledged, by table and model."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[tuple[str, str], list[str]] = {}

    def fill(self, point: Point | None = None) -> bool:
        """Run a writer that may die at `point`, and note what it has acknowledged; return whether it died."""
        here, there = multiprocessing.get_context("forkserver").Pipe(duplex=False)
        died = False
        if point is None:
            answer(self.root, there)
        else:
            died = dies_at(point, answer, self.root, there)
        there.close()
        while here.poll():
            try:
                kind, model, ids = here.recv()
            except EOFError:
                break
            self.rows.setdefault((kind, model), []).extend(ids)
        return died

    def assert_exactly_once(self, *, unacknowledged: int = 0) -> None:
        """Compare row by row with what a fresh reader finds after a fresh committer."""
        report = Committer(self.root / "spool", lake_of(self.root)).run_once()
        assert (report.left, report.damaged, report.errors) == (0, 0, [])
        assert streams(self.root / "spool") == []
        extra = 0
        for kind in ("predictions", "labels"):
            for model in MODELS:
                found = Counter(stored(self.root, kind, model))
                acknowledged = Counter(self.rows.get((kind, model), []))
                assert set(found.values()) <= {1}
                assert not acknowledged - found
                extra += (found - acknowledged).total()
        assert extra <= unacknowledged


def stored(root: Path, kind: Any, model: str) -> list[str]:
    view = Lake(root / "lake")._folder(kind, model).view()
    return [] if view is None else view.read(view.files, columns=["id"])["id"].to_pylist()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@pytest.mark.parametrize("point", WRITER, ids=str)
def test_a_worker_killed_at_any_line_of_the_spool_loses_no_acknowledged_row(ledger: Ledger, point: Point) -> None:
    assert ledger.fill(point)
    ledger.assert_exactly_once(unacknowledged=3)  # at most the one batch that was written and not yet answered


@pytest.mark.parametrize("point", COMMITTER, ids=str)
def test_a_committer_killed_at_any_line_commits_each_row_once(ledger: Ledger, point: Point) -> None:
    ledger.fill()
    assert dies_at(point, commit, ledger.root)
    ledger.fill()  # life went on meanwhile
    ledger.assert_exactly_once()


@pytest.mark.parametrize("point", MAINTENANCE, ids=str)
def test_maintenance_killed_at_any_line_loses_no_row_and_repeats_none(ledger: Ledger, point: Point) -> None:
    for _ in range(2):
        ledger.fill()
        commit(ledger.root)
    if "delete" in point.function:
        old = prediction_batch(3, event_time_us=np.arange(3) + 1_000_000)
        with a_writer(ledger.root) as writer:
            writer.append_predictions(old)
            ids = [text.decode() for text in id_texts(old.ids)]
            writer.append_labels(label_batch(ids, ["UP"] * 3, observed_at_us=[1_000_000] * 3))
        commit(ledger.root)
    assert dies_at(point, maintain, ledger.root)
    assert not dies_at(Point("os:abort", "before"), maintain, ledger.root)  # the next one goes to its end
    ledger.fill()
    ledger.assert_exactly_once()


def test_kills_at_random_moments_lose_nothing_and_repeat_nothing(ledger: Ledger) -> None:
    generator = np.random.default_rng(11)
    context = multiprocessing.get_context("forkserver")
    for _ in range(12):
        process = context.Process(target=_toil, args=(ledger.root,))
        process.start()
        deadline = time.monotonic() + 0.2 + float(generator.random()) * 0.6
        while time.monotonic() < deadline:
            ledger.fill()
        process.kill()
        process.join(30)
    ledger.assert_exactly_once()


def _toil(root: Path) -> None:
    delta._SMALL_FILES = 2
    while True:
        commit(root)
        for model in lake_of(root).models():
            lake_of(root).maintain(model)
