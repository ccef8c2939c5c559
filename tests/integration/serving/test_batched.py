"""Batched answers are unbatched answers: for every kind of model, both engines, requests of any size and number."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from service.domain.spec import Feature, Schema
from service.learning.compiled import compile_
from service.learning.predictor import Predictor
from service.serving.batcher import Answered, Batcher
from service.serving.block import Block
from service.serving.bundle import Bundle, load
from service.serving.limits import Limits
from service.serving.recorder import Recorder
from service.storage.artifacts import ArtifactStore
from service.storage.ids import id_texts
from service.storage.spool import PredictionBatch, read_segment, segments_of, streams
from service.telemetry import Telemetry
from tests.served import pack, spool

NAMES = ("a", "b", "c", "d")
AT_US = 1_767_225_600_000_000
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=10, random_state=0),
    "forest": lambda: RandomForestClassifier(10, random_state=0),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "linear": lambda: make_pipeline(StandardScaler(), LinearRegression()),
    "boosting": lambda: HistGradientBoostingRegressor(max_iter=10, random_state=0),
    "forest": lambda: RandomForestRegressor(10, random_state=0),
}
CASES = [
    *((task, kind, engine) for task in ("words", "numbers") for kind in CLASSIFIERS for engine in ("onnx", "plain")),
    *(("value", kind, engine) for kind in REGRESSORS for engine in ("onnx", "plain")),
    ("words", "no probabilities", "plain"),
]


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Bundle]:
    store = ArtifactStore(tmp_path_factory.mktemp("artifacts"))

    @cache
    def made(task: str, kind: str, engine: str) -> Bundle:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(300, len(NAMES)))
        score = X @ np.array([1.0, -2.0, 0.5, 0.0]) + rng.normal(size=len(X)) / 4
        classes: dict[str, tuple[Any, ...]] = {"words": ("DOWN", "FLAT", "UP"), "numbers": (-3, 7), "value": ()}
        known = np.array(classes[task]) if classes[task] else None
        y = score if known is None else known[np.digitize(score, np.linspace(-1, 1, len(known))[1:])]
        makers: dict[str, Callable[[], Any]] = {
            **(CLASSIFIERS if classes[task] else REGRESSORS),
            "no probabilities": SVC,
        }
        estimator = makers[kind]().fit(X, y)
        schema = Schema(
            model=kind.partition(" ")[0],
            task="classification" if classes[task] else "regression",
            timestamp="at",
            features=tuple(Feature(name) for name in NAMES),
            label={"words": "string", "numbers": "integer", "value": "number"}[task],  # type: ignore[arg-type]
            classes=classes[task],
        )
        row = pack(store, schema, estimator)
        mode = "argmax" if classes[task] else "predict"
        manifest = row.manifest
        if engine == "onnx":
            graph = compile_(Predictor(estimator=estimator, schema=schema, output_mode=mode))  # type: ignore[arg-type]
            manifest = {**manifest, "compiled": {"artifact": store.put(graph)}}
        bundle = load(store, replace(row, manifest=manifest), generation=1)
        assert bundle.engine == ("onnx" if engine == "onnx" else "scikit-learn")
        return bundle

    return made


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


CALLS = st.lists(st.tuples(st.sampled_from([1, 1, 1, 2, 3, 17, 64, 100]), st.integers(0, 4)), min_size=1, max_size=12)


@pytest.mark.parametrize(("task", "kind", "engine"), CASES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=CALLS, seed=st.integers(0, 2**32 - 1), batch_rows=st.sampled_from([1, 8, 4096]), off_loop=st.booleans())
def test_each_caller_gets_what_its_rows_would_get_alone(
    bundle_of: Callable[[str, str, str], Bundle],
    threads: ThreadPoolExecutor,
    tmp_path_factory: pytest.TempPathFactory,
    task: str,
    kind: str,
    engine: str,
    calls: list[tuple[int, int]],
    seed: int,
    batch_rows: int,
    off_loop: bool,
) -> None:
    bundle = bundle_of(task, kind, engine)
    rng = np.random.default_rng(seed)
    blocks = [Block(rng.normal(scale=2.0, size=(rows, len(NAMES))), {}) for rows, _ in calls]
    folder = tmp_path_factory.mktemp("spool")
    recorder = Recorder(spool(folder), clock_us=lambda: AT_US)

    async def ask() -> list[Answered]:
        batcher = Batcher(
            bundle.model,
            recorder=recorder,
            executor=threads,
            limits=Limits(batch_rows=batch_rows),
            telemetry=Telemetry(CollectorRegistry()),
            always_off_loop=off_loop,
        )

        async def caller(block: Block, turns: int) -> Answered:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await batcher.submit(bundle, block)

        pairs = zip(blocks, calls, strict=True)
        return list(await asyncio.gather(*(caller(block, turns) for block, (_, turns) in pairs)))

    answered = asyncio.run(ask())
    recorder.close()
    written = _written(folder)
    for block, one in zip(blocks, answered, strict=True):
        alone = bundle.answer(block)
        _same(one, alone.outputs, alone.probabilities)
        # What is written under an id is the row and the answer that its caller got.
        for row, (prediction_id, output) in enumerate(zip(one.ids, one.outputs, strict=True)):
            features, recorded = written.pop(prediction_id)
            assert features == block.numeric[row].tolist()
            assert recorded == output
    assert written == {}


def _same(one: Answered, outputs: Any, probabilities: Any) -> None:
    assert [type(value) for value in one.outputs] == [type(value) for value in outputs.tolist()]
    if not one.bundle.classes:
        np.testing.assert_allclose(one.outputs, outputs, rtol=1e-9, atol=1e-12)
        return
    if probabilities is None:
        assert (one.probabilities, one.outputs) == (None, outputs.tolist())
        return
    # The last bit may depend on a row's place in its block: only a tie can turn on it.
    np.testing.assert_allclose(np.array(one.probabilities), probabilities, rtol=1e-9, atol=1e-12)
    best = np.sort(probabilities, axis=1)[:, -2:]
    is_clear = best[:, 1] - best[:, 0] > 1e-9
    assert [a for a, clear in zip(one.outputs, is_clear, strict=True) if clear] == outputs[is_clear].tolist()


def _written(folder: Path) -> dict[str, tuple[list[float], Any]]:
    batches = [
        record
        for stream in streams(folder)
        for segment in segments_of(stream, with_open=True)
        for record in read_segment(segment.path)
        if isinstance(record, PredictionBatch)
    ]
    return {
        prediction_id: (features, output)
        for batch in batches
        for prediction_id, features, output in zip(
            id_texts(batch.ids).astype("U36").tolist(),
            batch.numeric.tolist(),
            batch.output.tolist() if isinstance(batch.output, np.ndarray) else batch.output,
            strict=True,
        )
    }
