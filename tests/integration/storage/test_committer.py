"""Exactly once from the spool to the lake, whatever is killed and whenever."""

import contextlib
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.domain.errors import LakeUnavailable
from service.storage import lookup
from service.storage.committer import Committed, Committer
from service.storage.delta import DeltaFolder
from service.storage.ids import id_texts, new_id
from service.storage.lake import Lake
from service.storage.records import PredictionBatch
from service.storage.spool import SpoolWriter, segments_of, streams
from tests.batches import label_batch, prediction_batch

MODEL = "electricity"


class Home:
    """A spool and a lake, and what was answered."""

    def __init__(self, root: Path) -> None:
        self.root, self.spool, self.lake = root, root / "spool", Lake(root / "lake")
        self.answered: list[str] = []
        self.commits: list[Committed] = []
        self.failures: list[tuple[str, str]] = []
        self.now = 0.0
        self.damage: list[tuple[Path, str]] = []
        self.committer = self.a_committer()

    def a_committer(self) -> Committer:
        return Committer(
            self.spool,
            Lake(self.root / "lake"),
            on_commit=self.commits.append,
            on_failure=lambda kind, why: self.failures.append((kind, why)),
            on_damage=lambda path, why: self.damage.append((path, why)),
            monotonic=lambda: self.now,
        )

    def writer(self, **overrides: Any) -> SpoolWriter:
        limits = {"max_bytes": 1 << 20, "max_age_s": 60.0, "cap_bytes": 1 << 30, "sync": False, **overrides}
        return SpoolWriter(self.spool, **limits)

    def answer(self, writer: SpoolWriter, batch: PredictionBatch) -> list[str]:
        writer.append_predictions(batch)
        ids = [text.decode() for text in id_texts(batch.ids)]
        if batch.model == MODEL:
            self.answered += ids
        return ids

    def in_lake(self, model: str = MODEL) -> list[str]:
        found: list[str] = Lake(self.root / "lake").read_window(model, after=None, until=None)["id"].to_pylist()
        return found

    def assert_exactly_once(self) -> None:
        assert Counter(self.in_lake()) == Counter(self.answered)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def fill(home: Home, *, segments: int = 3) -> None:
    """Write a stream of so many ready segments with predictions and labels, and leave it."""
    with home.writer(max_bytes=1) as writer:
        for number in range(segments):
            home.answer(writer, prediction_batch(4, first=4 * number))
        writer.append_labels(label_batch(home.answered[:2], ["UP", "DOWN"]))


def test_everything_is_moved_and_nothing_is_left(home: Home) -> None:
    fill(home)
    report = home.committer.run_once()
    assert (report.predictions, report.labels, report.segments, report.left) == (12, 2, 4, 0)
    assert report.commits == len(home.commits) == 2
    home.assert_exactly_once()
    assert streams(home.spool) == []
    assert home.committer.run_once().commits == 0


def test_a_living_stream_keeps_the_segment_it_writes(home: Home) -> None:
    with home.writer() as writer:
        home.answer(writer, prediction_batch())
        assert home.committer.run_once().predictions == 0
        assert len(streams(home.spool)) == 1
    assert home.committer.run_once().predictions == 3
    home.assert_exactly_once()


def test_two_streams_share_a_commit(home: Home) -> None:
    with home.writer(max_bytes=1) as one, home.writer(max_bytes=1) as two:
        for number in range(3):
            home.answer(one, prediction_batch(2, first=number))
            home.answer(two, prediction_batch(2, first=number))
    report = home.committer.run_once()
    assert (report.commits, report.segments) == (1, 6)
    home.assert_exactly_once()


