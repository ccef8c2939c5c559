"""Labels converge whatever order they come in, and a digest knows only the content."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.storage.rows import MOMENT, join_labels, labels_table, newest_labels, predictions_table, sorted_rows
from service.storage.snapshot import Snapshot, digest_of
from tests.batches import START_US, label_batch, prediction_batch


def arrived(facts: list[tuple[str, str, int, int]]) -> pa.Table:
    ids, labels, observed, received = zip(*facts, strict=True)
    return pa.table(
        {
            "id": pa.array(ids),
            "label": pa.array(labels),
            "observed_at": pa.array(observed, pa.int64()).view(MOMENT),
            "received_at": pa.array(received, pa.int64()).view(MOMENT),
        }
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 3), st.integers(0, 10**6)),
        min_size=1,
        max_size=12,
        unique_by=lambda fact: fact[3],
    ),
    st.randoms(use_true_random=False),
)
def test_labels_converge_in_any_order(facts: list[tuple[str, str, int, int]], random: Any) -> None:
    expected = {}
    for name, label, observed, received in sorted(facts, key=lambda fact: (fact[2], fact[3])):
        expected[name] = (label, observed, received)
    random.shuffle(facts)
    found = newest_labels(arrived(facts)).to_pylist()
    assert {row["id"]: row["label"] for row in found} == {name: fact[0] for name, fact in expected.items()}
    assert len(found) == len(expected)


def test_each_labelled_prediction_is_joined_once() -> None:
    predictions = pa.table({"id": ["a", "b", "b", "c"], "x": [1, 2, 2, 3]})
    labels = pa.table({"id": ["b", "z", "a"], "label": ["B", "Z", "A"]})
    assert join_labels(predictions, labels).to_pydict() == {"id": ["a", "b"], "x": [1, 2], "label": ["A", "B"]}


def test_columns_have_the_types_of_their_kinds() -> None:
    table = predictions_table([prediction_batch(4)])
    assert table.schema.field("x_price").type == pa.float64()
    assert table.schema.field("x_holiday").type == pa.bool_()
    assert table.schema.field("x_zone").type == pa.int64()
    assert table.schema.field("x_day").type == pa.string()
    assert table.schema.field("output").type == pa.string()
    assert table["x_demand"].to_pylist() == [None, 1.5, 1.5, None]
    assert table["x_holiday"].to_pylist() == [False, True, False, True]
    assert table["probabilities"].to_pylist()[1] == [1.0, 0.0]


def test_batches_of_versions_with_other_features_share_a_table() -> None:
    table = predictions_table(
        [
            prediction_batch(2),
            prediction_batch(
                2,
                first=2,
                version=2,
                numeric_names=("price",),
                numeric_kinds=("numeric",),
                numeric=np.ones((2, 1)),
                text={"weather": ["sun", "rain"]},
                probabilities=None,
            ),
        ]
    )
    assert table["version"].to_pylist() == [1, 1, 2, 2]
    assert table["x_weather"].to_pylist() == [None, None, "sun", "rain"]
    assert table["x_zone"].to_pylist() == [0, 1, None, None]


def test_a_label_of_another_type_is_refused() -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        labels_table([label_batch(["a"], ["UP"], kind="number")])


def test_a_digest_knows_content_and_not_chunks() -> None:
    batch = predictions_table([prediction_batch(9)])
    chunked = pa.concat_tables([batch.slice(0, 4), batch.slice(4)])
    assert digest_of(batch) == digest_of(chunked) == digest_of(batch.select(list(reversed(batch.column_names))))
    other = batch.set_column(0, "id", pa.array([*batch["id"].to_pylist()[:-1], "other"]))
    assert digest_of(other) != digest_of(batch)
    assert digest_of(batch.slice(1)) != digest_of(batch.slice(0, 8))


def test_a_null_is_not_a_zero_and_texts_do_not_run_together() -> None:
    assert digest_of(pa.table({"x": [0.0, 1.0]})) != digest_of(pa.table({"x": [None, 1.0]}))
    assert digest_of(pa.table({"x": ["ab", "c"]})) != digest_of(pa.table({"x": ["a", "bc"]}))
    assert digest_of(pa.table({"x": ["", "c"]})) != digest_of(pa.table({"x": [None, "c"]}))
    lists = pa.list_(pa.float64())
    assert digest_of(pa.table({"x": pa.array([[1.0], [2.0]], lists)})) != digest_of(
        pa.table({"x": pa.array([[1.0, 2.0], []], lists)})
    )


def test_rows_are_sorted_by_event_time_then_id() -> None:
    times = pa.array([START_US + 1, START_US, START_US, START_US], pa.int64()).view(MOMENT)
    table = pa.table({"id": ["a", "c", None, "b"], "event_time": times})
    assert sorted_rows(table)["id"].to_pylist() == [None, "b", "c", "a"]


def test_a_snapshot_survives_json() -> None:
    table = sorted_rows(predictions_table([prediction_batch(3)]))
    snapshot = Snapshot.of(table, kind="kept", model="m", tables=({"uri": "u", "rows": 3},))
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    assert snapshot.time_min is not None
    assert snapshot.time_min < str(snapshot.time_max)
