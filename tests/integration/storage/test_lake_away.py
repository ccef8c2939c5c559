"""The lake can't be reached for an hour: the spool grows to its cap, and all is caught up when the lake is back."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.domain.errors import LakeUnavailable, NotRecorded
from service.storage import turns
from service.storage.committer import Committed, Committer
from service.storage.ids import id_texts
from service.storage.lake import Lake
from service.storage.spool import SpoolWriter, read_segment, segments_of, spool_bytes, streams, survey
from service.storage.turns import FIRST_S, LONGEST_S, Away
from tests.batches import label_batch, prediction_batch

MODEL = "electricity"
HOUR, STEP_S = 3600, 10


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_writer(root: Path, clock: Clock, *, cap_bytes: int = 1 << 30, max_bytes: int = 1 << 20) -> SpoolWriter:
    return SpoolWriter(
        root / "spool", max_bytes=max_bytes, max_age_s=0.15, cap_bytes=cap_bytes, sync=False, monotonic=clock
    )


def answer(writer: SpoolWriter, rows: int = 2, *, first: int = 0) -> list[str]:
    batch = prediction_batch(rows, first=first)
    writer.append_predictions(batch)
    return [text.decode() for text in id_texts(batch.ids)]


def in_lake(root: Path, model: str = MODEL) -> Counter[str]:
    rows = Lake(root / "lake").read_window(model, after=None, until=None, columns=[])
    return Counter(rows["id"].to_pylist())


@pytest.mark.parametrize("how", ["a file", "not there to write"])
def test_an_hour_without_the_lake_fills_the_spool_to_its_cap_and_is_caught_up(tmp_path: Path, how: str) -> None:
    clock, failures = Clock(), 0
    cap = 1_000_000

    def failed(*_: str) -> None:
        nonlocal failures
        failures += 1

    committer = Committer(tmp_path / "spool", Lake(tmp_path / "lake"), on_failure=failed, monotonic=clock)
    ids = []
    with a_writer(tmp_path, clock, cap_bytes=cap) as writer:
        ids += answer(writer)
        clock.now += 1
        writer.tick()
        committer.run_once()
        (tmp_path / "lake").rename(tmp_path / "elsewhere")
        if how == "a file":
            (tmp_path / "lake").write_text("in the way")
        else:
            (tmp_path / "lake").symlink_to(tmp_path / "nowhere" / "at all")
        refused = 0
        for number in range(HOUR // STEP_S):
            clock.now += STEP_S
            writer.tick()
            try:
                ids += answer(writer, 50, first=50 * number)
            except NotRecorded as error:
                refused += error.facts["reason"] == "spool-full"
            committer.run_once()
        assert refused > 0
        with pytest.raises(NotRecorded):
            writer.append_labels(label_batch(ids[:2000], ["UP"] * 2000))
        assert spool_bytes(tmp_path / "spool") <= cap
        assert 10 < failures < 2 * HOUR / LONGEST_S  # told, and left alone between
        (tmp_path / "lake").unlink()
        (tmp_path / "elsewhere").rename(tmp_path / "lake")
        clock.now += 2 * LONGEST_S
        writer.tick()
        report = committer.run_once()
        assert report.left == 0
        clock.now += 1
        ids += answer(writer)  # by itself
    committer.run_once()
    assert in_lake(tmp_path) == Counter(ids)


def test_a_spool_that_nobody_empties_has_few_files(tmp_path: Path) -> None:
    clock = Clock()
    with a_writer(tmp_path, clock) as writer:
        for _ in range(HOUR):
            clock.now += 0.2
            answer(writer, 1)
            writer.tick()
        (stream,) = streams(tmp_path / "spool")
        assert len(segments_of(stream)) < HOUR / 6


def test_the_newest_answers_are_not_behind_what_a_dead_worker_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    with a_writer(tmp_path, clock, max_bytes=1) as dead:
        old = [name for number in range(40) for name in answer(dead, 50, first=50 * number)]
    size = spool_bytes(tmp_path / "spool") // 40
    with a_writer(tmp_path, clock, max_bytes=1) as living:
        new = [name for number in range(3) for name in answer(living, 50, first=50 * number)]
        living.tick()
        commits: list[set[str]] = []

        def look(_: Committed) -> None:
            commits.append(set(in_lake(tmp_path)))

        monkeypatch.setattr(turns, "ROUND_BYTES", 8 * size)
        Committer(tmp_path / "spool", Lake(tmp_path / "lake"), on_commit=look, monotonic=clock).run_once()
    assert len(commits) >= 5
    assert set(new[:100]) <= commits[0]
    assert not set(old) <= commits[0]
    Committer(tmp_path / "spool", Lake(tmp_path / "lake")).run_once()
    assert in_lake(tmp_path) == Counter(old + new)


def test_a_table_that_stays_away_is_not_read_for_again_and_again_and_keeps_nothing_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    read: list[str] = []
    real_append = Lake.append_labels

    def counted(path: Path) -> object:
        read.append(path.name)
        return read_segment(path)

    def away(*_: object, **__: object) -> int:
        raise LakeUnavailable("gone")

    monkeypatch.setattr("service.storage.committer.read_segment", counted)
    monkeypatch.setattr(Lake, "append_labels", away)
    committer = Committer(tmp_path / "spool", Lake(tmp_path / "lake"), monotonic=clock)
    ids: list[str] = []
    with a_writer(tmp_path, clock, max_bytes=1) as writer:
        for number in range(12):
            ids += answer(writer, 20, first=20 * number)
            writer.append_labels(label_batch(ids[-20:], ["UP"] * 20))
        writer.tick()
        monkeypatch.setattr(turns, "ROUND_BYTES", 1)
        committer.run_once()
        assert in_lake(tmp_path) == Counter(ids)  # though twelve segments of labels fill every round
        read.clear()
        assert committer.run_once().left == 11  # the last is being written yet
        assert read == []
    monkeypatch.setattr(Lake, "append_labels", real_append)
    clock.now += 2 * LONGEST_S
    assert committer.run_once().left == 0
    assert sorted(Lake(tmp_path / "lake").labels_known(MODEL)["id"].to_pylist()) == sorted(ids)


def test_after_a_part_that_has_to_wait_no_later_part_of_its_stream_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad part makes the committer go one by one: if the lake fails between, the next must not overtake it."""
    clock = Clock()
    ids: list[str] = []
    with a_writer(tmp_path, clock, max_bytes=1) as writer:
        ids += answer(writer, 5)
    committer = Committer(tmp_path / "spool", Lake(tmp_path / "lake"), monotonic=clock)
    committer.run_once()
    with a_writer(tmp_path, clock, max_bytes=1) as writer:
        for number in range(1, 5):
            ids += answer(writer, 5, first=5 * number)
        odd: dict[str, Any] = {"numeric_names": (), "numeric_kinds": (), "text": {"price": ["a", "b"]}}
        writer.append_predictions(prediction_batch(2, numeric=np.empty((2, 0)), **odd))
    real, calls = Lake.append_predictions, 0

    def flaky(*given: Any, **further: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:  # all together, the first alone, and now the second alone
            raise LakeUnavailable("for a moment")
        return real(*given, **further)

    monkeypatch.setattr(Lake, "append_predictions", flaky)
    committer.run_once()
    clock.now += LONGEST_S
    committer.run_once()
    assert in_lake(tmp_path) == Counter(ids)


def test_a_segment_that_can_not_be_read_now_holds_its_stream_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    with a_writer(tmp_path, clock, max_bytes=1) as one:
        held = [name for number in range(3) for name in answer(one, 5, first=5 * number)]
    with a_writer(tmp_path, clock, max_bytes=1) as two:
        free = answer(two, 5)
    first = streams(tmp_path / "spool")[0]

    def out_of_handles(path: Path) -> object:
        if path.parent == first and path.name.startswith("000000000001"):
            raise OSError(24, "Too many open files")
        return read_segment(path)

    committer = Committer(tmp_path / "spool", Lake(tmp_path / "lake"), monotonic=clock)
    with monkeypatch.context() as patch:
        patch.setattr("service.storage.committer.read_segment", out_of_handles)
        report = committer.run_once()
    assert (report.left, report.damaged) == (2, 0)
    assert in_lake(tmp_path) == Counter(held[:5] + free)
    committer.run_once()
    assert in_lake(tmp_path) == Counter(held + free)


def test_pauses_double_up_to_a_limit_and_are_spread() -> None:
    clock = Clock()
    target = (MODEL, "predictions")
    for chance, share in ((0.0, 0.5), (1.0, 1.5)):
        away = Away(clock, lambda chance=chance: chance)  # type: ignore[misc]
        pause = FIRST_S
        for _ in range(10):
            away.failed(target)  # type: ignore[arg-type]
            assert away.now() == {target}
            clock.now += pause * share - 0.001
            assert away.now() == {target}
            clock.now += 0.002
            assert away.now() == set()
            pause = min(pause * 2, LONGEST_S)
        away.answered(target)  # type: ignore[arg-type]
        away.failed(target)  # type: ignore[arg-type]
        clock.now += FIRST_S * share + 0.001
        assert away.now() == set()


def test_the_spool_says_how_much_waits_and_since_when(tmp_path: Path) -> None:
    clock = Clock()
    assert survey(tmp_path / "spool").since is None
    with a_writer(tmp_path, clock, max_bytes=1) as writer:
        answer(writer)
        assert survey(tmp_path / "spool").since is None  # it is being written
        answer(writer)
        found = survey(tmp_path / "spool")
        (stream,) = streams(tmp_path / "spool")
        (ready,) = segments_of(stream)
        assert found.since == ready.path.stat().st_mtime
        assert found.size_bytes == sum(path.stat().st_size for path in stream.iterdir())