def test_versions_with_other_features_share_a_segment(home: Home) -> None:
    with home.writer() as writer:
        home.answer(writer, prediction_batch(3))
        other = prediction_batch(
            3,
            first=3,
            version=2,
            generation=2,
            numeric_names=("wind",),
            numeric_kinds=("numeric",),
            numeric=np.ones((3, 1)),
            text={},
            probabilities=None,
        )
        home.answer(writer, other)
        home.answer(writer, prediction_batch(2, model="bikes", output=np.array([1.5, 2.5]), probabilities=None))
    assert home.committer.run_once().commits == 2
    home.assert_exactly_once()
    rows = home.lake.read_window(MODEL, after=None, until=None)
    assert rows["version"].to_pylist() == [1, 1, 1, 2, 2, 2]
    assert rows["x_wind"].to_pylist() == [None] * 3 + [1.0] * 3
    assert len(home.in_lake("bikes")) == 2


def test_a_torn_last_record_is_dropped_and_the_rest_kept(home: Home) -> None:
    writer = home.writer()
    home.answer(writer, prediction_batch())
    writer.append_predictions(prediction_batch(first=3))  # killed in mid-write: never answered
    (stream,) = streams(home.spool)
    (segment,) = segments_of(stream, with_open=True)
    os.truncate(segment.path, segment.path.stat().st_size - 20)
    writer.close()
    report = home.committer.run_once()
    assert report.torn_bytes > 0
    assert report.damaged == 0
    home.assert_exactly_once()


def test_a_segment_seen_twice_is_committed_once(home: Home) -> None:
    fill(home)
    copy = home.root / "copy"
    shutil.copytree(home.spool, copy)
    home.committer.run_once()
    shutil.rmtree(home.spool)
    copy.rename(home.spool)
    report = home.a_committer().run_once()
    assert (report.predictions, report.labels, report.segments) == (0, 0, 4)
    home.assert_exactly_once()


@pytest.mark.parametrize("kill_at", range(6))
def test_a_kill_between_commit_and_delete_repeats_nothing(home: Home, kill_at: int) -> None:
    fill(home)
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_commit_until, args=(home.root, kill_at))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    home.committer.run_once()
    home.assert_exactly_once()
    assert home.lake.labels_known(MODEL).num_rows == 2
    assert streams(home.spool) == []


