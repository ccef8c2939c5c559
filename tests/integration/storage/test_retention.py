"""Rows older than their policy go; nothing younger does, whoever writes or reads meanwhile."""

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable

from service.control.retention import Keeping
from service.domain.errors import LakeUnavailable
from service.storage import delta, models
from service.storage.database import Database
from service.storage.ids import id_texts
from service.storage.lake import HISTORY, Lake
from service.storage.records import PredictionBatch
from service.storage.rows import labels_table, predictions_table
from tests.batches import START_US, STEP_US, label_batch, prediction_batch

MODEL = "electricity"
AT = datetime(2026, 3, 1, tzinfo=UTC)
IN_FLIGHT = timedelta(seconds=5)
"""A file is written before it is committed: where two processes work, what is unused for a moment is none to delete."""


def moment(step: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START_US + int(step * STEP_US))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'retrue.db'}")
    database.migrate()
    yield database
    database.close()


def register(database: Database, **retention: str) -> None:
    with database.write() as conn:
        models.register(conn, MODEL, spec_json={"policies": {"retention": retention}}, file="m.py", at=AT)


def fill(lake: Lake, rows: int) -> None:
    """Add rows half an hour apart, each with a label that was observed at its own event time."""
    for first in range(0, rows, 48):
        batch = prediction_batch(48, first=first)
        ids = [text.decode() for text in id_texts(batch.ids)]
        labels = label_batch(ids, ["UP"] * 48, observed_at_us=batch.event_time_us.tolist())
        lake.append_predictions(MODEL, predictions_table([batch]), transactions={"s": first})
        lake.append_labels(MODEL, labels_table([labels]), transactions={"s": first})


def times(lake: Lake) -> list[datetime]:
    found: list[datetime] = lake.read_window(MODEL, after=None, until=None, columns=[])["event_time"].to_pylist()
    return found


def test_rows_go_by_the_age_that_their_table_s_policy_says(tmp_path: Path, database: Database) -> None:
    lake = Lake(tmp_path / "lake")
    fill(lake, 48 * 20)
    register(database, predictions="10d", labels="15d")
    keeping = Keeping(database)
    assert keeping.forget(lake, MODEL) == {"predictions": 48 * 10 - 1, "labels": 48 * 5 - 1}
    last = moment(48 * 20 - 1)
    assert times(lake)[0] == last - timedelta(days=10)
    assert min(lake.labels_known(MODEL)["observed_at"].to_pylist()) == last - timedelta(days=15)
    assert lake.watermark(MODEL) == last
    assert keeping.forget(lake, MODEL) == {"predictions": 0, "labels": 0}


def test_the_border_moves_in_strides_and_never_into_the_policy_s_span(tmp_path: Path, database: Database) -> None:
    lake = Lake(tmp_path / "lake")
    register(database, predictions="10d", labels="all")
    keeping = Keeping(database)
    writes = 0
    for first in range(0, 48 * 20, 6):
        lake.append_predictions(MODEL, predictions_table([prediction_batch(6, first=first)]), transactions={"s": first})
        writes += keeping.forget(lake, MODEL)["predictions"] > 0
        found, last = times(lake), moment(first + 5)
        assert found[0] <= max(moment(0), last - timedelta(days=10)) + timedelta(minutes=30)
        assert found[0] >= last - timedelta(days=10.75)
        assert len(found) == round((last - found[0]) / timedelta(minutes=30)) + 1
    assert writes <= 21


def test_without_a_word_from_the_database_everything_is_kept(tmp_path: Path, database: Database) -> None:
    lake = Lake(tmp_path / "lake")
    fill(lake, 48 * 4)
    now = [0.0]
    nowhere = Keeping(Database(f"sqlite:///{tmp_path / 'nowhere' / 'retrue.db'}"), monotonic=lambda: now[0])
    assert nowhere.forget(lake, MODEL) == {}
    register(database, predictions="1d")
    keeping = Keeping(database, monotonic=lambda: now[0])
    assert keeping.forget(lake, MODEL)["predictions"] > 0
    database.close()
    (tmp_path / "retrue.db").rename(tmp_path / "moved.db")
    (tmp_path / "retrue.db").mkdir()
    now[0] += 3600
    lake.append_predictions(MODEL, predictions_table([prediction_batch(48, first=480)]), transactions={})
    assert keeping.forget(lake, MODEL)["predictions"] > 0  # what it said last


def test_a_policy_that_can_not_be_read_forgets_nothing(tmp_path: Path, database: Database) -> None:
    lake = Lake(tmp_path / "lake")
    fill(lake, 48 * 4)
    register(database, predictions="a while")
    assert Keeping(database).forget(lake, MODEL) == {}


