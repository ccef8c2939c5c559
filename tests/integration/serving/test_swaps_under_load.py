"""Invariants 1 to 3: whatever is swapped meanwhile, each answer is bit by bit that of the version it names."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.api.application import Parts, create
from service.serving.bundle import Bundle
from service.serving.bundle import load as load_bundle
from service.serving.worker import Worker
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.ids import id_texts
from service.storage.spool import PredictionBatch, read_segment, segments_of, streams
from service.telemetry import Telemetry
from tests.served import PRICE, pack, price, register, spool

SWAPS = 200
VERSIONS = 4
CALLERS = 12


@dataclass
class Served:
    home: Path
    worker: Worker
    bundles: list[Bundle]
    app: Any


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    database = Database(f"sqlite:///{tmp_path / 'retrue.db'}")
    database.migrate()
    store = ArtifactStore(tmp_path / "artifacts")
    register(database, PRICE)
    telemetry = Telemetry(CollectorRegistry())
    worker = Worker(database, store, spool=spool(tmp_path / "spool"), telemetry=telemetry)
    bundles = [
        load_bundle(store, pack(store, PRICE, price(number), number=number), generation=0)
        for number in range(1, VERSIONS + 1)
    ]
    app = create(Parts(worker=worker, database=database, telemetry=telemetry, home=tmp_path))
    yield Served(tmp_path, worker, bundles, app)
    database.close()


def spooled(home: Path) -> Iterator[PredictionBatch]:
    for stream in streams(home / "spool"):
        for segment in segments_of(stream, with_open=True):
            for record in read_segment(segment.path):
                assert isinstance(record, PredictionBatch)
                yield record


@dataclass
class Load:
    """What callers sent and got while slots were rebound."""

    swaps: int = SWAPS
    per_swap: int = 3
    """Answers to wait for under each generation."""
    callers: int = CALLERS
    answers: list[tuple[list[list[float]], dict[str, Any]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    is_over: bool = False

    async def call(self, client: httpx.AsyncClient, seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not self.is_over:
            rows = rng.normal(size=(int(rng.integers(1, 6)), 8)).tolist()
            response = await client.post("/v1/models/price/predict", content=json.dumps({"instances": rows}))
            if response.status_code != httpx.codes.OK:
                self.failures.append(response.text)
            else:
                self.answers.append((rows, response.json()))

    async def swap(self, served: Served) -> None:
        for generation in range(2, self.swaps + 2):
            served.worker.slots.bind(served.bundles[generation % VERSIONS].under(generation))
            seen = len(self.answers)
            while len(self.answers) < seen + self.per_swap:  # noqa: ASYNC110  a few requests in every generation
                await asyncio.sleep(0)
        self.is_over = True

    async def play(self, served: Served) -> None:
        async with served.app.router.lifespan_context(served.app):
            served.worker.slots.bind(served.bundles[1].under(1))
            transport = httpx.ASGITransport(served.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                await asyncio.gather(self.swap(served), *(self.call(client, seed) for seed in range(self.callers)))


Told = dict[str, tuple[int, int, float]]
"""Version, generation and answer by id."""


def answered(load: Load, bundles: list[Bundle]) -> Told:
    told: Told = {}
    by_version = {bundle.version: bundle for bundle in bundles}
    for rows, answer in load.answers:
        version, generation = answer["version"], answer["generation"]
        assert version == bundles[generation % VERSIONS].version
        # Alone or in a batch: the same but for the last bits of a sum, which depend on the block's shape.
        alone = by_version[version].estimator.predict(np.array(rows))
        np.testing.assert_allclose(answer["predictions"], alone, rtol=1e-9, atol=1e-12)
        told |= {
            one: (version, generation, value) for one, value in zip(answer["ids"], answer["predictions"], strict=True)
        }
    return told


def written(home: Path, bundles: list[Bundle]) -> Told:
    found: Told = {}
    by_version = {bundle.version: bundle for bundle in bundles}
    for batch in spooled(home):
        # Bit by bit: the version that is named, on the very block that it answered.
        assert np.array_equal(by_version[batch.version].estimator.predict(batch.numeric), batch.output)
        for one, value in zip(id_texts(batch.ids).astype(str).tolist(), batch.output, strict=True):
            assert one not in found
            found[one] = (batch.version, batch.generation, float(value))
    return found


def test_each_answer_is_bit_equal_to_the_version_it_names_while_slots_are_rebound(served: Served) -> None:
    load = Load()
    asyncio.run(load.play(served))
    assert load.failures == []
    told = answered(load, served.bundles)
    assert written(served.home, served.bundles) == told  # all that was answered, nothing else, and the same bits
    assert len({generation for _, generation, _ in told.values()}) > SWAPS * 0.9
