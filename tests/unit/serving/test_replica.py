"""The replica: it follows the champions, and goes on with what it has when it can't."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.domain.errors import NoChampion, UnknownModel
from service.serving.replica import Replica
from service.serving.slot import Slots
from service.storage import champions, replicas, versions
from service.storage.artifacts import ArtifactStore
from service.telemetry import Telemetry
from tests.migrated import migrated
from tests.served import AT, PRICE, crown, pack, price, register


class Place:
    def __init__(self, folder: Path) -> None:
        self.database = migrated(folder / "retrue.db")
        self.store = ArtifactStore(folder / "artifacts")
        self.slots = Slots()
        self.replica = self.new_replica()

    def new_replica(self) -> Replica:
        telemetry = Telemetry(CollectorRegistry())
        return Replica(self.database, self.store, slots=self.slots, telemetry=telemetry, index=0)

    def ask(self, version: int, expected: int) -> str:
        with self.database.write() as conn:
            return champions.request_swap(
                conn, "price", version=version, expected_generation=expected, actor="t", reason="t", kind="promote",
                run_id=None, event_time=None, at=AT,
            )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.database.close()


def test_an_unknown_model_and_one_without_a_champion_are_told_apart(place: Place) -> None:
    register(place.database, PRICE)
    place.replica.look()
    with pytest.raises(UnknownModel):
        place.slots.take("other")
    with pytest.raises(NoChampion):
        place.slots.take("price")


def test_the_champion_is_loaded_bound_and_reported(place: Place) -> None:
    register(place.database, PRICE)
    crown(place.database, pack(place.store, PRICE, price()))
    place.replica.look()
    bundle = place.slots.take("price")
    assert (bundle.version, bundle.generation) == (1, 1)
    with place.database.read() as conn:
        (held,) = replicas.serving(conn)
    assert (held.version, held.generation) == (1, 1)


def test_a_waiting_swap_is_prepared_and_acknowledged_before_it_is_served(place: Place) -> None:
    register(place.database, PRICE)
    crown(place.database, pack(place.store, PRICE, price(0)))
    place.replica.look()
    second = pack(place.store, PRICE, price(1), number=2)
    with place.database.write() as conn:
        versions.insert(conn, second)
    swap_id = place.ask(2, expected=1)
    place.replica.look()
    with place.database.read() as conn:
        (held,) = replicas.serving(conn)
    assert (held.swap_id, held.swap_ready, held.version) == (swap_id, True, 1)
    assert place.slots.take("price").version == 1


def test_a_version_that_does_not_load_is_answered_with_the_reason_and_the_old_one_serves(place: Place) -> None:
    register(place.database, PRICE)
    crown(place.database, pack(place.store, PRICE, price(0)))
    place.replica.look()
    broken = replace(pack(place.store, PRICE, price(1), number=2), artifact=place.store.put(b"nonsense"))
    with place.database.write() as conn:
        versions.insert(conn, broken)
    place.ask(2, expected=1)
    place.replica.look()
    with place.database.read() as conn:
        (held,) = replicas.serving(conn)
    assert held.swap_ready is False
    assert "can't be loaded" in (held.error or "")
    with place.database.write() as conn:
        champions.fail_swap(conn, held.swap_id or "", error="load", at=AT)
    crown(place.database, broken)  # even if it is made champion by force
    place.replica.look()
    assert place.slots.take("price").version == 1


def test_a_rollback_takes_the_warm_bundle_and_reads_no_artifact(place: Place) -> None:
    register(place.database, PRICE)
    first, second = pack(place.store, PRICE, price(0)), pack(place.store, PRICE, price(1), number=2)
    for row in (first, second):
        crown(place.database, row)
        place.replica.look()
    place.store.delete(first.artifact)
    crown(place.database, first, kind="rollback")
    place.replica.look()
    bundle = place.slots.take("price")
    assert (bundle.version, bundle.generation) == (1, 3)


def test_a_replica_that_starts_late_comes_up_on_the_champion(place: Place) -> None:
    register(place.database, PRICE)
    for number in (1, 2):
        crown(place.database, pack(place.store, PRICE, price(number), number=number))
    place.replica.look()
    assert place.slots.take("price").version == 2


def test_a_replica_that_stops_says_goodbye(place: Place) -> None:
    place.replica.look()
    place.replica.stop()
    with place.database.read() as conn:
        assert replicas.live(conn, 60) == []


def test_a_slot_never_goes_back_to_an_older_generation(place: Place) -> None:
    register(place.database, PRICE)
    crown(place.database, pack(place.store, PRICE, price()))
    place.replica.look()
    bundle = place.slots.take("price")
    assert place.slots.bind(bundle.under(5))
    assert not place.slots.bind(bundle.under(4))
    assert place.slots.take("price").generation == 5