def _commit_until(root: Path, kill_at: int) -> None:
    """Commit, and die before the `kill_at`-th step that touches the lake or the spool."""
    steps = 0

    def step(_: object, real: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1
            return real(*args, **kwargs)

        return counted

    DeltaFolder.append = step(None, DeltaFolder.append)  # type: ignore[method-assign]
    Path.unlink = step(None, Path.unlink)  # type: ignore[method-assign]
    Committer(root / "spool", Lake(root / "lake")).run_once()


def test_a_worker_that_is_killed_loses_no_answer(home: Home) -> None:
    context = multiprocessing.get_context("forkserver")
    answers, answered = context.Pipe(duplex=False)
    process = context.Process(target=_answer_forever, args=(home.root, answered))
    process.start()
    answered.close()
    home.answered = [answers.recv_bytes().decode() for _ in range(300)]
    process.kill()
    with contextlib.suppress(EOFError, OSError):
        while True:
            home.answered.append(answers.recv_bytes().decode())
    process.join(30)
    home.committer.run_once()
    found = Counter(home.in_lake())
    assert not set(home.answered) - set(found)
    assert set(found.values()) == {1}
    assert len(found) - len(home.answered) in {0, 1}  # written down, killed before it could answer


def _answer_forever(root: Path, answered: "Connection[bytes, None]") -> None:
    with SpoolWriter(root / "spool", max_bytes=20_000, max_age_s=60, cap_bytes=1 << 30, sync=False) as writer:
        number = 0
        while True:
            batch = prediction_batch(1, first=number)
            writer.append_predictions(batch)
            answered.send_bytes(bytes(id_texts(batch.ids)[0]))
            number += 1


def test_a_damaged_segment_is_set_aside_and_blocks_nothing(home: Home) -> None:
    fill(home)
    (stream,) = streams(home.spool)
    bad = segments_of(stream)[1]
    data = bytearray(bad.path.read_bytes())
    data[40] ^= 0xFF
    bad.path.write_bytes(bytes(data))
    report = home.committer.run_once()
    assert (report.damaged, report.segments) == (1, 3)
    assert [path.name for path, _ in home.damage] == [f"{stream.name}-000000000001.spool"]
    assert home.damage[0][0].read_bytes() == bytes(data)
    assert Counter(home.in_lake()) == Counter(home.answered[:4] + home.answered[8:])
    assert home.committer.run_once().damaged == 0


def test_rows_that_do_not_fit_are_set_aside_and_block_nothing(home: Home) -> None:
    fill(home)
    home.committer.run_once()
    with home.writer(max_bytes=1) as writer:
        home.answer(writer, prediction_batch(2, first=100))
        odd: dict[str, Any] = {
            "numeric_names": (),
            "numeric_kinds": (),
            "numeric": np.empty((2, 0)),
            "text": {"price": ["a", "b"]},
        }
        writer.append_predictions(prediction_batch(2, **odd))
        home.answer(writer, prediction_batch(2, first=102))
        writer.append_labels(label_batch([new_id()], ["UP"], kind="number"))
    report = home.committer.run_once()
    assert report.damaged == 2
    assert "x_price" in report.errors[0]
    home.assert_exactly_once()


def test_while_the_lake_is_away_everything_waits(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(home)

    def away(*_: Any, **__: Any) -> int:
        raise LakeUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(DeltaFolder, "append", away)
        report = home.committer.run_once()
    assert (report.commits, report.left, report.damaged) == (0, 4, 0)
    assert report.errors
    assert {kind for kind, _ in home.failures} == {"predictions", "labels"}
    assert home.committer.run_once().left == 4  # it is left alone for a moment
    home.now += 1
    assert home.committer.run_once().left == 0
    home.assert_exactly_once()


def test_a_table_that_is_away_holds_up_no_other(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(home)
    real = Lake.append_labels

    def away(*_: Any, **__: Any) -> int:
        raise LakeUnavailable("gone")

    monkeypatch.setattr(Lake, "append_labels", away)
    report = home.committer.run_once()
    assert (report.predictions, report.labels, report.left) == (12, 0, 1)
    monkeypatch.setattr(Lake, "append_labels", real)
    home.now += 1
    report = home.committer.run_once()
    assert (report.predictions, report.labels, report.left) == (0, 2, 0)
    home.assert_exactly_once()


def test_two_committers_never_work_at_once(home: Home) -> None:
    fill(home)
    with (home.spool / "committer.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert home.committer.run_once().is_busy
    assert not home.committer.run_once().is_busy
    home.assert_exactly_once()


def test_a_big_backlog_is_moved_in_rounds(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.storage.turns.ROUND_BYTES", 1)
    fill(home)
    report = home.committer.run_once()
    assert (report.commits, report.left) == (4, 0)
    home.assert_exactly_once()


def test_a_prediction_is_found_wherever_it_is_on_its_way(home: Home) -> None:
    with home.writer() as writer:
        batch = prediction_batch(5)
        ids = home.answer(writer, batch)
        waiting = lookup.find(home.lake, home.spool, MODEL, ids[4])
    home.committer.run_once()
    stored = lookup.find(home.lake, home.spool, MODEL, ids[4])
    assert waiting is not None
    assert waiting == stored
    assert lookup.find(home.lake, home.spool, MODEL, new_id()) is None


def test_the_lookup_is_a_program(home: Home) -> None:
    with home.writer() as writer:
        ids = home.answer(writer, prediction_batch(5))
    home.committer.run_once()
    done = _lookup(home.root, ids[2])
    assert done.returncode == 0
    assert json.loads(done.stdout)["features"]["price"] == 0.2
    assert _lookup(home.root, new_id()).returncode == 1
    assert _lookup(home.root, "../../etc").returncode == 1


def _lookup(home: Path, name: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "service.storage.lookup", str(home), MODEL, name]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, cwd=Path.cwd())
