"""Feedback: good labels are taken, each bad one is named."""

import json
from typing import Any

import pytest

from service.domain.errors import BodyTooLarge, InvalidRequest
from service.serving.feedback import FeedbackDecoder, Labels
from tests.served import FLIP, PRICE

ID = "01a1fc77-7235-7538-8be8-1f00c12e4275"
INTEGERS = type(FLIP)(**{**FLIP.__dict__, "label": "integer", "classes": (0, 1)})


def decode(items: Any, schema: Any = FLIP) -> Labels:
    return FeedbackDecoder(schema).decode(json.dumps({"labels": items}).encode(), max_rows=10)


def test_good_labels_are_taken_also_of_classes_never_seen() -> None:
    unseen = {"id": ID.upper(), "label": "NEW", "observed_at": "2026-01-01T00:00:00Z"}
    labels = decode([{"id": ID, "label": "UP"}, unseen])
    assert (labels.ids, labels.labels, labels.errors) == ([ID, ID], ["UP", "NEW"], [])
    assert labels.observed_at_us == [None, 1_767_225_600_000_000]


@pytest.mark.parametrize(
    ("schema", "item", "field"),
    [
        (FLIP, {"id": ID, "label": 1}, "label"),
        (FLIP, {"id": ID, "label": None}, "label"),
        (FLIP, {"id": ID, "label": "\ud800"}, "label"),
        (INTEGERS, {"id": ID, "label": "1"}, "label"),
        (INTEGERS, {"id": ID, "label": True}, "label"),
        (INTEGERS, {"id": ID, "label": 2**63}, "label"),
        (PRICE, {"id": ID, "label": float("nan")}, "label"),
        (PRICE, {"id": ID, "label": float("inf")}, "label"),
        (PRICE, {"id": ID, "label": 10**400}, "label"),
        (PRICE, {"id": ID, "label": "3"}, "label"),
        (FLIP, {"id": "nonsense", "label": "UP"}, "id"),
        (FLIP, {"id": 7, "label": "UP"}, "id"),
        (FLIP, {"id": ID}, "label"),
        (FLIP, {"label": "UP"}, "id"),
        (FLIP, {"id": ID, "label": "UP", "observed_at": "2026-01-01T00:00:00"}, "observed_at"),
        (FLIP, {"id": ID, "label": "UP", "when": 1}, "when"),
        (FLIP, 7, ""),
    ],
)
def test_a_bad_item_is_named_and_the_good_one_beside_it_taken(schema: Any, item: Any, field: str) -> None:
    good = {"id": ID, "label": {"string": "UP", "integer": 1, "number": 1}[schema.label]}
    labels = decode([item, good], schema)
    assert [(error["item"], error["field"]) for error in labels.errors] == [(0, field)]
    assert labels.ids == [ID]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"labels": []}', b'{"labels": {}}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_the_protocols_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        FeedbackDecoder(FLIP).decode(body, max_rows=10)


def test_too_many_labels_are_refused() -> None:
    with pytest.raises(BodyTooLarge):
        decode([{"id": ID, "label": "UP"}] * 11)
