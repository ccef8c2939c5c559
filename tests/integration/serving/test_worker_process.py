"""A worker's end: what was accepted is answered and written, and the spool is left whole."""

import asyncio
import json
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from service.serving.bundle import Cost, load
from service.serving.worker import Worker
from service.storage import replicas
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.spool import Dropped, is_dead, read_segment, segments_of, streams
from service.telemetry import Telemetry
from tests.served import PRICE, pack, price, register, spool


class Gate:
    """An estimator that answers only once it may."""

    def __init__(self) -> None:
        self.began: Future[None] = Future()
        self.may: Future[None] = Future()

    def predict(self, X: Any) -> Any:
        if not self.began.done():
            self.began.set_result(None)
        self.may.result(30)
        return np.zeros(len(X))


def test_a_worker_that_stops_answers_what_it_accepted_and_closes_the_spool(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'retrue.db'}")
    database.migrate()
    store = ArtifactStore(tmp_path / "artifacts")
    register(database, PRICE)
    gate = Gate()
    bundle = load(store, pack(store, PRICE, price()), generation=1)
    slow = replace(bundle, estimator=gate, cost=Cost(fixed_s=1.0, row_s=0.0))
    body = json.dumps({"instances": [[float(place) for place in range(8)]]}).encode()

    async def play() -> int:
        telemetry = Telemetry(CollectorRegistry())
        worker = Worker(database, store, spool=spool(tmp_path / "spool"), telemetry=telemetry)
        await worker.start()
        first = worker.predict(slow, slow.decoder.decode(body, max_rows=1))
        await asyncio.wrap_future(gate.began)
        waiting = [worker.predict(slow, slow.decoder.decode(body, max_rows=1)) for _ in range(5)]
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0)
        gate.may.set_result(None)
        await stopping
        await worker.stop()
        answered = await asyncio.gather(first, *waiting)
        return sum(len(one.ids) for one in answered)

    assert asyncio.run(play()) == 6
    (stream,) = streams(tmp_path / "spool")
    assert is_dead(stream)
    records = [record for segment in segments_of(stream) for record in read_segment(segment.path)]
    assert not any(isinstance(record, Dropped) for record in records)
    assert sum(len(record) for record in records if not isinstance(record, Dropped)) == 6
    with database.read() as conn:
        assert replicas.live(conn, 60) == []
    database.close()