def test_maintenance_and_retention_beside_a_committer_lose_no_row_inside_the_policy(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    broom = context.Process(target=_maintain, args=(tmp_path, there))
    lake = Lake(tmp_path / "lake", history=IN_FLIGHT)
    ledger: dict[str, datetime] = {}
    lake.append_predictions(MODEL, predictions_table([prediction_batch(1, first=-100)]), transactions={"s": 0})
    broom.start()
    there.close()
    try:
        assert here.poll(60)
        for number in range(60):
            batch = prediction_batch(24, first=24 * number)
            _commit(lake, batch, number + 1)
            ids = [text.decode() for text in id_texts(batch.ids)]
            ledger |= zip(ids, predictions_table([batch])["event_time"].to_pylist(), strict=True)
        rounds = here.recv()
        deadline = time.monotonic() + 60
        while here.recv() < rounds + 3:
            assert time.monotonic() < deadline
    finally:
        broom.kill()
        broom.join(30)
    table = Lake(tmp_path / "lake").read_window(MODEL, after=None, until=None, columns=[])
    found = dict(zip(table["id"].to_pylist(), table["event_time"].to_pylist(), strict=True))
    assert len(found) == table.num_rows
    border = max(ledger.values()) - timedelta(days=5)
    inside = {name: at for name, at in ledger.items() if at >= border}
    assert {name: at for name, at in found.items() if at >= border} == inside
    assert len(found) < len(ledger)
    assert lake.committed(MODEL, "predictions", "s") == {"s": 60}


def _commit(lake: Lake, batch: PredictionBatch, number: int) -> None:
    """Append as the committer does: what met another's delete is tried again, unless it is in after all."""
    deadline = time.monotonic() + 30
    while lake.committed(MODEL, "predictions", "s")["s"] != number:
        assert time.monotonic() < deadline
        with contextlib.suppress(LakeUnavailable):
            lake.append_predictions(MODEL, predictions_table([batch]), transactions={"s": number})


def _maintain(root: Path, told: "Connection[Any, Any]") -> None:
    delta._SMALL_FILES = 2
    lake, removed = Lake(root / "lake"), 0
    while True:
        with contextlib.suppress(LakeUnavailable):
            watermark = lake.watermark(MODEL)
            assert watermark is not None
            lake.forget(MODEL, "predictions", before=watermark - timedelta(days=5))
            removed += lake.maintain(MODEL)["predictions"]["removed"]
        told.send(removed)


def test_a_reader_goes_on_while_its_files_are_merged_and_forgotten(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    fill(lake, 48 * 12)
    view = Lake(tmp_path / "lake")._folder("predictions", MODEL).view()
    assert view is not None
    before = sorted(view.read(view.files, columns=["id"])["id"].to_pylist())
    assert lake.maintain(MODEL)["predictions"]["merged"] == 12
    assert lake.forget(MODEL, "predictions", before=moment(48 * 6)) == 48 * 6
    for _ in range(3):
        lake.maintain(MODEL)
    assert sorted(view.read(view.files, columns=["id"])["id"].to_pylist()) == before
    table = DeltaTable(f"{lake.root}/predictions/{MODEL}")
    kept_s = int(HISTORY.total_seconds())
    assert table.metadata().configuration["delta.deletedFileRetentionDuration"] == f"interval {kept_s} seconds"
    assert timedelta(minutes=5) < HISTORY  # a check's deadline is three minutes, and reading is its beginning


def test_a_reader_whose_files_are_gone_at_last_is_told_so(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake", history=timedelta(0))
    fill(lake, 48 * 12)
    view = Lake(tmp_path / "lake")._folder("predictions", MODEL).view()
    assert view is not None
    lake.maintain(MODEL)
    lake.maintain(MODEL)
    with pytest.raises(LakeUnavailable):
        view.read(view.files)
    assert len(times(lake)) == 48 * 12


def test_what_versions_are_compared_with_survives_retention_and_training_goes_on(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake", history=timedelta(0))
    fill(lake, 48 * 12)
    reference = lake.keep(MODEL, lake.read_window(MODEL, after=None, until=moment(47), columns=["x_price", "output"]))
    lake.forget(MODEL, "predictions", before=moment(48 * 6))
    lake.forget(MODEL, "labels", before=moment(48 * 3))
    for _ in range(2):
        lake.maintain(MODEL)
    fresh = Lake(tmp_path / "lake")
    assert fresh.read_snapshot(reference.to_json()).num_rows == 48
    rows, snapshot = fresh.training_rows(MODEL, _schema(), after=None, until=None, observed_until=None)
    assert rows.num_rows == 48 * 6
    assert fresh.read_snapshot(snapshot.to_json()).equals(rows)


def _schema() -> Any:
    from tests.integration.storage.test_lake import SCHEMA

    return SCHEMA


def test_labels_that_come_before_their_prediction_is_committed_wait_for_it(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    batch = prediction_batch(10)
    ids = [text.decode() for text in id_texts(batch.ids)]
    stranger = "018f0000-0000-7000-8000-000000000000"
    early = label_batch([*ids[:4], stranger], ["UP"] * 5, observed_at_us=(START_US + np.arange(5)).tolist())
    lake.append_labels(MODEL, labels_table([early]), transactions={"s": 1})
    assert lake.labels_of(MODEL, predictions_table([batch])["id"]).num_rows == 4
    assert lake.find_prediction(MODEL, ids[0]) is None
    lake.append_predictions(MODEL, predictions_table([batch]), transactions={"s": 2})
    rows, _ = lake.training_rows(MODEL, _schema(), after=None, until=None, observed_until=None)
    assert rows["id"].to_pylist() == ids[:4]
    found = lake.find_prediction(MODEL, ids[3])
    assert found is not None
    assert found["label"]["label"] == "UP"
    assert stranger in lake.labels_known(MODEL)["id"].to_pylist()  # parked: its prediction may come yet
