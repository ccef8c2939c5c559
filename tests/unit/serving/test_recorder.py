"""Ids are UUIDv7s that name the moment they were made; what can't be written has none."""

import uuid
from typing import Any, cast

import pytest

from service.domain.errors import NotRecorded
from service.serving.bundle import Bundle, load
from service.serving.feedback import Labels
from service.serving.recorder import Recorder, mint
from service.storage.artifacts import ArtifactStore
from service.storage.ids import id_texts
from service.storage.records import LabelBatch, PredictionBatch
from tests.ids import minted_at
from tests.served import FLIP, flip, pack


@pytest.mark.parametrize("n", [1, 16, 17, 500])
def test_ids_are_distinct_uuid7s_whose_bytes_and_text_agree(n: int) -> None:
    import time

    at_us = time.time_ns() // 1000
    raw, texts = mint(n, at_us)
    assert id_texts(raw).astype(str).tolist() == list(texts)
    assert len(set(texts)) == n
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in texts} == {(7, uuid.RFC_4122)}
    moments = [minted_at(text) for text in texts]
    assert all(moment is not None and abs(moment.timestamp() - at_us / 1e6) < 1 for moment in moments)


class Full:
    """A spool with no room."""

    def append_predictions(self, _: PredictionBatch) -> None:
        raise NotRecorded("the disk is full", retry_after_s=5)

    def append_labels(self, _: LabelBatch) -> None:
        raise NotRecorded("the disk is full", retry_after_s=5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    store = ArtifactStore(tmp_path_factory.mktemp("artifacts"))
    return load(store, pack(store, FLIP, flip(0)), generation=1)


def test_what_the_disk_does_not_take_is_not_answered_or_answered_without_ids_as_the_spec_says(bundle: Bundle) -> None:
    policies = {"flip": "answer"}
    recorder = Recorder(cast(Any, Full()), clock_us=lambda: 1, when_full=lambda model: policies.get(model, "refuse"))
    block = bundle.golden
    answers = bundle.answer(block)
    assert recorder.record(bundle, block, answers)[0] == []
    policies.clear()
    with pytest.raises(NotRecorded):
        recorder.record(bundle, block, answers)
    with pytest.raises(NotRecorded):
        Recorder(cast(Any, Full()), clock_us=lambda: 1).record(bundle, block, answers)


def test_labels_that_can_not_be_written_are_refused_whatever_the_spec_says() -> None:
    recorder = Recorder(cast(Any, Full()), clock_us=lambda: 1, when_full=lambda _: "answer")
    with pytest.raises(NotRecorded):
        recorder.record_labels("flip", Labels(kind="string", ids=["a"], labels=["UP"], observed_at_us=[1]))
