"""Tensors for schemas that the API's tests have not: texts, integer labels, values, one feature alone."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.domain.errors import InvalidRequest, InvalidRows
from service.domain.spec import Feature, Schema
from service.serving.batcher import Answered
from service.serving.block import Block
from service.serving.bundle import Bundle, load
from service.serving.decode import Decoder
from service.serving.outputs import Chosen, outputs, write
from service.serving.table import Table
from service.serving.tensors import Extent, read
from service.storage.artifacts import ArtifactStore
from service.storage.ids import QuotedIds
from tests.served import FLIP, PRICE, flip, pack, price
from tests.tensors import LENGTH, as_binary, as_json
from tests.unit.serving.test_decode import WORDS

ONE = replace(PRICE, model="one", features=(Feature("only"),))
TEXTS = replace(
    WORDS, features=(Feature("kind", kind="categorical"), Feature("free", kind="categorical", nullable=True))
)
ROWS: list[dict[str, Any]] = [{"x": 1.5, "kind": "a", "free": "ü"}, {"x": 2, "kind": "b", "free": ""}]


def text(*values: str | bytes | None) -> Any:
    return np.array(values, dtype=object)


def block(schema: Schema, tensors: dict[str, Any], *, is_binary: bool = True) -> Block:
    content, headers = as_binary(tensors) if is_binary else (json.dumps(as_json(tensors)).encode(), {})
    at = headers.get(LENGTH)
    extent = Extent(100, len(schema.features))
    return Table(schema).block(read(content, head_bytes=None if at is None else int(at), extent=extent))


@pytest.mark.parametrize("is_binary", [True, False])
def test_texts_come_as_bytes_and_are_the_rows_of_v1(is_binary: bool) -> None:
    tensors = {"free": text("ü", ""), "x": np.array([[1.5], [2.0]]), "kind": text("a", "b").reshape(2, 1)}
    found = block(WORDS, tensors, is_binary=is_binary)
    expected = Decoder(WORDS).decode(json.dumps({"instances": ROWS}).encode(), max_rows=9)
    assert (found.numeric.tolist(), found.text) == (expected.numeric.tolist(), expected.text)


@pytest.mark.parametrize("is_binary", [True, False])
def test_a_matrix_of_texts_is_taken_where_all_features_are_texts(is_binary: bool) -> None:
    found = block(TEXTS, {"all": text("a", "u", "b", "v").reshape(2, 2)}, is_binary=is_binary)
    assert found.text == {"kind": ["a", "b"], "free": ["u", "v"]}
    assert found.numeric.shape == (2, 0)
    with pytest.raises(InvalidRequest, match="'kind' holds strings, which come as BYTES; send one tensor for each"):
        block(WORDS, {"all": np.zeros((1, 3))})


def test_a_missing_text_is_null_in_json_alone() -> None:
    assert block(TEXTS, {"kind": text("a"), "free": text(None)}, is_binary=False).text["free"] == [None]
    with pytest.raises(InvalidRows, match="row 1, field 'kind': must not be null"):
        block(TEXTS, {"kind": text("a", None), "free": text("a", "b")}, is_binary=False)
    with pytest.raises(InvalidRequest, match="half of a character"):
        block(TEXTS, {"kind": text("\ud800"), "free": text("u")}, is_binary=False)


def test_a_category_that_is_refused_is_refused_here_too() -> None:
    with pytest.raises(InvalidRows, match="none of the feature's categories"):
        block(WORDS, {"x": np.zeros(1), "kind": text("c"), "free": text("u")})


@pytest.mark.parametrize("name", ["only", "any"])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_feature_alone_comes_by_its_name_or_as_a_matrix(name: str, shape: tuple[int, ...]) -> None:
    values = np.arange(3.0).reshape(shape)
    if name == "any" and len(shape) == 1:
        with pytest.raises(InvalidRequest, match="is no feature"):
            block(ONE, {name: values})
    else:
        assert block(ONE, {name: values}).numeric.tolist() == [[0.0], [1.0], [2.0]]


def test_what_comes_out_of_a_body_may_be_written_to() -> None:
    for tensors in ({"m": np.zeros((2, 8))}, {f"f{place}": np.zeros(2) for place in range(8)}):
        numeric = block(PRICE, tensors).numeric
        assert numeric.flags.writeable
        assert numeric.flags.c_contiguous


def test_a_nullable_truth_and_a_nullable_integer_take_null() -> None:
    schema = replace(
        FLIP,
        features=(Feature("on", kind="boolean", nullable=True), Feature("z", kind="categorical", nullable=True)),
        integer_categories=("z",),
    )
    assert [one["datatype"] for one in Table(schema).inputs] == ["BOOL", "FP64"]
    tensors = {"on": np.array([1.0, np.nan]), "z": np.array([np.nan, 2.0])}
    np.testing.assert_array_equal(block(schema, tensors).numeric, [[1, np.nan], [np.nan, 2]])
    request = as_json(tensors)
    request["inputs"][0] |= {"datatype": "BOOL", "data": [True, None]}
    found = Table(schema).block(read(json.dumps(request).encode(), head_bytes=None, extent=Extent(9, 2)))
    np.testing.assert_array_equal(found.numeric, [[1, np.nan], [np.nan, 2]])


@pytest.fixture
def values(tmp_path: Any) -> Bundle:
    store = ArtifactStore(tmp_path)
    return load(store, pack(store, PRICE, price(0)), generation=3)


def test_a_value_that_is_no_number_is_null_in_json_and_nan_in_binary(values: Bundle) -> None:
    answered = Answered(values, [1.5, float("nan")], None, ["i", "j"])
    assert [one["name"] for one in outputs(values)] == ["predictions", "ids"]
    plain = json.loads(write(answered, None, [Chosen("predictions", is_binary=False)]).body)
    assert plain["outputs"] == [{"name": "predictions", "datatype": "FP64", "shape": [2], "data": [1.5, None]}]
    assert plain["parameters"] == {"version": 1, "generation": 3}
    content = write(answered, None, [Chosen("predictions", is_binary=True)])
    assert content.head_bytes is not None
    np.testing.assert_array_equal(np.frombuffer(content.body[content.head_bytes :]), [1.5, np.nan])


def test_integer_labels_are_integers(tmp_path: Any) -> None:
    store = ArtifactStore(tmp_path)
    bundle = load(store, pack(store, FLIP, flip(0)), generation=1)
    numbers = replace(bundle, schema=replace(FLIP, label="integer", classes=(0, 1)), classes=(0, 1))
    answered = Answered(numbers, [0, 1], [[0.5, 0.5], [0.25, 0.75]], ["i", "j"])
    content = write(answered, "me", [Chosen("predictions", is_binary=True), Chosen("probabilities", is_binary=True)])
    head = json.loads(content.body[: content.head_bytes])
    assert head["parameters"]["classes"] == "[0,1]"
    assert [one["datatype"] for one in head["outputs"]] == ["INT64", "FP64"]
    blob = content.body[content.head_bytes :]
    assert np.frombuffer(blob[:16], dtype="<i8").tolist() == [0, 1]
    assert np.frombuffer(blob[16:]).tolist() == [0.5, 0.5, 0.25, 0.75]


@pytest.mark.parametrize("n", [1, 7])
def test_ids_are_the_same_texts_one_by_one_and_as_bytes(n: int) -> None:
    ids = QuotedIds.of(np.arange(16 * n, dtype=np.uint8).reshape(n, 16))
    assert ids.prefixed() == b"".join(b"\x24\0\0\0" + one.encode() for one in ids)
