"""What was recorded is read back; what can't be recorded is refused, and leaves the spool well-formed."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.domain.errors import NotRecorded
from service.storage.ids import id_texts, is_id, new_id
from service.storage.records import Dropped, LabelBatch, PredictionBatch, encode, scan
from service.storage.spool import SpoolWriter, is_dead, read_segment, segments_of, spool_bytes, streams
from tests.batches import label_batch, prediction_batch
from tests.ids import minted_at


class Seconds:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def writer(tmp_path: Path, seconds: Seconds) -> Iterator[SpoolWriter]:
    with SpoolWriter(
        tmp_path, max_bytes=10_000, max_age_s=1, cap_bytes=100_000, sync=False, monotonic=seconds
    ) as writer:
        yield writer


def records(root: Path) -> list[PredictionBatch | LabelBatch | Dropped]:
    found = [segment for stream in streams(root) for segment in segments_of(stream, with_open=True)]
    return [record for segment in found for record in read_segment(segment.path)]


def same(left: PredictionBatch, right: PredictionBatch) -> bool:
    arrays = ("ids", "event_time_us", "numeric", "probabilities")
    pairs = ((getattr(left, name), getattr(right, name)) for name in arrays)
    plain = ("model", "version", "generation", "answered_at_us", "text", "signals")
    return (
        all((a is None and b is None) or np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)
        and all(getattr(left, name) == getattr(right, name) for name in plain)
        and list(left.numeric_names) == list(right.numeric_names)
        and list(left.classes) == list(right.classes)
        and list(left.output) == list(right.output)
    )


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"output": np.array([1.5, 2.5, -3.5]), "probabilities": None, "classes": ()},
        {"output": np.array([1, 0, 2]), "classes": (0, 1)},
        {"text": {}, "signals": {"unseen": 2}},
        {"numeric_names": (), "numeric_kinds": (), "numeric": np.empty((3, 0))},
        {"numeric": np.asfortranarray(np.arange(12.0).reshape(3, 4))},
    ],
)
def test_a_batch_is_read_back_as_it_was(tmp_path: Path, writer: SpoolWriter, overrides: dict[str, Any]) -> None:
    batch = prediction_batch(**overrides)
    writer.append_predictions(batch)
    (found,) = records(tmp_path)
    assert isinstance(found, PredictionBatch)
    assert same(batch, found)


@pytest.mark.parametrize(("kind", "labels"), [("string", ["UP", "DOWN"]), ("integer", [1, 0]), ("number", [1.5, 2.0])])
def test_labels_are_read_back_as_they_were(tmp_path: Path, writer: SpoolWriter, kind: str, labels: list[Any]) -> None:
    batch = label_batch([new_id(), new_id()], labels, kind=kind)
    writer.append_labels(batch)
    assert records(tmp_path) == [batch]


def test_an_empty_batch_is_a_record_too(tmp_path: Path, writer: SpoolWriter) -> None:
    writer.append_predictions(prediction_batch(0))
    (found,) = records(tmp_path)
    assert isinstance(found, PredictionBatch)
    assert len(found) == 0


def test_a_torn_tail_costs_only_the_record_that_was_never_answered() -> None:
    whole, torn = (b"".join(encode(prediction_batch(first=first))) for first in (0, 3))
    for length in range(1, len(torn)):
        found = list(scan(whole + torn[:length]))
        assert isinstance(found[0], PredictionBatch)
        assert found[1:] == [Dropped(length, is_tail=True)]


def test_a_flipped_bit_costs_one_record_and_is_no_torn_tail() -> None:
    parts = [b"".join(encode(prediction_batch(first=first))) for first in (0, 3, 6)]
    for place in range(0, len(parts[1]), 7):
        bad = bytearray(parts[1])
        bad[place] ^= 0x10
        found = list(scan(parts[0] + bytes(bad) + parts[2]))
        assert [type(record) for record in found] == [PredictionBatch, Dropped, PredictionBatch]
        assert found[1] == Dropped(len(bad), is_tail=False)


def test_zeros_after_a_power_cut_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(b"".join(encode(prediction_batch())) + bytes(4096))
    assert list(read_segment(path))[1:] == [Dropped(4096, is_tail=False)]


def test_a_segment_closes_by_size(tmp_path: Path, writer: SpoolWriter) -> None:
    for _ in range(30):
        writer.append_predictions(prediction_batch(10))
    (stream,) = streams(tmp_path)
    ready = segments_of(stream)
    assert len(ready) >= 2
    assert all(segment.path.stat().st_size <= 10_000 for segment in ready)
    assert [segment.seq for segment in ready] == list(range(len(ready)))
    assert sum(len(record) for record in records(tmp_path) if not isinstance(record, Dropped)) == 300


def test_an_idle_segment_closes_by_age(tmp_path: Path, writer: SpoolWriter, seconds: Seconds) -> None:
    writer.append_predictions(prediction_batch())
    (stream,) = streams(tmp_path)
    writer.tick()
    assert segments_of(stream) == []
    seconds.now = 1.0
    writer.tick()
    assert len(segments_of(stream)) == 1
    seconds.now = 9.0
    writer.tick()
    assert len(segments_of(stream)) == 1


def test_beyond_its_cap_the_spool_records_nothing_until_it_shrinks(
    tmp_path: Path, writer: SpoolWriter, seconds: Seconds
) -> None:
    batch = prediction_batch(20)
    size = sum(map(len, encode(batch)))
    for _ in range(100_000 // size):
        writer.append_predictions(batch)
    with pytest.raises(NotRecorded, match="full"):
        writer.append_predictions(batch)
    assert writer.lost_room
    before = spool_bytes(tmp_path)
    with pytest.raises(NotRecorded):
        writer.append_predictions(batch)
    assert spool_bytes(tmp_path) == before <= 100_000
    (stream,) = streams(tmp_path)
    for segment in segments_of(stream):
        segment.path.unlink()
    seconds.now += 1
    writer.append_predictions(prediction_batch(20))
    assert not writer.lost_room


def test_the_cap_counts_what_other_streams_hold(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, max_bytes=10**6, max_age_s=1, cap_bytes=10**6, sync=False) as other:
        other.append_predictions(prediction_batch(500))
        size = spool_bytes(tmp_path)
        with (
            SpoolWriter(tmp_path, max_bytes=10**6, max_age_s=1, cap_bytes=size + 10, sync=False) as writer,
            pytest.raises(NotRecorded),
        ):
            writer.append_predictions(prediction_batch())


def test_a_short_write_is_cut_off_and_refused(
    tmp_path: Path, writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.append_predictions(prediction_batch())

    def short(handle: int, buffers: list[bytes]) -> int:
        return os.write(handle, b"".join(buffers)[:50])

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", short)
        with pytest.raises(NotRecorded):
            writer.append_predictions(prediction_batch(first=3))
    writer.append_predictions(prediction_batch(first=6))
    found = records(tmp_path)
    assert [type(record) for record in found] == [PredictionBatch, PredictionBatch]


def test_a_full_disk_is_told_and_survived(tmp_path: Path, writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        with pytest.raises(NotRecorded, match="No space left"):
            writer.append_predictions(prediction_batch())
    writer.append_predictions(prediction_batch())
    assert len(records(tmp_path)) == 1


def test_a_stream_is_dead_when_its_writer_has_let_go(tmp_path: Path, writer: SpoolWriter) -> None:
    (stream,) = streams(tmp_path)
    assert not is_dead(stream)
    writer.close()
    assert is_dead(stream)


def test_each_boot_is_a_stream_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        with SpoolWriter(tmp_path, max_bytes=10, max_age_s=1, cap_bytes=10**6, sync=True) as writer:
            writer.append_predictions(prediction_batch())
    assert [[segment.seq for segment in segments_of(stream)] for stream in streams(tmp_path)] == [[0], [0]]


def test_ids_have_one_text_and_tell_when_they_were_made() -> None:
    batch = prediction_batch(5)
    texts = [text.decode() for text in id_texts(batch.ids)]
    assert texts == sorted(texts)
    assert all(is_id(text) for text in texts)
    moments = [minted_at(text) for text in texts]
    assert all(moment is not None and moment.year > 2024 for moment in moments)
    assert minted_at("no id") is None
    assert not is_id(texts[0].upper())
