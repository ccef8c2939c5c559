"""MLflow's form of a body: a frame's rows are those of the other forms, in whatever order its columns come."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.errors import BodyTooLarge, InvalidRequest, InvalidRows
from service.serving.block import Block
from service.serving.decode import Decoder
from service.serving.split import ORDERS, SplitReader
from tests.served import FLIP, instance
from tests.unit.serving.test_decode import WORDS

ROWS = [instance(), instance(a=-2.5, n=0.25, on=False, zone=3)]


def split(rows: list[dict[str, Any]], order: Any = None, **more: Any) -> dict[str, Any]:
    names = list(rows[0] if order is None else order)
    return {"dataframe_split": {"columns": names, "data": [[row[name] for name in names] for row in rows], **more}}


def decode(body: Any, schema: Any = FLIP, *, max_rows: int = 100) -> Block:
    return Decoder(schema).decode(body if isinstance(body, bytes) else json.dumps(body).encode(), max_rows=max_rows)


@given(order=st.permutations(list(FLIP.names)), is_first=st.booleans(), indent=st.none() | st.integers(0, 8))
@settings(deadline=None)
def test_a_frame_in_any_order_is_the_same_rows_as_instances(
    order: list[str], is_first: bool, indent: int | None
) -> None:
    body = split(ROWS, order, index=[7, 8])
    if is_first:
        body["dataframe_split"] = dict(reversed(body["dataframe_split"].items()))
    block = decode(json.dumps(body, indent=indent).encode())
    np.testing.assert_array_equal(block.numeric, decode({"instances": ROWS}).numeric)
    assert block.event_time_us is None


def test_a_right_frame_takes_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "_slow", None)
    assert decode(split(ROWS)).numeric.shape == (2, 5)
    assert decode(split([{**ROWS[0], "at": "2026-01-01T00:00:00Z"}])).event_time_us is not None


def test_a_frame_may_hold_event_times_and_texts() -> None:
    rows = [{"x": 1, "kind": "a", "free": None, "at": "2026-01-01T01:00:00+01:00"}]
    block = decode(split(rows, ["free", "at", "x", "kind"]), WORDS)
    assert (block.numeric.tolist(), block.text) == ([[1.0]], {"kind": ["a"], "free": [None]})
    assert block.event_time_us is not None
    assert block.event_time_us.tolist() == [1_767_225_600_000_000]


def test_what_is_wrong_with_a_frames_values_is_named_by_row_and_field() -> None:
    rows = [instance(), instance(a=None, on=1), instance(zone="2", n=2.0)]
    with pytest.raises(InvalidRows) as caught:
        decode(split(rows))
    assert {(error["row"], error["field"]) for error in caught.value.facts["errors"]} == {
        (1, "a"), (1, "on"), (2, "zone"),
    }  # fmt: skip
    with pytest.raises(InvalidRows, match="outside"):
        decode(split([instance(n=2.0)]))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"dataframe_split": []}, "must be"),
        ({"dataframe_split": {}}, "must be"),
        ({"dataframe_split": {"columns": []}}, "must be"),
        ({"dataframe_split": {"columns": [], "data": [], "more": 1}}, "must be"),
        ({"dataframe_split": {"columns": {}, "data": []}}, "columns must be a list"),
        ({"dataframe_split": {"columns": ["a"], "data": {}}}, "columns must be a list"),
        ({"dataframe_split": {"columns": [1], "data": [[1]]}}, "columns must be a list"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 1]]}}, "same name"),
        (split(ROWS[:1], [*FLIP.names, "a"]), "same name"),
        (split([{**ROWS[0], "at": "2026-01-01T00:00:00Z", "zz": 1}]), "no features: 'zz'"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "missing: 'b', 'n', 'on', 'zone'"),
        ({"dataframe_split": {"columns": [*FLIP.names[:4], "Zone"], "data": []}}, "did you mean 'zone'"),
        ({"dataframe_split": {"columns": list(FLIP.names), "data": [[0, 0, 0, True]]}}, "row 0 has 4 values"),
        ({"dataframe_split": {"columns": list(FLIP.names), "data": [7]}}, "row 0 is no list"),
        ({"dataframe_split": {"columns": list(FLIP.names), "data": []}}, "at least one row"),
        ({**split(ROWS), "params": {}}, "nothing beside it"),
        ({"dataframe_split": {"columns": ["x" * 100], "data": [[1]]}}, "long or not printable"),
    ],
)
def test_a_body_that_is_no_frame_of_the_models_is_refused_with_words(body: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        decode(body)
    assert "x" * 100 not in caught.value.detail


def test_a_frame_with_too_many_rows_is_refused() -> None:
    for rows in ([instance()] * 3, [instance(a="x")] * 3):
        with pytest.raises(BodyTooLarge):
            decode(split(rows), max_rows=2)


def test_many_orders_of_columns_are_not_remembered_for_ever() -> None:
    names = [f"f{place}" for place in range(ORDERS * 2)]
    reader = SplitReader(dict.fromkeys(names, float), "at")
    for turn in range(len(names)):
        order = names[turn:] + names[:turn]
        body = json.dumps({"dataframe_split": {"columns": order, "data": [list(range(len(names)))]}})
        assert reader.read(body.encode()) == (tuple(order), [tuple(float(place) for place in range(len(names)))])
        assert len(reader._decoders) <= ORDERS
