"""Ids: UUIDv7s that name the moment they were made."""

import uuid

import pytest

from service.serving.recorder import mint
from service.storage.ids import id_texts, minted_at


@pytest.mark.parametrize("n", [1, 16, 17, 500])
def test_ids_are_distinct_uuid7s_whose_bytes_and_text_agree(n: int) -> None:
    import time

    at_us = time.time_ns() // 1000
    raw, texts = mint(n, at_us)
    assert id_texts(raw).astype(str).tolist() == texts
    assert len(set(texts)) == n
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in texts} == {(7, uuid.RFC_4122)}
    moments = [minted_at(text) for text in texts]
    assert all(moment is not None and abs(moment.timestamp() - at_us / 1e6) < 1 for moment in moments)
