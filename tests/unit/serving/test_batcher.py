"""The batcher: batched answers are unbatched answers, and nothing is answered that was not recorded."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.domain.errors import Broken, InvalidRows, NotRecorded, Overloaded
from service.serving.batcher import Answered, Batcher
from service.serving.block import Block
from service.serving.bundle import Bundle, Cost, load
from service.serving.health import Health
from service.serving.limits import Limits
from service.serving.recorder import Recorder
from service.storage.artifacts import ArtifactStore
from service.storage.ids import id_texts
from service.storage.spool import PredictionBatch, read_segment, segments_of, streams
from service.telemetry import Telemetry
from tests.served import FLIP, flip, instance, pack, spool

NOW_US = 1_767_225_600_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    store = ArtifactStore(tmp_path_factory.mktemp("artifacts"))
    return load(store, pack(store, FLIP, flip()), generation=1)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    one = Recorder(spool(tmp_path / "spool"), clock_us=lambda: NOW_US)
    yield one
    one.close()


def batcher(
    recorder: Any, limits: Limits | None = None, *, off_loop: bool = False, health: Health | None = None
) -> Batcher:
    return Batcher(
        "flip",
        recorder=recorder,
        executor=ThreadPoolExecutor(1),
        limits=limits or Limits(),
        telemetry=Telemetry(CollectorRegistry()),
        health=health,
        always_off_loop=off_loop,
    )


def rows(bundle: Bundle, n: int, start: float = 0.0) -> Block:
    body = json.dumps({"instances": [instance(a=start + place / 7) for place in range(n)]}).encode()
    return bundle.decoder.decode(body, max_rows=10_000)


def recorded(folder: Path) -> list[PredictionBatch]:
    return [
        record
        for stream in streams(folder)
        for segment in segments_of(stream, with_open=True)
        for record in read_segment(segment.path)
        if isinstance(record, PredictionBatch)
    ]


@pytest.mark.parametrize("off_loop", [False, True])
def test_batched_answers_equal_unbatched_and_go_to_their_own_caller(
    bundle: Bundle, recorder: Recorder, tmp_path: Path, off_loop: bool
) -> None:
    blocks = [rows(bundle, n, start) for n, start in ((1, -2), (3, -1), (40, -3), (1, 2), (7, 0))]

    async def ask() -> list[Answered]:
        b = batcher(recorder, off_loop=off_loop)
        return list(await asyncio.gather(*(b.submit(bundle, block) for block in blocks)))

    answered = asyncio.run(ask())
    for block, one in zip(blocks, answered, strict=True):
        alone = bundle.answer(block)
        assert one.outputs == alone.outputs.tolist()
        assert alone.probabilities is not None
        np.testing.assert_allclose(np.array(one.probabilities), alone.probabilities, rtol=1e-9, atol=1e-12)
        assert len(set(one.ids)) == len(block)
    batches = recorded(tmp_path / "spool")
    assert len(batches) == 1  # all that waited together was one block, one predict, one append
    assert id_texts(batches[0].ids).astype(str).tolist() == [one for a in answered for one in a.ids]


def test_a_batch_never_mixes_bundles(bundle: Bundle, recorder: Recorder, tmp_path: Path) -> None:
    later = bundle.under(2)

    async def ask() -> list[Answered]:
        b = batcher(recorder)
        return list(await asyncio.gather(*(b.submit(one, rows(bundle, 2)) for one in (bundle, bundle, later, bundle))))

    assert [one.bundle.generation for one in asyncio.run(ask())] == [1, 1, 2, 1]
    assert [(batch.generation, len(batch)) for batch in recorded(tmp_path / "spool")] == [(1, 4), (2, 2), (1, 2)]


def test_more_than_may_wait_is_refused_and_the_rest_is_answered(bundle: Bundle, recorder: Recorder) -> None:
    async def ask() -> int:
        b = batcher(recorder, Limits(queue_rows=5))
        first = b.submit(bundle, rows(bundle, 4))
        with pytest.raises(Overloaded):
            _ = b.submit(bundle, rows(bundle, 2))
        second = b.submit(bundle, rows(bundle, 1))
        return len((await first).ids) + len((await second).ids)

    assert asyncio.run(ask()) == 5


def test_a_job_past_its_deadline_is_not_answered(bundle: Bundle, recorder: Recorder) -> None:
    async def ask() -> None:
        await batcher(recorder, Limits(deadline_s=-1.0)).submit(bundle, rows(bundle, 1))

    with pytest.raises(Overloaded):
        asyncio.run(ask())


def test_what_cannot_be_recorded_is_not_answered(bundle: Bundle, tmp_path: Path) -> None:
    full = Recorder(spool(tmp_path / "full", cap_bytes=10), clock_us=lambda: NOW_US)

    async def ask() -> list[Any]:
        b = batcher(full)
        futures = [b.submit(bundle, rows(bundle, 1)) for _ in range(3)]
        return list(await asyncio.gather(*futures, return_exceptions=True))

    assert [type(one) for one in asyncio.run(ask())] == [NotRecorded] * 3
    full.close()


class Picky:
    """An estimator that fails on one value."""

    def predict_proba(self, X: Any) -> Any:
        if (X[:, 0] == 13).any() or (X[:, 4] == 9).any():
            msg = "13"
            raise ValueError(msg)
        return np.tile([0.25, 0.75], (len(X), 1))


@pytest.mark.parametrize(("odd", "error"), [({"a": 13}, Broken), ({"zone": 9}, InvalidRows)])
def test_a_row_that_breaks_the_estimator_harms_only_its_own_caller(
    bundle: Bundle, recorder: Recorder, odd: dict[str, Any], error: type[Exception]
) -> None:
    picky = replace(bundle, estimator=Picky())
    bad = bundle.decoder.decode(json.dumps({"instances": [instance(**odd)]}).encode(), max_rows=1)

    async def ask() -> list[Any]:
        b = batcher(recorder)
        futures = [b.submit(picky, block) for block in (rows(bundle, 2), bad, rows(bundle, 1))]
        return list(await asyncio.gather(*futures, return_exceptions=True))

    first, second, third = asyncio.run(ask())
    assert (first.outputs, third.outputs) == (["UP", "UP"], ["UP"])
    assert type(second) is error


def test_a_model_with_a_high_cost_is_answered_on_a_thread(bundle: Bundle, recorder: Recorder) -> None:
    seen: list[str] = []

    class Watched:
        def predict_proba(self, X: Any) -> Any:
            seen.append(threading.current_thread().name)
            return np.tile([0.25, 0.75], (len(X), 1))

    async def ask(cost: Cost) -> None:
        await batcher(recorder).submit(replace(bundle, estimator=Watched(), cost=cost), rows(bundle, 1))

    asyncio.run(ask(Cost(fixed_s=0.0001, row_s=0.0)))
    asyncio.run(ask(Cost(fixed_s=1.0, row_s=0.0)))
    assert seen[0] == threading.main_thread().name
    assert seen[1] != seen[0]


def test_a_probe_is_answered_and_leaves_no_trace(bundle: Bundle, recorder: Recorder, tmp_path: Path) -> None:
    async def ask() -> Answered:
        return await batcher(recorder).submit(bundle, rows(bundle, 1), is_recorded=False)

    assert len(asyncio.run(ask()).outputs) == 1
    assert recorded(tmp_path / "spool") == []


def test_a_bundle_is_counted_by_rows_answered_and_rows_that_broke_and_by_nothing_else(
    bundle: Bundle, recorder: Recorder, tmp_path: Path
) -> None:
    health = Health()
    picky = replace(bundle, estimator=Picky())

    def row(**values: Any) -> Block:
        return bundle.decoder.decode(json.dumps({"instances": [instance(**values)]}).encode(), max_rows=1)

    async def ask(to: Any, *blocks: Block, is_recorded: bool = True) -> None:
        b = batcher(to, health=health)
        futures = [b.submit(picky, block, is_recorded=is_recorded) for block in blocks]
        await asyncio.gather(*futures, return_exceptions=True)

    asyncio.run(ask(recorder, rows(bundle, 3)))
    asyncio.run(ask(recorder, row(a=13)))  # the estimator's own fault
    asyncio.run(ask(recorder, row(zone=9)))  # a category that is new to it: the row's
    asyncio.run(ask(recorder, rows(bundle, 2), is_recorded=False))  # a probe
    full = Recorder(spool(tmp_path / "full", cap_bytes=10), clock_us=lambda: NOW_US)
    asyncio.run(ask(full, rows(bundle, 4)))  # the disk's
    full.close()
    told = health.words("flip")["1"]
    assert (told["answered"], told["failed"], told["batches"]) == (3, 1, 1)
    assert 0 < told["seconds"] < 10


def test_a_straggler_of_a_generation_that_is_no_longer_told_is_counted_nowhere(bundle: Bundle) -> None:
    health = Health()
    for generation in (1, 2, 3):
        health.of(bundle.under(generation)).answered += 1
    health.of(bundle.under(1)).answered += 100
    assert {key: told["answered"] for key, told in health.words("flip").items()} == {"2": 1, "3": 1}


def test_what_is_past_its_deadline_is_refused_though_the_estimator_hangs(bundle: Bundle, recorder: Recorder) -> None:
    ends = threading.Event()

    class Hanging:
        def predict_proba(self, X: Any) -> Any:
            ends.wait(30)
            return np.tile([0.25, 0.75], (len(X), 1))

    async def ask() -> list[Any]:
        b = batcher(recorder, Limits(deadline_s=0.05), off_loop=True)
        hanging = replace(bundle, estimator=Hanging())
        futures = [b.submit(hanging, rows(bundle, 1))]
        await asyncio.sleep(0)
        futures += [b.submit(hanging, rows(bundle, 1)) for _ in range(2)]
        while not all(future.done() for future in futures):
            b.expire()
            await asyncio.sleep(0.01)
        ends.set()
        await b.drained()
        return await asyncio.gather(*futures, return_exceptions=True)

    assert [type(one) for one in asyncio.run(ask())] == [Overloaded] * 3
