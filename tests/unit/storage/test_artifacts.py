"""Artifacts are what their digest says, or they are refused."""

import hashlib
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


def test_putting_the_same_twice_changes_nothing(store: ArtifactStore) -> None:
    digest = store.put(b"a model")
    before = store.path(digest).stat()
    assert store.put(b"a model") == digest
    assert store.path(digest).stat().st_mtime_ns == before.st_mtime_ns


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
