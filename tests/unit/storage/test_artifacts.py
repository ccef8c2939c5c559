"""Artifacts are what their digest says, or they are refused."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.domain.errors import ArtifactInvalid
from service.storage.artifacts import ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def test_what_is_put_is_read_back_under_its_sha256(store: ArtifactStore) -> None:
    digest = store.put(b"a model")
    assert digest == hashlib.sha256(b"a model").hexdigest()
    assert store.read(digest) == b"a model"
    assert store.exists(digest)
    assert store.list() == [digest]


def test_putting_the_same_twice_keeps_the_file_and_makes_it_young_again(store: ArtifactStore) -> None:
    digest = store.put(b"a model")
    os.utime(store.root / digest, (1.0, 1.0))
    before = store.path(digest).stat()
    assert store.put(b"a model") == digest
    after = store.path(digest).stat()
    assert after.st_ino == before.st_ino
    assert before.st_mtime == 1.0
    assert store.dated()[digest] == after.st_mtime > time.time() - 60


def test_a_file_can_be_put(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "model.joblib"
    source.write_bytes(b"a model")
    assert store.read(store.put(source)) == b"a model"


def test_an_altered_artifact_is_refused_and_mended_by_putting_it_again(store: ArtifactStore) -> None:
    digest = store.put(b"a model")
    path = store.root / digest
    path.chmod(0o644)
    path.write_bytes(b"a modem")
    with pytest.raises(ArtifactInvalid, match="altered"):
        store.path(digest)
    assert store.put(b"a model") == digest
    assert store.read(digest) == b"a model"


def test_a_truncated_artifact_is_refused(store: ArtifactStore) -> None:
    digest = store.put(b"a model")
    path = store.root / digest
    path.chmod(0o644)
    path.write_bytes(b"a mod")
    with pytest.raises(ArtifactInvalid, match="altered"):
        store.read(digest)


def test_a_missing_artifact_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactInvalid, match="missing"):
        store.read("0" * 64)
    assert not store.exists("0" * 64)


@pytest.mark.parametrize("name", ["../retrue.db", "", "A" * 64, "0" * 63])
def test_only_a_sha256_names_an_artifact(store: ArtifactStore, name: str) -> None:
    with pytest.raises(ArtifactInvalid, match="not a sha256"):
        store.read(name)
    assert not store.exists(name)


def test_an_unfinished_write_is_no_artifact(store: ArtifactStore) -> None:
    digest = store.put(b"a model")
    (store.root / ".put-half").write_bytes(b"a mo")
    assert store.list() == [digest]


def test_a_deleted_artifact_is_gone(store: ArtifactStore) -> None:
    digest = store.put(b"a model")
    store.delete(digest)
    store.delete(digest)
    assert store.list() == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 0x04
    path.write_bytes(bytes(data))


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_a_dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (truncate, "altered"),
        (empty, "altered"),
        (flip_a_bit, "altered"),
        (Path.unlink, "missing"),
        (make_a_folder, "unreadable"),
        (make_a_dead_link, "missing"),
    ],
)
def test_a_broken_artifact_is_refused_with_its_reason(
    store: ArtifactStore, break_it: Callable[[Path], object], reason: str
) -> None:
    digest = store.put(b"a model")
    path = store.root / digest
    path.chmod(0o644)
    break_it(path)
    for refused in (store.read, store.path):
        with pytest.raises(ArtifactInvalid) as caught:
            refused(digest)
        assert caught.value.facts["reason"] == reason


def test_an_artifact_that_may_not_be_read_is_refused_with_its_reason(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = store.put(b"a model")

    def forbidden(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)  # root may read anything, so a mode would prove nothing
    with pytest.raises(ArtifactInvalid, match="Permission denied") as caught:
        store.read(digest)
    assert caught.value.facts["reason"] == "unreadable"


def test_an_artifact_has_its_name_only_when_its_content_is_on_the_disk(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        order.append("sync")
        real_sync(handle)

    def replace(path: Path, target: Path) -> Path:
        order.append("rename")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    store.put(b"a model")
    assert order == ["sync", "rename", "sync"]  # the content, then the name, then the folder that holds the name


def test_what_writers_left_unfinished_goes_when_it_is_old(store: ArtifactStore) -> None:
    digest = store.put(b"a model")
    for name, age in ((".put-old", 7200), (".put-new", 60)):
        (store.root / name).write_bytes(b"half")
        os.utime(store.root / name, (time.time() - age,) * 2)
    assert store.forget_unfinished(time.time() - 3600) == 1
    assert sorted(path.name for path in store.root.iterdir()) == sorted([".put-new", digest])
