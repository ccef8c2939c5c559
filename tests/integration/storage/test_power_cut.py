"""A power cut takes what was not forced to the disk: that is never the only copy of a row."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.storage import durable
from service.storage.committer import Committer
from service.storage.ids import id_texts
from service.storage.lake import Lake
from service.storage.spool import SpoolWriter
from tests.batches import label_batch, prediction_batch

MODEL = "electricity"


def answer(root: Path, batches: int = 1) -> list[str]:
    ids: list[str] = []
    with SpoolWriter(root / "spool", max_bytes=1, max_age_s=60, cap_bytes=1 << 30, sync=True) as writer:
        for number in range(batches):
            batch = prediction_batch(3, first=3 * number)
            writer.append_predictions(batch)
            ids += [text.decode() for text in id_texts(batch.ids)]
            writer.append_labels(label_batch(ids[-3:], ["UP"] * 3))
    return ids


def in_lake(root: Path) -> Counter[str]:
    return Counter(Lake(root / "lake").read_window(MODEL, after=None, until=None, columns=[])["id"].to_pylist())


def newest(log: Path, pattern: str) -> Path:
    return max(log.glob(pattern))


def test_a_segment_goes_only_when_all_that_holds_its_rows_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    missing: list[set[Path]] = []
    real_sync, real_unlink = durable._sync, Path.unlink

    def sync(path: Path) -> None:
        real_sync(path)
        synced.add(path)

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        if path.suffix == ".ready":
            lake = tmp_path / "lake"
            files = {entry for entry in lake.rglob("*") if entry.suffix in {".json", ".parquet"} or entry.is_dir()}
            missing.append(files - synced)
        real_unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(durable, "_sync", sync)
    monkeypatch.setattr(Path, "unlink", unlink)
    for _ in range(25):  # far enough for a checkpoint
        answer(tmp_path)
        Committer(tmp_path / "spool", Lake(tmp_path / "lake")).run_once()
    assert len(missing) == 50
    assert not set().union(*missing)


def test_a_committer_that_dies_before_the_disk_had_its_commit_leaves_that_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = answer(tmp_path)

    def lost(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("service.storage.delta.sync_commit", lost)
        report = Committer(tmp_path / "spool", Lake(tmp_path / "lake")).run_once()
    assert report.errors
    assert (report.segments, report.left) == (0, 2)
    synced: list[int] = []
    monkeypatch.setattr("service.storage.delta.sync_commit", lambda _, version: synced.append(version))
    assert Committer(tmp_path / "spool", Lake(tmp_path / "lake")).run_once().left == 0
    assert synced
    assert in_lake(tmp_path) == Counter(ids)


def cut_entry(table: Path) -> None:
    os.truncate(newest(table / "_delta_log", "*.json"), 0)


def tear_entry(table: Path) -> None:
    entry = newest(table / "_delta_log", "*.json")
    os.truncate(entry, entry.stat().st_size - 30)


def zero_entry(table: Path) -> None:
    entry = newest(table / "_delta_log", "*.json")
    entry.write_bytes(bytes(entry.stat().st_size))


def cut_data(table: Path) -> None:
    for path in _data_of_newest(table):
        os.truncate(path, 0)


def lose_data(table: Path) -> None:
    for path in _data_of_newest(table):
        path.unlink()


def _data_of_newest(table: Path) -> list[Path]:
    lines = newest(table / "_delta_log", "*.json").read_text().splitlines()
    return [table / action["add"]["path"] for action in map(json.loads, lines) if "add" in action]


@pytest.mark.parametrize(
    ("before", "tear"),
    [(before, tear) for before in (0, 1) for tear in (cut_entry, tear_entry, zero_entry, cut_data, lose_data)]
    + [(22, cut_data)],  # with a checkpoint between
)
def test_a_commit_that_a_power_cut_tore_is_made_again_from_the_spool(
    tmp_path: Path, before: int, tear: Callable[[Path], None]
) -> None:
    ids: list[str] = []
    for _ in range(before):
        ids += answer(tmp_path)
        Committer(tmp_path / "spool", Lake(tmp_path / "lake")).run_once()
    ids += answer(tmp_path, 2)
    spool = tmp_path / "as it was"
    shutil.copytree(tmp_path / "spool", spool)
    Committer(tmp_path / "spool", Lake(tmp_path / "lake")).run_once()
    # The light goes out before the disk had the commit: so before its segments were deleted.
    shutil.rmtree(tmp_path / "spool")
    spool.rename(tmp_path / "spool")
    for kind in ("predictions", "labels"):
        tear(tmp_path / "lake" / kind / MODEL)
    report = Committer(tmp_path / "spool", Lake(tmp_path / "lake")).run_once()
    assert len(report.mended) >= 2
    assert (report.left, report.damaged, report.errors) == (0, 0, [])
    assert in_lake(tmp_path) == Counter(ids)
    assert sorted(Lake(tmp_path / "lake").labels_known(MODEL)["id"].to_pylist()) == sorted(ids)
    assert Committer(tmp_path / "spool", Lake(tmp_path / "lake")).run_once().mended == []


@pytest.mark.parametrize("torn", ["*.checkpoint.parquet", "_last_checkpoint"])
def test_a_checkpoint_that_a_power_cut_tore_is_done_without(tmp_path: Path, torn: str) -> None:
    ids: list[str] = []
    lake = Lake(tmp_path / "lake")
    for _ in range(12):
        ids += answer(tmp_path)
        Committer(tmp_path / "spool", lake).run_once()
    lake.maintain(MODEL)
    for kind in ("predictions", "labels"):
        os.truncate(newest(tmp_path / "lake" / kind / MODEL / "_delta_log", torn), 10)
    ids += answer(tmp_path)
    report = Committer(tmp_path / "spool", Lake(tmp_path / "lake")).run_once()
    assert len(report.mended) >= 2
    assert report.left == 0
    assert in_lake(tmp_path) == Counter(ids)
    assert Lake(tmp_path / "lake").committed(MODEL, "labels", "nobody") == {"nobody": None}


def test_a_whole_log_is_left_as_it_is(tmp_path: Path) -> None:
    answer(tmp_path)
    Committer(tmp_path / "spool", Lake(tmp_path / "lake")).run_once()
    before = sorted(path.name for path in (tmp_path / "lake").rglob("*"))
    assert Lake(tmp_path / "lake").mend(MODEL, "predictions") == []
    assert Lake(tmp_path / "lake").mend("nobody", "predictions") == []
    assert sorted(path.name for path in (tmp_path / "lake").rglob("*")) == before


def test_what_a_killed_writer_left_half_written_goes_when_it_is_old(tmp_path: Path) -> None:
    answer(tmp_path)
    lake = Lake(tmp_path / "lake")
    Committer(tmp_path / "spool", lake).run_once()
    table = tmp_path / "lake" / "predictions" / MODEL
    for name, age in (("part-1.parquet#1", 7200), ("part-2.parquet#1", 10)):
        (table / name).write_bytes(b"half")
        stamp = (table / name).stat().st_mtime - age
        os.utime(table / name, (stamp, stamp))
    lake.maintain(MODEL)
    assert [path.name for path in table.glob("*#*")] == ["part-2.parquet#1"]


def test_with_sync_a_record_and_the_name_of_its_file_are_on_the_disk_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fsync", "fdatasync", "writev"):
        monkeypatch.setattr(os, name, _noted(calls, name, getattr(os, name)))
    with SpoolWriter(tmp_path, max_bytes=1 << 20, max_age_s=60, cap_bytes=1 << 30, sync=True) as writer:
        assert calls == ["fsync"]  # the stream's own name
        calls.clear()
        for _ in range(2):
            writer.append_predictions(prediction_batch())
        assert calls == ["fsync", "writev", "fdatasync", "writev", "fdatasync"]


def _noted(calls: list[str], name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*given: Any) -> Any:
        calls.append(name)
        return real(*given)

    return noted
