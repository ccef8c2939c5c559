"""A snapshot's digest: of the values alone, however they lie in memory, and the same as ever."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.storage import snapshot
from service.storage.snapshot import digest_of

COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "float": (pa.float64(), st.floats(allow_nan=True)),
    "integer": (pa.int64(), st.integers(-(2**62), 2**62)),
    "small": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "boolean": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(max_size=5)),
    "long text": (pa.large_string(), st.text(max_size=5)),
    "moment": (
        pa.timestamp("us", tz="UTC"),
        st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  its bounds
    ),
    "numbers": (pa.list_(pa.float64()), st.lists(st.floats(allow_nan=False), max_size=3)),
}


def as_ever(table: pa.Table) -> str:
    """Return the digest by its first definition, by which snapshots of older releases were written."""
    digest = hashlib.sha256()
    for name in sorted(table.column_names):
        array = table[name].combine_chunks()
        digest.update(f"{name}\0{array.type}\0{len(array)}\0".encode())
        for part in _whole(array):
            digest.update(part)
    return digest.hexdigest()


def _whole(array: pa.Array) -> list[Any]:
    valid = pc.is_valid(array).cast(pa.uint8()).to_numpy(zero_copy_only=False)
    kind = array.type
    if pa.types.is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        return [valid, lengths, *_whole(pc.list_flatten(array))]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        lengths = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False)
        return [valid, lengths, "".join(pc.fill_null(array, "").to_pylist()).encode()]
    if pa.types.is_timestamp(kind):
        array = array.cast(pa.timestamp("us", kind.tz)).view(pa.int64())
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    return [valid, pc.fill_null(array, 0).to_numpy(zero_copy_only=False)]


@pytest.mark.parametrize("name", COLUMNS)
@given(data=st.data())
def test_a_digest_is_that_of_older_releases_however_the_column_is_cut(name: str, data: st.DataObject) -> None:
    kind, values = COLUMNS[name]
    parts = data.draw(st.lists(st.lists(st.none() | values, max_size=6), min_size=1, max_size=4))
    table = pa.table({"x": pa.chunked_array([pa.array(part, kind) for part in parts], type=kind)})
    begin = data.draw(st.integers(0, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "_PIECE", data.draw(st.integers(1, 7)))
        assert digest_of(table) == as_ever(table)
        # A slice that lies inside of larger buffers, as what is read and filtered does.
        assert digest_of(table.slice(begin)) == as_ever(table.slice(begin))


def test_tables_that_differ_in_one_value_a_null_or_where_a_text_ends_have_other_digests() -> None:
    tables = [["a", "bc"], ["ab", "c"], ["a", None, "bc"], ["a", "", "bc"], ["a", "bd"], []]
    found = {digest_of(pa.table({"x": pa.array(values, pa.string())})) for values in tables}
    assert len(found) == len(tables)
