"""A disk that is really full: what can't be written is refused, nothing is torn, and all of it recovers by itself."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.domain.errors import DatabaseUnavailable, LakeUnavailable, NotRecorded
from service.storage import models
from service.storage.artifacts import ArtifactStore
from service.storage.committer import Committer
from service.storage.database import Database
from service.storage.ids import id_texts
from service.storage.lake import Lake
from service.storage.rows import predictions_table
from service.storage.spool import SpoolWriter, spool_bytes
from tests.batches import label_batch, prediction_batch
from tests.disks import SmallDisk, small_disk

MODEL = "electricity"
AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def a_writer(root: Path, *, sync: bool = False) -> SpoolWriter:
    return SpoolWriter(root, max_bytes=200_000, max_age_s=60, cap_bytes=1 << 30, sync=sync)


def answer(writer: SpoolWriter, number: int, answered: list[str]) -> None:
    """Append a batch, and note its ids only if it was acknowledged."""
    batch = prediction_batch(50, first=50 * number)
    writer.append_predictions(batch)
    answered += [text.decode() for text in id_texts(batch.ids)]


def in_lake(lake: Lake) -> Counter[str]:
    return Counter(lake.read_window(MODEL, after=None, until=None, columns=["id"])["id"].to_pylist())


def register_many(database: Database) -> None:
    with database.write() as conn:
        for number in range(200):
            models.register(conn, f"m{number}", spec_json={"x": "y" * 4000}, file="m.py", at=AT)


@pytest.mark.parametrize("sync", [False, True])
def test_a_full_disk_refuses_what_it_can_not_hold_and_recovers(disk: SmallDisk, tmp_path: Path, sync: bool) -> None:
    answered: list[str] = []
    refused = 0
    writer = a_writer(disk.root / "spool", sync=sync)
    answer(writer, 0, answered)
    disk.fill(but=30_000)
    for number in range(1, 30):
        try:
            answer(writer, number, answered)
        except NotRecorded:
            refused += 1
    assert refused
    with pytest.raises(NotRecorded, match=r"No space left|only a part"):
        answer(writer, 30, answered)
    with pytest.raises(NotRecorded):
        writer.append_labels(label_batch(answered, ["UP"] * len(answered)))
    disk.free()
    for number in range(31, 40):
        answer(writer, number, answered)
    writer.append_labels(label_batch(answered, ["UP"] * len(answered)))
    writer.close()
    lake = Lake(tmp_path / "lake")
    report = Committer(disk.root / "spool", lake).run_once()
    assert (report.damaged, report.left, report.torn_bytes) == (0, 0, 0)
    assert in_lake(lake) == Counter(answered)
    assert sorted(lake.labels_known(MODEL)["id"].to_pylist()) == sorted(answered)


def test_a_worker_that_starts_on_a_full_disk_refuses_until_there_is_room(disk: SmallDisk) -> None:
    disk.fill()
    writer = a_writer(disk.root / "spool")
    with pytest.raises(NotRecorded):
        writer.append_predictions(prediction_batch())
    disk.free()
    writer.append_predictions(prediction_batch())
    writer.close()
    lake = Lake(disk.root / "lake")
    assert Committer(disk.root / "spool", lake).run_once().predictions == 3


def test_a_segment_that_can_not_be_closed_grows_on(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[str] = []
    writer = SpoolWriter(disk.root / "spool", max_bytes=1, max_age_s=60, cap_bytes=1 << 30, sync=False)
    real = Path.rename

    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    for number in range(6):
        monkeypatch.setattr(Path, "rename", full if number % 2 else real)
        answer(writer, number, answered)
        Committer(disk.root / "spool", Lake(disk.root / "lake")).run_once()
    monkeypatch.setattr(Path, "rename", real)
    writer.close()
    Committer(disk.root / "spool", Lake(disk.root / "lake")).run_once()
    assert in_lake(Lake(disk.root / "lake")) == Counter(answered)


def test_a_committer_on_a_full_disk_deletes_nothing_shows_nothing_by_half_and_recovers(disk: SmallDisk) -> None:
    answered: list[str] = []
    lake, clock = Lake(disk.root / "lake"), [0.0]
    with a_writer(disk.root / "spool") as writer:
        answer(writer, 0, answered)
    committer = Committer(disk.root / "spool", lake, monotonic=lambda: clock[0])
    assert committer.run_once().left == 0
    for number in range(1, 4):
        with a_writer(disk.root / "spool") as writer:
            answer(writer, number, answered)
            writer.append_labels(label_batch(answered[-50:], ["UP"] * 50))
        waiting = spool_bytes(disk.root / "spool")
        disk.fill()
        for _ in range(3):
            clock[0] += 60
            report = committer.run_once()
            assert report.errors
            assert (report.commits, report.segments, report.damaged) == (0, 0, 0)
        assert spool_bytes(disk.root / "spool") == waiting
        assert in_lake(Lake(disk.root / "lake")) == Counter(answered[:-50])
        with suppress(LakeUnavailable):
            lake.maintain(MODEL)
        disk.free()
        clock[0] += 60
        report = committer.run_once()
        assert (report.left, report.errors) == (0, [])
        assert in_lake(Lake(disk.root / "lake")) == Counter(answered)
        lake.maintain(MODEL)
    assert in_lake(lake) == Counter(answered)
    assert sorted(lake.labels_known(MODEL)["id"].to_pylist()) == sorted(answered[50:])


def test_room_that_runs_out_half_way_through_a_commit_repeats_nothing(disk: SmallDisk) -> None:
    lake, clock = Lake(disk.root / "lake"), [0.0]
    answered: list[str] = []
    committer = Committer(disk.root / "spool", lake, monotonic=lambda: clock[0])
    for number, room in enumerate(range(0, 60_000, 6_000)):
        with a_writer(disk.root / "spool") as writer:
            answer(writer, number, answered)
        disk.fill(but=room)
        committer.run_once()
        disk.free()
        clock[0] += 60
        assert committer.run_once().left == 0
        assert in_lake(lake) == in_lake(Lake(disk.root / "lake")) == Counter(answered)


def test_maintenance_on_a_full_disk_frees_what_it_can_and_loses_nothing(disk: SmallDisk) -> None:
    lake = Lake(disk.root / "lake", history=timedelta(0))
    for first in range(0, 200, 20):
        lake.append_predictions(MODEL, predictions_table([prediction_batch(20, first=first)]), transactions={})
    before = in_lake(lake)
    disk.fill(but=10_000)
    for _ in range(3):
        try:
            lake.maintain(MODEL)
        except LakeUnavailable:
            continue
    assert in_lake(Lake(disk.root / "lake")) == before
    disk.free()
    lake.maintain(MODEL)
    assert in_lake(Lake(disk.root / "lake")) == before


def test_an_artifact_that_does_not_fit_leaves_nothing_behind(disk: SmallDisk) -> None:
    store = ArtifactStore(disk.root / "artifacts")
    first = store.put(b"small")
    disk.fill(but=50_000)
    with pytest.raises(OSError, match="No space left"):
        store.put(bytes(1_000_000))
    assert [path.name for path in store.root.iterdir()] == [first]
    disk.free()
    assert len(store.read(store.put(bytes(1_000_000)))) == 1_000_000


def test_a_database_on_a_full_disk_is_away_and_comes_back(disk: SmallDisk) -> None:
    database = Database(f"sqlite:///{disk.root / 'retrue.db'}")
    database.migrate()
    with database.write() as conn:
        models.register(conn, "first", spec_json={}, file="first.py", at=AT)
    disk.fill()
    with pytest.raises(DatabaseUnavailable):
        register_many(database)
    with database.read() as conn:
        assert [row.name for row in models.list_all(conn)] == ["first"]
    disk.free()
    with database.write() as conn:
        models.register(conn, "second", spec_json={}, file="second.py", at=AT)
    database.close()
