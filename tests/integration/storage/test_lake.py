"""The lake: what was committed is read back by event time, joined with its labels, and read again as it was."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from service.domain.errors import LakeUnavailable
from service.domain.spec import Feature, Schema
from service.storage.delta import DeltaFolder
from service.storage.ids import id_texts, new_id
from service.storage.lake import Lake, MisfitError
from service.storage.records import PredictionBatch
from service.storage.rows import MOMENT, labels_table, predictions_table
from tests.batches import START_US, STEP_US, label_batch, prediction_batch

MODEL = "electricity"
SCHEMA = Schema(
    model=MODEL,
    task="classification",
    timestamp="timestamp",
    features=(
        Feature("price"),
        Feature("demand", nullable=True),
        Feature("holiday", kind="boolean"),
        Feature("zone", kind="categorical"),
        Feature("day", kind="categorical", nullable=True),
    ),
    integer_categories=("zone",),
    label="string",
    classes=("DOWN", "UP"),
)


def moment(step: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START_US + int(step * STEP_US))


class Filler:
    """Commits batches one after the other, as the committer would."""

    def __init__(self, lake: Lake) -> None:
        self.lake, self.seq = lake, 0

    def predictions(self, *batches: PredictionBatch) -> list[str]:
        self.seq += 1
        self.lake.append_predictions(MODEL, predictions_table(batches), transactions={"stream": self.seq})
        return [text.decode() for batch in batches for text in id_texts(batch.ids)]

    def labels(self, ids: list[str], labels: list[Any], **overrides: Any) -> None:
        self.seq += 1
        table = labels_table([label_batch(ids, labels, **overrides)])
        self.lake.append_labels(MODEL, table, transactions={"stream": self.seq})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def filler(lake: Lake) -> Filler:
    return Filler(lake)


def test_an_empty_lake_has_no_rows_and_no_watermark(lake: Lake) -> None:
    assert lake.watermark(MODEL) is None
    assert lake.read_window(MODEL, after=None, until=None).num_rows == 0
    assert lake.newest_rows(MODEL, 5).num_rows == 0
    assert lake.labels_known(MODEL).num_rows == 0
    assert lake.find_prediction(MODEL, new_id()) is None
    assert lake.maintain(MODEL) == {"predictions": {}, "labels": {}}
    rows, snapshot = lake.training_rows(MODEL, SCHEMA, after=None, until=None, observed_until=None)
    assert rows.num_rows == snapshot.rows == 0


def test_a_window_is_open_at_its_start_and_closed_at_its_end(lake: Lake, filler: Filler) -> None:
    for first in range(0, 40, 4):
        filler.predictions(prediction_batch(4, first=first))
    found = lake.read_window(MODEL, after=moment(10), until=moment(20))
    assert found["event_time"].to_pylist() == [moment(step) for step in range(11, 21)]
    named = lake.read_window(MODEL, after=moment(38), until=None, columns=["x_price"])
    assert named.column_names == ["id", "event_time", "x_price"]
    assert named["x_price"].to_pylist() == [3.9]


def test_statistics_of_milliseconds_hide_no_microsecond(lake: Lake, filler: Filler) -> None:
    batch = prediction_batch(1, event_time_us=np.array([START_US + 1_999]))
    filler.predictions(batch)
    exact = moment(0) + timedelta(microseconds=1_999)
    assert lake.read_window(MODEL, after=exact - timedelta(microseconds=1), until=exact).num_rows == 1
    assert lake.watermark(MODEL) == exact
    assert lake.newest_rows(MODEL, 1, until=exact).num_rows == 1
    assert lake.newest_rows(MODEL, 1, until=exact - timedelta(microseconds=1)).num_rows == 0


def test_the_newest_rows_are_found_across_files_in_any_order(lake: Lake, filler: Filler) -> None:
    for first in (20, 0, 30, 10):
        filler.predictions(prediction_batch(10, first=first))
    for until in (None, moment(33), moment(9.5), moment(-1)):
        steps = [step for step in range(40) if until is None or moment(step) <= until][-15:]
        found = lake.newest_rows(MODEL, 15, until=until)
        assert found["event_time"].to_pylist() == [moment(step) for step in steps]


def test_a_row_from_the_future_never_moves_the_watermark(lake: Lake, filler: Filler) -> None:
    filler.predictions(prediction_batch(5))
    assert lake.watermark(MODEL) == moment(4)
    ahead = prediction_batch(3, first=5)
    times = np.array([START_US + 5 * STEP_US, START_US + 6 * STEP_US, START_US + 999 * STEP_US])
    filler.predictions(prediction_batch(3, event_time_us=times, answered_at_us=ahead.answered_at_us))
    assert lake.watermark(MODEL) == moment(6)
    filler.predictions(prediction_batch(2, first=2))
    assert lake.watermark(MODEL) == moment(6)
    lake.maintain(MODEL)
    assert Lake(lake.root).watermark(MODEL) == moment(6)


def test_a_version_with_other_features_adds_columns(lake: Lake, filler: Filler) -> None:
    filler.predictions(prediction_batch(2))
    filler.predictions(
        prediction_batch(
            2,
            first=2,
            version=2,
            numeric_names=("price", "wind"),
            numeric_kinds=("numeric", "numeric"),
            numeric=np.ones((2, 2)),
            text={},
        )
    )
    found = lake.read_window(MODEL, after=None, until=None)
    assert found["x_wind"].to_pylist() == [None, None, 1.0, 1.0]
    assert found["x_zone"].to_pylist() == [0, 1, None, None]


def test_a_column_that_can_not_become_the_tables_is_a_misfit(lake: Lake, filler: Filler) -> None:
    filler.predictions(prediction_batch(2))
    odd = prediction_batch(
        2, numeric_names=(), numeric_kinds=(), numeric=np.empty((2, 0)), text={"price": ["high", "low"]}
    )
    with pytest.raises(MisfitError, match="x_price"):
        filler.predictions(odd)
    assert lake.read_window(MODEL, after=None, until=None).num_rows == 2


def test_training_rows_are_the_data_set_and_the_labelled_predictions(lake: Lake, filler: Filler) -> None:
    start = pa.table(
        {
            "event_time": pa.array([START_US - 2 * STEP_US, START_US - STEP_US], pa.int64()).view(MOMENT),
            "x_price": [7.0, 8.0],
            "x_day": ["old", None],
            "label": ["DOWN", "UP"],
        }
    )
    assert lake.write_dataset(MODEL, start)
    assert not lake.write_dataset(MODEL, start)
    ids = filler.predictions(prediction_batch(10))
    filler.labels(ids[:6], ["UP"] * 6)
    filler.labels([ids[0], new_id()], ["DOWN", "UP"], observed_at_us=[START_US + 10**6] * 2)
    rows, snapshot = lake.training_rows(MODEL, SCHEMA, after=None, until=moment(4), observed_until=None)
    assert rows.column_names == ["id", "event_time", "x_price", "x_demand", "x_holiday", "x_zone", "x_day", "label"]
    assert rows["event_time"].to_pylist() == [moment(step) for step in range(-2, 5)]
    assert rows["label"].to_pylist() == ["DOWN", "UP", "DOWN", "UP", "UP", "UP", "UP"]
    assert rows["id"].to_pylist() == [None, None, *ids[:5]]
    assert (snapshot.rows, snapshot.time_max) == (7, moment(4).isoformat())
    known, _ = lake.training_rows(
        MODEL, SCHEMA, after=moment(-1), until=None, observed_until=moment(0) + timedelta(microseconds=2)
    )
    assert known["id"].to_pylist() == ids[:3]
    assert known["label"].to_pylist() == ["UP"] * 3


def test_another_data_set_takes_the_place_of_the_former(lake: Lake) -> None:
    times = pa.array([START_US], pa.int64()).view(MOMENT)
    for price in (1.0, 2.0, 1.0):
        assert lake.write_dataset(MODEL, pa.table({"event_time": times, "x_price": [price], "label": ["UP"]}))
        rows, _ = lake.training_rows(MODEL, SCHEMA, after=None, until=None, observed_until=None)
        assert rows["x_price"].to_pylist() == [price]


def test_a_training_snapshot_is_read_again_as_it_was(lake: Lake, filler: Filler) -> None:
    ids = filler.predictions(prediction_batch(20))
    filler.labels(ids, ["UP"] * 20)
    rows, snapshot = lake.training_rows(MODEL, SCHEMA, after=None, until=None, observed_until=None)
    plain = json.loads(json.dumps(snapshot.to_json()))
    filler.predictions(prediction_batch(5, first=3))
    filler.labels(ids[:4], ["DOWN"] * 4, observed_at_us=[START_US + 10**6] * 4)
    assert Lake(lake.root).read_snapshot(plain).equals(rows)


def test_a_snapshot_whose_rows_have_changed_is_refused(lake: Lake, filler: Filler) -> None:
    ids = filler.predictions(prediction_batch(20))
    filler.labels(ids, ["UP"] * 20)
    _, snapshot = lake.training_rows(MODEL, SCHEMA, after=None, until=None, observed_until=None)
    filler.labels(ids[:4], ["DOWN"] * 4, observed_at_us=[START_US + 10**6] * 4)
    plain = snapshot.to_json()
    for table in plain["tables"]:
        table["version"] = 999
    with pytest.raises(LakeUnavailable, match="can't be read any more"):
        lake.read_snapshot(plain)


def test_kept_rows_outlive_retention(lake: Lake, filler: Filler) -> None:
    filler.predictions(prediction_batch(20))
    rows = lake.read_window(MODEL, after=None, until=None, columns=["x_price", "x_day", "output", "probabilities"])
    snapshot = lake.keep(MODEL, rows)
    other = lake.keep(MODEL, rows.slice(0, 3).select(["event_time", "x_day"]))
    assert lake.keep(MODEL, rows) == snapshot
    assert lake.forget(MODEL, "predictions", before=moment(100)) == 20
    lake.maintain(MODEL)
    assert lake.read_window(MODEL, after=None, until=None).num_rows == 0
    assert lake.read_snapshot(json.loads(json.dumps(snapshot.to_json()))).equals(rows)
    assert lake.read_snapshot(other.to_json()).num_rows == 3


def test_maintenance_loses_no_row_and_no_transaction(lake: Lake, filler: Filler) -> None:
    for first in range(0, 60, 3):
        filler.predictions(prediction_batch(3, first=first))
    before = lake.read_window(MODEL, after=None, until=None)
    done = lake.maintain(MODEL)
    assert done["predictions"]["merged"] == 20
    fresh = Lake(lake.root)
    for reader in (lake, fresh):
        assert reader.read_window(MODEL, after=None, until=None).equals(before)
        assert reader.committed(MODEL, "predictions", "stream")["stream"] == filler.seq
    assert len(DeltaTable(f"{lake.root}/predictions/{MODEL}").file_uris()) == 1
    filler.predictions(prediction_batch(3, first=60))
    assert fresh.read_window(MODEL, after=None, until=None).num_rows == 63


def test_old_files_and_log_entries_are_removed_under_a_reader(tmp_path: Path) -> None:
    def a_folder() -> DeltaFolder:
        return DeltaFolder(str(tmp_path / "table"), stats=("id",), history=timedelta(seconds=1))

    def ids(folder: DeltaFolder) -> list[str]:
        view = folder.view()
        assert view is not None
        found: list[str] = view.read(view.files)["id"].to_pylist()
        return sorted(found)

    writer, reader = a_folder(), a_folder()
    for number in range(20):
        writer.append(pa.table({"id": [str(number)]}), transactions={"stream": number})
    assert len(ids(reader)) == 20
    assert writer.maintain()["merged"] == 20
    more, deadline = 0, time.monotonic() + 20
    while writer.maintain()["removed"] < 20:
        assert time.monotonic() < deadline
        more += 1
        writer.append(pa.table({"id": ["more"]}), transactions={"stream": 19 + more})
    expected = sorted([*map(str, range(20)), *["more"] * more])
    assert ids(reader) == ids(a_folder()) == expected
    assert reader.committed("stream")["stream"] == 19 + more


def test_maintenance_beside_a_committer_loses_nothing(lake: Lake, filler: Filler) -> None:
    stop = threading.Event()
    failures: list[Exception] = []

    def maintain() -> None:
        other = Lake(lake.root)
        while not stop.is_set():
            try:
                other.maintain(MODEL)
            except LakeUnavailable as error:
                failures.append(error)

    thread = threading.Thread(target=maintain)
    thread.start()
    try:
        ids = [name for first in range(0, 120, 3) for name in filler.predictions(prediction_batch(3, first=first))]
    finally:
        stop.set()
        thread.join(60)
    found = Lake(lake.root).read_window(MODEL, after=None, until=None)
    assert sorted(found["id"].to_pylist()) == sorted(ids)
    assert lake.committed(MODEL, "predictions", "stream")["stream"] == filler.seq
    assert failures == []


def test_a_prediction_is_found_by_its_id_with_its_newest_label(lake: Lake, filler: Filler) -> None:
    ids = [name for first in range(0, 30, 3) for name in filler.predictions(prediction_batch(3, first=first))]
    filler.labels([ids[7]], ["UP"])
    filler.labels([ids[7]], ["DOWN"], observed_at_us=[START_US + 5])
    found = lake.find_prediction(MODEL, ids[7])
    assert found is not None
    assert found["event_time"] == moment(7)
    assert found["features"] == {"price": 0.7, "demand": 1.5, "holiday": True, "zone": 2, "day": "day 0"}
    assert found["label"]["label"] == "DOWN"
    unlabelled = lake.find_prediction(MODEL, ids[8])
    assert unlabelled is not None
    assert unlabelled["label"] is None


def test_a_lake_that_can_not_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("no folder")
    with pytest.raises(LakeUnavailable):
        Filler(Lake(tmp_path / "lake")).predictions(prediction_batch(2))
