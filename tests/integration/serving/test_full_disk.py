"""A worker whose disk is really full: each model's spec says whether it answers; labels wait; all of it recovers."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.api.application import Parts, create
from service.serving.worker import Worker
from service.storage import models
from service.storage.artifacts import ArtifactStore
from service.storage.committer import Committer
from service.storage.lake import Lake
from service.storage.spool import spool_bytes
from service.telemetry import Telemetry
from tests.asgi import Client, serving
from tests.disks import SmallDisk, small_disk
from tests.migrated import migrated
from tests.served import AT, FLIP, crown, flip, instance, pack, spool

PREDICT, FEEDBACK = "/v1/models/flip/predict", "/v1/models/flip/feedback"


class Site:
    """A worker whose spool is on the small disk; everything else is elsewhere."""

    def __init__(self, root: Path, disk: SmallDisk, *, when_full: str) -> None:
        self.disk, self.lake = disk, Lake(root / "lake")
        self.database = migrated(root / "retrue.db")
        store = ArtifactStore(root / "artifacts")
        spec = {"schema": FLIP.to_json(), "policies": {"recording": {"when_full": when_full}}}
        with self.database.write() as conn:
            models.register(conn, "flip", spec_json=spec, file="flip.py", at=AT)
        crown(self.database, pack(store, FLIP, flip(0)))
        self.telemetry = Telemetry(CollectorRegistry())
        self.worker = Worker(self.database, store, spool=spool(disk.root / "spool"), telemetry=self.telemetry)
        self.worker.replica.look()
        self.client: Client
        self.answered: list[str] = []

    def ask(self, rows: int = 1) -> Any:
        response = self.client.post(PREDICT, json={"instances": [instance()] * rows})
        if response.status_code == 200:
            self.answered += response.json()["ids"]
        return response

    def commit(self) -> None:
        Committer(self.disk.root / "spool", self.lake).run_once()

    def in_lake(self) -> Counter[str]:
        rows = Lake(self.lake.root).read_window("flip", after=None, until=None, columns=[])
        return Counter(rows["id"].to_pylist())

    def count(self, name: str) -> float:
        return self.telemetry.registry.get_sample_value(name, {"model": "flip"}) or 0.0


@contextmanager
def site(root: Path, *, when_full: str) -> Iterator[Site]:
    with small_disk(root / "disk") as disk:
        made = Site(root, disk, when_full=when_full)
        app = create(Parts(worker=made.worker, database=made.database, telemetry=made.telemetry, home=root))
        with serving(app) as made.client:
            yield made
        made.commit()
        made.database.close()
        assert spool_bytes(disk.root / "spool") == 0
        assert made.in_lake() == Counter(made.answered)


def test_a_model_that_refuses_answers_503_until_there_is_room_again(tmp_path: Path) -> None:
    with site(tmp_path, when_full="refuse") as here:
        assert here.ask(3).status_code == 200
        here.disk.fill()
        for rows in (400, 1, 1):
            response = here.ask(rows)
            if response.status_code == 200:  # the last block of the disk had room for it
                continue
            assert (response.status_code, response.json()["code"]) == (503, "not-recorded")
            assert int(response.headers["retry-after"]) > 0
        assert here.ask(400).status_code == 503
        here.disk.free()
        assert here.ask(3).status_code == 200
        assert here.count("retrue_predictions_unrecorded_total") == 0
        assert here.client.get("/readyz").status_code == 200


def test_a_model_that_answers_says_what_is_not_recorded_gives_no_ids_and_counts_it(tmp_path: Path) -> None:
    with site(tmp_path, when_full="answer") as here:
        first = here.ask(3)
        assert "recorded" not in first.json()
        here.disk.fill()
        response = here.ask(400)
        assert response.status_code == 200
        told = response.json()
        assert (told["recorded"], told["ids"]) == (False, [])
        assert len(told["predictions"]) == len(told["probabilities"]) == 400
        assert here.count("retrue_predictions_unrecorded_total") == 400
        labels = [{"id": first.json()["ids"][0], "label": "UP"}] * 400
        refused = here.client.post(FEEDBACK, json={"labels": labels})
        assert (refused.status_code, refused.json()["code"]) == (503, "not-recorded")
        assert here.client.get("/readyz").status_code == 200
        here.disk.free()
        assert len(here.ask(3).json()["ids"]) == 3
        assert here.client.post(FEEDBACK, json={"labels": labels[:1]}).status_code == 202
        assert here.count("retrue_predictions_unrecorded_total") == 400


def test_the_policy_follows_the_spec_at_the_worker_s_next_look(tmp_path: Path) -> None:
    with site(tmp_path, when_full="refuse") as here:
        here.disk.fill()
        assert here.ask(400).status_code == 503
        spec = {"schema": FLIP.to_json(), "policies": {"recording": {"when_full": "answer"}}}
        with here.database.write() as conn:
            models.register(conn, "flip", spec_json=spec, file="flip.py", at=AT)
        here.worker.replica.look()
        assert here.ask(400).json()["recorded"] is False
        here.disk.free()


@pytest.mark.parametrize("when_full", ["refuse", "answer"])
def test_a_spool_at_its_cap_follows_the_same_policy(tmp_path: Path, when_full: str) -> None:
    with site(tmp_path, when_full=when_full) as here:
        writer = here.worker.recorder._spool
        writer._cap_bytes = 20_000
        answers = [here.ask(20) for _ in range(20)]
        unrecorded = [one for one in answers if one.status_code == 503 or one.json().get("recorded") is False]
        assert unrecorded
        assert {one.status_code for one in unrecorded} == {503 if when_full == "refuse" else 200}
        writer._cap_bytes = 1 << 30
        assert here.ask().json()["ids"]
