"""Bodies: what is right is decoded, what is wrong is named."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.errors import BodyTooLarge, InvalidRequest, InvalidRows
from service.domain.spec import Feature, Schema
from service.serving.block import NOW, Block
from service.serving.decode import Decoder
from tests.served import FLIP, instance

WORDS = Schema(
    model="words",
    task="classification",
    timestamp="at",
    features=(
        Feature("x"),
        Feature("kind", kind="categorical", categories=("a", "b"), refuse=True),
        Feature("free", kind="categorical", nullable=True, categories=("u",)),
    ),
    frame=True,
    label="integer",
    classes=(0, 1),
)


def decode(body: Any, schema: Schema = FLIP, *, max_rows: int = 1000) -> Block:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Decoder(schema).decode(raw, max_rows=max_rows)


def faults(body: Any, schema: Schema = FLIP) -> set[tuple[int, str, str]]:
    with pytest.raises(InvalidRows) as caught:
        decode(body, schema)
    return {(error["row"], error["field"], error["code"]) for error in caught.value.facts["errors"]}


def test_objects_lists_and_columns_are_the_same_rows() -> None:
    rows = [instance(), instance(a=-2.5, n=0.25, on=False, zone=3)]
    objects = decode({"instances": rows})
    lists = decode({"instances": [list(row.values()) for row in rows]})
    columns = decode({"columns": {name: [row[name] for row in rows] for name in rows[0]}})
    assert objects.numeric.tolist()[1] == [-2.5, 1.0, 0.25, 0.0, 3.0]
    assert np.isnan(objects.numeric[0, 2])
    for other in (lists, columns):
        np.testing.assert_array_equal(other.numeric, objects.numeric)


def test_the_order_of_an_objects_fields_does_not_matter() -> None:
    row = instance()
    turned = dict(reversed(row.items()))
    np.testing.assert_array_equal(decode({"instances": [row]}).numeric, decode({"instances": [turned]}).numeric)


def test_an_event_time_is_taken_and_its_absence_means_now() -> None:
    block = decode({"instances": [instance(at="2026-01-01T01:00:00.000001+01:00"), instance()]})
    assert block.event_time_us is not None
    assert block.event_time_us.tolist() == [1_767_225_600_000_001, NOW]
    assert decode({"instances": [instance()]}).event_time_us is None


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00", "2026-01-01", "yesterday", 1_767_225_600, None, ""])
def test_an_event_time_without_a_zone_or_sense_is_refused(moment: Any) -> None:
    assert faults({"instances": [instance(at=moment)]}) == {(0, "at", "type")}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("a", "0.5", "type"),
        ("a", True, "type"),
        ("a", None, "null"),
        ("a", [0.5], "type"),
        ("a", float("nan"), "not_finite"),
        ("a", float("-inf"), "not_finite"),
        ("a", 10**400, "not_finite"),
        ("on", 1, "type"),
        ("on", None, "null"),
        ("zone", "2", "type"),
        ("zone", 1.5, "type"),
        ("zone", True, "type"),
        ("zone", 2**60, "type"),
        ("n", 1.5, "out_of_range"),
        ("extra", 1, "unknown"),
    ],
)
def test_a_bad_value_is_named_with_its_row_and_field(field: str, value: Any, code: str) -> None:
    assert faults({"instances": [instance(), instance(**{field: value})]}) == {(1, field, code)}


def test_every_bad_field_of_every_bad_row_is_named() -> None:
    first, second = instance(a="x", on=0), instance()
    del second["zone"]
    found = faults({"instances": [first, instance(), second, 7, [1, 2]]})
    assert found == {(0, "a", "type"), (0, "on", "type"), (2, "zone", "missing"), (3, "", "type"), (4, "", "type")}


def test_a_listing_stops_at_a_hundred_and_says_how_many_more() -> None:
    with pytest.raises(InvalidRows) as caught:
        decode({"instances": [instance(a="x", on=0)] * 80})
    facts = caught.value.facts
    assert (len(facts["errors"]), facts["more"], facts["rows"]) == (100, 60, 80)


def test_odd_values_are_answered_and_counted_unless_the_feature_refuses() -> None:
    block = decode({"instances": [instance(b=99, zone=9), instance(b=-99), instance()]})
    assert Decoder(FLIP).layout.signals(block) == {"b:out_of_range": 2, "zone:unseen": 1}


def test_a_whole_float_is_an_integer_category() -> None:
    assert decode({"instances": [instance(zone=2.0)]}).numeric[0, 4] == 2.0


def test_text_features_make_a_frame_and_refuse_what_they_must() -> None:
    rows = [{"x": 1, "kind": "a", "free": None}, {"x": 2, "kind": "b", "free": "new"}]
    decoder = Decoder(WORDS)
    block = decode({"instances": rows}, WORDS)
    frame = decoder.layout.design(block)
    assert frame.to_dict("list") == {"x": [1.0, 2.0], "kind": ["a", "b"], "free": [None, "new"]}
    assert decoder.layout.signals(block) == {"free:unseen": 1}
    assert faults({"instances": [{"x": 1, "kind": "c", "free": None}]}, WORDS) == {(0, "kind", "unseen")}
    assert faults({"instances": [{"x": 1, "kind": 1, "free": "\ud800"}]}, WORDS) == {
        (0, "kind", "type"), (0, "free", "type"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b"\xff\xfe",
        b'{"instances": ["\xff"]}',
        b"[]",
        b"null",
        b"{}",
        b'{"instances": []}',
        b'{"instances": {}}',
        b'{"columns": []}',
        b'{"columns": {"a": [1], "b": [1, 2]}}',
        b'{"instances": [], "columns": {}}',
        b'{"instances": [{}], "more": 1}',
        b'{"instances": ' + b"[" * 100_000,
        b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"instances": [{"a": ' + b"1" * 5000 + b"}]}",
        "{}".encode("utf-16"),
    ],
)
def test_a_body_that_is_not_the_protocols_is_refused_without_an_echo(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(body)
    assert len(caught.value.detail) < 200


def test_more_rows_than_allowed_are_refused_whatever_their_form() -> None:
    for rows in ([instance()] * 3, [instance(a="x")] * 3):
        with pytest.raises(BodyTooLarge):
            decode({"instances": rows}, max_rows=2)


def test_a_strange_field_name_is_not_echoed() -> None:
    assert ("x" * 100) not in str(faults({"instances": [instance(**{"x" * 100: 1})]}))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from([*FLIP.names, "at", "zz"]), VALUES, max_size=7), max_size=4))
def test_any_body_is_decoded_or_refused_on_purpose(rows: list[dict[str, Any]]) -> None:
    body = json.dumps({"instances": rows}).encode()
    try:
        block = Decoder(FLIP).decode(body, max_rows=10)
    except (InvalidRequest, InvalidRows):
        return
    assert len(block) == len(rows)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(
        st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2, st.booleans(), st.integers(-9, 9)),
        min_size=1,
        max_size=5,
    )
)
def test_the_fast_and_the_slow_way_read_the_same(values: list[tuple[float, float, bool, int]]) -> None:
    rows = [{"a": a, "b": b, "n": None, "on": on, "zone": zone} for a, b, on, zone in values]
    fast = Decoder(FLIP).decode(msgspec.json.encode({"instances": rows}), max_rows=10)
    slow = Decoder(FLIP)._slow(msgspec.json.encode({"instances": rows}), 10)
    np.testing.assert_array_equal(fast.numeric, slow.numeric)
