"""Identifiers: the same text whichever way it is made."""

import json

from service.serving.recorder import FEW, mint
from service.storage.ids import QuotedIds

AT_US = 1_790_000_000_123_456


def test_quoted_ids_are_the_texts_in_json_whole_and_in_parts() -> None:
    raw, texts = mint(FEW + 5, AT_US)
    quoted = QuotedIds.of(raw)
    plain = list(texts)
    assert json.loads(quoted.json()) == plain
    for start, end in ((0, 1), (3, 9), (FEW, FEW + 5), (2, 2)):
        assert json.loads(quoted[start:end].json()) == list(quoted[start:end]) == plain[start:end]
    assert quoted[4] == plain[4]
    assert quoted[-1] == plain[-1]
    assert not quoted[2:2]
