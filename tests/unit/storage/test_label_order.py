"""Labels converge: whatever order they come in, however often, and however the files were merged since."""

from datetime import UTC, datetime, timedelta
from random import Random

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from service.storage.rows import MOMENT, join_labels, labels_table, newest_labels
from tests.batches import label_batch

IDS = ["a", "b", "c"]
MOMENTS = st.integers(0, 3)
LABELS = st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(["UP", "DOWN", "FLAT"]), MOMENTS, MOMENTS))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def table(facts: list[tuple[str, str, int, int]]) -> pa.Table:
    batches = [
        label_batch([one], [label], observed_at_us=[observed], received_at_us=received)
        for one, label, observed, received in facts
    ]
    return labels_table(batches or [label_batch([], [])])


def settled(labels: pa.Table) -> list[tuple[str, str, datetime, datetime]]:
    rows = newest_labels(labels).to_pylist()
    return sorted((row["id"], row["label"], row["observed_at"], row["received_at"]) for row in rows)


@settings(deadline=None)  # a busy machine is no finding
@given(LABELS, st.randoms(use_true_random=False), st.integers(0, 5))
def test_any_order_with_any_repeats_settles_on_the_same_labels(
    facts: list[tuple[str, str, int, int]], chance: Random, repeats: int
) -> None:
    shuffled = [*facts, *facts[:repeats]]
    chance.shuffle(shuffled)
    expected: dict[str, tuple[int, int, str]] = {}
    for one, label, observed, received in facts:
        expected[one] = max((observed, received, label), expected.get(one, (-1, -1, "")))
    wanted = sorted(
        (one, label, EPOCH + timedelta(microseconds=observed), EPOCH + timedelta(microseconds=received))
        for one, (observed, received, label) in expected.items()
    )
    assert settled(table(facts)) == settled(table(shuffled)) == wanted


@settings(deadline=None)  # a busy machine is no finding
@given(LABELS, st.lists(st.sampled_from(IDS), unique=True))
def test_each_answered_row_is_joined_with_the_one_label_that_stands(
    facts: list[tuple[str, str, int, int]], answered: list[str]
) -> None:
    times = pa.array(range(len(answered)), pa.int64()).view(MOMENT)
    rows = pa.table({"id": pa.array(answered, pa.string()), "event_time": times})
    joined = join_labels(rows, newest_labels(table(facts)))
    truth = {one: label for one, label, _, _ in settled(table(facts))}
    assert dict(zip(joined["id"].to_pylist(), joined["label"].to_pylist(), strict=True)) == {
        one: truth[one] for one in answered if one in truth
    }
    assert joined.num_rows == len(set(answered) & set(truth))
