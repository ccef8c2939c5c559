"""What a run learns from is read some files at a time: what has no label is never all held, no row is lost by it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.domain.spec import Feature, Schema
from service.storage import queries
from service.storage.lake import Lake
from service.storage.rows import MOMENT, join_labels

MODEL = "wide"
NAMES = tuple(f"f{place}" for place in range(20))
SCHEMA = Schema(model=MODEL, task="regression", timestamp="at", features=tuple(map(Feature, NAMES)), label="number")
BEGIN_US = 1_767_225_600_000_000
FILE, FILES = 20_000, 10


def texts(start: int, n: int) -> pa.Array:
    return pa.array([f"{place:08x}-0000-7000-8000-000000000000" for place in range(start, start + n)])


def moments(start: int, n: int) -> pa.Array:
    return pa.array(BEGIN_US + np.arange(start, start + n) * 1000, pa.int64()).view(MOMENT)


def answers(start: int, n: int = FILE) -> pa.Table:
    at = moments(start, n)
    numbers = {f"x_{name}": np.random.default_rng(start).normal(size=n) for name in NAMES}
    return pa.table({"id": texts(start, n), "event_time": at, "answered_at": at, **numbers})


def labels(start: int, n: int, value: float, *, late: int = 0) -> pa.Table:
    seen = moments(start + late, n)
    return pa.table({"id": texts(start, n), "label": np.full(n, value), "observed_at": seen, "received_at": seen})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", now=lambda: datetime(2026, 1, 2, tzinfo=UTC))


def read(lake: Lake) -> pa.Table:
    table, _ = lake.training_rows(MODEL, SCHEMA, after=None, until=None, observed_until=None)
    return table


def test_answers_without_a_label_are_never_all_in_memory(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_TOGETHER", FILE)
    for place in range(FILES):
        lake.append_predictions(MODEL, answers(place * FILE), transactions={"a": place + 1})
        lake.append_labels(MODEL, labels(place * FILE, FILE // 50, 1.0), transactions={"a": place + 1})
    held: list[int] = []
    joined = join_labels

    def watched(rows: pa.Table, known: pa.Table) -> pa.Table:
        held.append(pa.total_allocated_bytes())
        return joined(rows, known)

    monkeypatch.setattr(queries, "join_labels", watched)
    before = pa.total_allocated_bytes()
    assert read(lake).num_rows == FILES * FILE // 50
    one_file = answers(0).nbytes
    assert len(held) == FILES
    assert max(held) - before < 4 * one_file


@pytest.mark.parametrize("together", [1, FILE, FILE + 1, 10**9])
def test_the_rows_are_the_same_however_many_files_are_read_together(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(queries, "_TOGETHER", together)
    for place in (2, 0, 1):  # not in the order of time
        lake.append_predictions(MODEL, answers(place * FILE), transactions={"a": place + 1})
    lake.append_labels(MODEL, labels(10, 2 * FILE, 1.0), transactions={"a": 1})
    lake.append_labels(
        MODEL, labels(FILE - 5, 10, 2.0, late=FILE), transactions={"a": 2}
    )  # corrected, across two files
    lake.append_predictions(MODEL, answers(0, 15), transactions={"b": 1})  # written twice
    found = read(lake)
    expected: list[Any] = texts(10, 2 * FILE).to_pylist()
    assert found["id"].to_pylist() == expected
    assert found["event_time"].to_pylist() == moments(10, 2 * FILE).to_pylist()
    values = found["label"].to_numpy()
    assert set(np.flatnonzero(values == 2.0)) == set(range(FILE - 15, FILE - 5))
    assert set(values) == {1.0, 2.0}
    np.testing.assert_array_equal(found["x_f3"].to_numpy()[: FILE - 10], answers(0)["x_f3"].to_numpy()[10:])
