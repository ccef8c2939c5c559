"""Compiled versions in a worker: served where they are proved, and where they are not the original serves."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from service.domain.errors import ArtifactInvalid
from service.learning import graph
from service.learning.compiled import compile_
from service.learning.predictor import Predictor
from service.serving.bundle import load
from service.serving.compiled import load_compiled
from service.storage.artifacts import ArtifactStore
from service.storage.versions import VersionRow
from tests.served import PRICE, pack, price

ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def row_of(store: ArtifactStore, *, seed: int = 0, graph_of: int = 0) -> VersionRow:
    """Store a version with a graph: its own, or that of another one."""
    row = pack(store, PRICE, price(seed))
    content = compile_(Predictor(estimator=price(graph_of), schema=PRICE, output_mode="predict"))
    return replace(row, manifest={**row.manifest, "compiled": {"artifact": store.put(content)}})


def graph_path(store: ArtifactStore, row: VersionRow) -> Path:
    sha256: str = row.manifest["compiled"]["artifact"]
    return store.root / sha256


def test_a_version_that_was_compiled_is_answered_by_its_graph_as_by_the_original(store: ArtifactStore) -> None:
    row = row_of(store)
    bundle = load(store, row, generation=1)
    assert (bundle.engine, bundle.fallback) == ("onnx", None)
    plain = load(store, replace(row, manifest={**row.manifest, "compiled": {"refused": "x"}}), generation=1)
    assert (plain.engine, plain.fallback) == ("scikit-learn", None)
    np.testing.assert_allclose(bundle.answer(bundle.golden).outputs, plain.answer(plain.golden).outputs, rtol=1e-9)


def test_a_compiled_version_needs_no_scikit_learn_of_its_own_release(store: ArtifactStore) -> None:
    row = row_of(store)
    row = replace(row, manifest={**row.manifest, "libraries": {"scikit-learn": "0.1"}})
    assert load(store, row, generation=1).engine == "onnx"
    graph_path(store, row).unlink()
    with pytest.raises(ArtifactInvalid) as caught:
        load(store, row, generation=1)
    assert caught.value.facts["reason"] == "libraries"


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [alter, Path.unlink])
def test_a_graph_that_is_altered_or_missing_leaves_the_original_to_serve(
    store: ArtifactStore, harm: Callable[[Path], None]
) -> None:
    row = row_of(store)
    harm(graph_path(store, row))
    bundle = load(store, row, generation=1)
    assert bundle.engine == "scikit-learn"
    assert "artifact" in (bundle.fallback or "")


def test_a_graph_that_answers_the_golden_rows_otherwise_leaves_the_original_to_serve(store: ArtifactStore) -> None:
    bundle = load(store, row_of(store, graph_of=1), generation=1)
    assert bundle.engine == "scikit-learn"
    assert "golden rows" in (bundle.fallback or "")
    assert bundle.answer(bundle.golden).outputs.tolist() == price(0).predict(bundle.golden.numeric).tolist()


def test_bytes_that_are_no_graph_leave_the_original_to_serve(store: ArtifactStore) -> None:
    row = row_of(store)
    row = replace(row, manifest={**row.manifest, "compiled": {"artifact": store.put(b"nonsense")}})
    bundle = load(store, row, generation=1)
    assert bundle.engine == "scikit-learn"
    assert "does not take its graph" in (bundle.fallback or "")


def test_without_onnx_runtime_the_original_serves(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_of(store)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    bundle = load(store, row, generation=1)
    assert bundle.engine == "scikit-learn"
    assert "not installed" in (bundle.fallback or "")


def test_a_graph_of_another_width_is_refused(store: ArtifactStore) -> None:
    row = row_of(store)
    schema = {**row.manifest["schema"], "features": row.manifest["schema"]["features"][:7]}
    with pytest.raises(ArtifactInvalid) as caught:
        load_compiled(store, replace(row, manifest={**row.manifest, "schema": schema}))
    assert caught.value.facts["reason"] == "compiled"


def test_a_block_of_any_size_gets_the_same_answers(monkeypatch: pytest.MonkeyPatch, store: ArtifactStore) -> None:
    monkeypatch.setattr(graph, "MOST_ROWS", 3)
    bundle = load(store, row_of(store), generation=1)
    one_by_one = [bundle.estimator.predict(bundle.golden.numeric[at : at + 1])[0] for at in range(len(bundle.golden))]
    np.testing.assert_allclose(bundle.answer(bundle.golden).outputs, one_by_one, rtol=1e-12)


LOADS = """
import sys
from pathlib import Path
import msgspec
from service.serving.bundle import load
from service.storage.artifacts import ArtifactStore
from service.storage.versions import VersionRow
row = msgspec.convert(msgspec.json.decode(sys.stdin.buffer.read()), VersionRow)
bundle = load(ArtifactStore(Path(sys.argv[1])), row, generation=1)
bundle.answer(bundle.golden)
foreign = {"sklearn", "pandas", "scipy", "joblib", "onnx", "skl2onnx", "deltalake", "evidently"} & set(sys.modules)
print(bundle.engine, sorted(foreign))
"""


def test_a_worker_that_serves_a_compiled_version_imports_no_scikit_learn(store: ArtifactStore) -> None:
    told = msgspec.json.encode(row_of(store))
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(store.root)],
        input=told,
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.decode().strip() == "onnx []"
