"""Loading: nothing serves that was not proved in this very process."""

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.domain.errors import ArtifactInvalid
from service.serving.batcher import Batcher
from service.serving.block import Block
from service.serving.bundle import load
from service.serving.decode import Decoder
from service.serving.limits import Limits
from service.serving.recorder import Recorder
from service.storage.artifacts import ArtifactStore
from service.storage.versions import VersionRow
from service.telemetry import Telemetry
from tests.estimators import Costs
from tests.served import FLIP, PRICE, flip, pack, price, spool


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def refused(store: ArtifactStore, row: VersionRow) -> Any:
    with pytest.raises(ArtifactInvalid) as caught:
        load(store, row, generation=1)
    return caught.value.facts["reason"]


def changed(row: VersionRow, **manifest: Any) -> VersionRow:
    return replace(row, manifest={**row.manifest, **manifest})


def test_a_loaded_bundle_answers_as_the_estimator_that_was_packed(store: ArtifactStore) -> None:
    for schema, estimator in ((FLIP, flip()), (PRICE, price())):
        bundle = load(store, pack(store, schema, estimator), generation=3)
        found = bundle.answer(bundle.golden)
        assert found.outputs.tolist() == estimator.predict(bundle.golden.numeric).tolist()
        assert bundle.generation == 3
        assert bundle.cost.of(1) > 0


def test_a_load_measures_what_a_call_and_a_row_cost(store: ArtifactStore) -> None:
    row = pack(store, PRICE, Costs(fixed_s=0.003, row_s=0.0001))
    cost = load(store, row, generation=1, clock=Costs.clock).cost
    assert cost.of(1) == pytest.approx(0.0031)
    assert cost.of(1000) == pytest.approx(0.103)


@pytest.mark.parametrize(
    ("fixed_s", "row_s", "rows", "in_loop"),
    [
        (0.0002, 0.000001, 1, True),  # a linear model
        (0.0002, 0.000001, 4000, False),  # the same, on many rows
        (0.0034, 0.00002, 1, False),  # a forest
    ],
)
def test_the_cost_that_was_measured_says_who_answers_in_the_event_loop(
    store: ArtifactStore, tmp_path: Path, fixed_s: float, row_s: float, rows: int, in_loop: bool
) -> None:
    bundle = load(store, pack(store, PRICE, Costs(fixed_s, row_s)), generation=1, clock=Costs.clock)
    threads: list[str] = []

    class Watched:
        def predict(self, X: Any) -> Any:
            threads.append(threading.current_thread().name)
            return np.zeros(len(X))

    recorder = Recorder(spool(tmp_path / "spool"), clock_us=lambda: 1)

    async def ask() -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="predict") as pool:
            telemetry = Telemetry(CollectorRegistry())
            batcher = Batcher("price", recorder=recorder, executor=pool, limits=Limits(), telemetry=telemetry)
            await batcher.submit(replace(bundle, estimator=Watched()), Block(np.zeros((rows, 8)), {}))

    asyncio.run(ask())
    recorder.close()
    assert [name.startswith("predict") for name in threads] == [not in_loop]


def test_the_same_version_under_another_generation_says_so(store: ArtifactStore) -> None:
    bundle = load(store, pack(store, PRICE, price()), generation=1)
    assert b'"generation":2' in bundle.under(2).head
    assert b'"generation":1' in bundle.head


def test_an_altered_artifact_is_refused(store: ArtifactStore) -> None:
    row = pack(store, FLIP, flip())
    path = store.root / row.artifact
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    assert refused(store, row) == "altered"
    path.unlink()
    assert refused(store, row) == "missing"


def test_bytes_that_are_no_estimator_are_refused(store: ArtifactStore) -> None:
    row = pack(store, FLIP, flip())
    assert refused(store, replace(row, artifact=store.put(b"nonsense"))) == "unpickle"


def test_another_release_of_scikit_learn_is_refused(store: ArtifactStore) -> None:
    row = pack(store, FLIP, flip())
    assert refused(store, changed(row, libraries={"scikit-learn": "0.1"})) == "libraries"


def test_an_estimator_that_warns_of_its_release_is_refused(store: ArtifactStore) -> None:
    row = pack(store, FLIP, flip())
    estimator = flip()
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    here = row.manifest["libraries"]["scikit-learn"].encode()
    there = here[:-1] + (b"0" if here[-1:] != b"0" else b"9")
    content = buffer.getvalue().replace(here, there)
    assert refused(store, replace(row, artifact=store.put(content))) == "unpickle"


def test_golden_rows_that_are_answered_otherwise_are_refused(store: ArtifactStore) -> None:
    row, other = pack(store, FLIP, flip(0)), pack(store, FLIP, flip(1))
    assert refused(store, replace(row, artifact=other.artifact)) == "golden"


def test_a_manifest_with_another_feature_list_is_refused(store: ArtifactStore) -> None:
    row = pack(store, PRICE, price())
    schema = {**row.manifest["schema"], "features": row.manifest["schema"]["features"][:7]}
    assert refused(store, changed(row, schema=schema)) == "features"


@pytest.mark.parametrize("broken", [{"format": 2}, {"golden": {"rows": []}}, {"output": "?"}, {"schema": {}}])
def test_a_manifest_that_is_incomplete_is_refused(store: ArtifactStore, broken: dict[str, Any]) -> None:
    assert refused(store, changed(pack(store, FLIP, flip()), **broken)) in {"format", "manifest"}


def test_golden_rows_beyond_a_refusing_features_bounds_still_prove_the_load(store: ArtifactStore) -> None:
    row = pack(store, FLIP, flip())
    golden = dict(row.manifest["golden"])
    bundle = load(store, row, generation=1)
    rows = [{**one, "n": 5.0} for one in golden["rows"]]
    block = Decoder(FLIP).decode(body_of(rows), max_rows=100, is_strict=False)
    found = bundle.answer(block)
    assert found.probabilities is not None
    golden |= {"rows": rows, "outputs": found.outputs.tolist(), "probabilities": found.probabilities.tolist()}
    assert load(store, changed(row, golden=golden), generation=1).golden.numeric[0, 2] == np.float64(5.0)


def body_of(rows: list[dict[str, Any]]) -> bytes:
    import json

    return json.dumps({"instances": rows}).encode()
