"""The replica: it follows the champions, and goes on with what it has when it can't."""

import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.domain.errors import NoChampion, UnknownModel
from service.serving import replica as replica_module
from service.serving.block import Block
from service.serving.bundle import Bundle
from service.serving.health import Health
from service.serving.lastgood import LastGood
from service.serving.recent import Recent
from service.serving.replica import Replica
from service.serving.slot import Slots
from service.storage import champions, replicas, versions
from service.storage.artifacts import ArtifactStore
from service.storage.replicas import ReplicaModel
from service.storage.versions import VersionRow
from service.telemetry import Telemetry
from tests.estimators import Nan, Slow
from tests.migrated import migrated
from tests.served import AT, PRICE, crown, pack, price, register


class Place:
    def __init__(self, folder: Path) -> None:
        self.database = migrated(folder / "retrue.db")
        self.store = ArtifactStore(folder / "artifacts")
        self.slots = Slots()
        self.replica = self.new_replica()

    def new_replica(self, **parts: Any) -> Replica:
        self.slots = Slots()
        telemetry = Telemetry(CollectorRegistry())
        return Replica(self.database, self.store, slots=self.slots, telemetry=telemetry, index=0, **parts)

    def add(self, row: VersionRow) -> VersionRow:
        with self.database.write() as conn:
            return versions.insert(conn, row)

    def held(self) -> ReplicaModel:
        with self.database.read() as conn:
            (held,) = replicas.serving(conn)
        return held

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


def test_no_swap_waits_for_a_replica_that_serves_nothing_yet(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    register(place.database, PRICE)
    crown(place.database, pack(place.store, PRICE, price()))
    seen: list[tuple[int, int]] = []
    bind = place.slots.bind

    def counted(bundle: Bundle) -> bool:
        with place.database.read() as conn:
            seen.append((len(replicas.live(conn, 60.0)), len(replicas.serving(conn))))
        return bind(bundle)

    monkeypatch.setattr(place.slots, "bind", counted)
    place.replica.look()
    assert seen == [(0, 0)]
    with place.database.read() as conn:
        assert len(replicas.live(conn, 60.0)) == 1
    assert place.held().version == 1


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


def lately(place: Place, *values: float) -> Recent:
    """Return recent rows of the bundle that serves; each value is that of all features of one row."""
    bundle = place.slots.take("price")
    block = Block(np.array([[value] * 8 for value in values]), {})
    recent = Recent()
    recent._kept.append((bundle.layout, block))
    return recent


def ready_for(place: Place, estimator: Any, *values: float) -> ReplicaModel:
    """Return what the replica says of a swap to `estimator` after it answered rows with these values."""
    register(place.database, PRICE)
    crown(place.database, pack(place.store, PRICE, price(0)))
    recent = Recent()
    place.replica = place.new_replica(recent=lambda _: recent)
    place.replica.look()
    recent._kept.extend(lately(place, *values)._kept)
    place.add(pack(place.store, PRICE, estimator, number=2))
    place.ask(2, expected=1)
    place.replica.look()
    return place.held()


def test_a_challenger_that_has_no_number_for_recent_rows_is_refused_before_it_says_ready(place: Place) -> None:
    held = ready_for(place, Nan(), 1.0, 500.0)
    assert held.swap_ready is False
    assert "no finite number" in (held.error or "")
    assert place.slots.take("price").version == 1


def test_a_challenger_is_not_asked_about_rows_that_it_would_refuse(place: Place) -> None:
    # Without the null row nothing is wrong with it: a client that sent it would be told so.
    assert ready_for(place, Nan(), 1.0, float("nan")).swap_ready is True


def test_recent_rows_are_answered_on_a_thread_of_the_load_and_before_the_answer_to_the_swap(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    warm, answer = Bundle.warm, replicas.answer_swap

    def seen_warm(bundle: Bundle, recent: Block | None) -> None:
        if bundle.version == 2:
            order.append(f"{threading.current_thread().name} {0 if recent is None else len(recent)}")
        warm(bundle, recent)

    def seen_answer(*given: Any, **named: Any) -> None:
        order.append("answer")
        answer(*given, **named)

    monkeypatch.setattr(Bundle, "warm", seen_warm)
    monkeypatch.setattr(replicas, "answer_swap", seen_answer)
    assert ready_for(place, price(3), 1.0, 2.0).swap_ready is True
    assert order == ["load-price 2", "answer"]


def test_a_load_that_does_not_end_is_refused_in_time_and_holds_nothing_else_up(place: Place) -> None:
    register(place.database, PRICE)
    crown(place.database, pack(place.store, PRICE, price(0)))
    moment = [0.0]
    place.replica = place.new_replica(monotonic=lambda: moment[0])
    place.replica.look()
    place.add(pack(place.store, PRICE, price(2), number=2))
    hanging, began = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        began.set()
        hanging.wait(30)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.serving.loading.load", hang)
        place.ask(2, expected=1)
        place.replica.look(waits=False)
        assert began.wait(30)
        place.replica.look(waits=False)
        assert place.held().swap_ready is None
        moment[0] = 200.0
        place.replica.look(waits=False)
    held = place.held()
    assert (held.swap_ready, "did not end" in (held.error or "")) == (False, True)
    with place.database.write() as conn:
        champions.fail_swap(conn, held.swap_id or "", error="load", at=AT)
    crown(place.database, pack(place.store, PRICE, price(3), number=3))
    place.replica.look()
    assert place.slots.take("price").version == 3
    hanging.set()


def test_a_rollback_after_a_restart_finds_the_champion_before_warm(place: Place) -> None:
    register(place.database, PRICE)
    first, second = pack(place.store, PRICE, price(0)), pack(place.store, PRICE, price(1), number=2)
    for row in (first, second):
        crown(place.database, row)
    place.replica.look()
    for row in (first, second):
        place.store.delete(row.artifact)
    crown(place.database, first, kind="rollback")
    place.replica.look(waits=False)
    assert place.slots.take("price").version == 1


def test_a_champion_before_that_cannot_be_loaded_is_asked_for_once(place: Place) -> None:
    register(place.database, PRICE)
    first, second = pack(place.store, PRICE, price(0)), pack(place.store, PRICE, price(1), number=2)
    for row in (first, second):
        crown(place.database, row)
    place.store.delete(first.artifact)
    for _ in range(3):
        place.replica.look()
    refused = place.replica._telemetry.registry.get_sample_value(
        "retrue_loads_total", {"model": "price", "outcome": "missing"}
    )
    assert refused == 1


def test_health_is_told_for_the_newest_two_generations_since_the_slot_took_them(place: Place) -> None:
    register(place.database, PRICE)
    health = Health()
    place.replica = place.new_replica(health=health)
    for number in (1, 2, 3):
        crown(place.database, pack(place.store, PRICE, price(number), number=number))
        place.replica.look()
        health.of(place.slots.take("price")).answered += number
    place.replica._beat()
    held = place.held()
    assert held.health is not None
    assert {key: (told["version"], told["answered"]) for key, told in held.health.items()} == {"2": (2, 2), "3": (3, 3)}
    assert held.bound_at is not None
    assert held.health["3"]["since"] == held.bound_at.isoformat()
    assert set(held.health["3"]) == {"version", "answered", "failed", "batches", "seconds", "since"}


def test_a_replica_that_was_forgotten_says_again_what_it_holds_and_since_when(place: Place) -> None:
    register(place.database, PRICE)
    crown(place.database, pack(place.store, PRICE, price()))
    place.replica.look()
    before = place.held()
    with place.database.write() as conn:
        replicas.goodbye(conn, place.replica.id)
    place.replica._beat()
    again = place.held()
    assert (again.generation, again.bound_at) == (1, before.bound_at)


def test_versions_that_retire_leave_nothing_behind(place: Place) -> None:
    register(place.database, PRICE)
    for number in range(1, 13):
        crown(place.database, pack(place.store, PRICE, price(number), number=number))
        place.replica.look()
    assert len(place.replica._warm["price"]) == replica_module.KEPT
    assert len(place.replica._rows) == replica_module.KEPT
    assert not place.replica._failed


def test_the_last_good_champion_is_the_newest_that_any_worker_served(place: Place, tmp_path: Path) -> None:
    register(place.database, PRICE)
    place.replica = place.new_replica(folder=tmp_path / "run")
    for number in (1, 2):
        crown(place.database, pack(place.store, PRICE, price(number), number=number))
        place.replica.look()
    known = LastGood(tmp_path / "run" / "champions.json")
    held = known.read()["price"]
    assert (held.generation, held.row.version) == (2, 2)
    known.note(replace(held, generation=1))  # a straggler
    assert known.read()["price"].generation == 2


class Cyclic(Slow):
    """Holds itself, as many an estimator does somewhere inside: only the collector frees it."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.own = self


Cyclic.__module__ = "tests.cyclic"
sys.modules.setdefault("tests.cyclic", sys.modules[__name__])


def test_a_retired_bundle_is_collected_though_what_was_imported_is_frozen(place: Place) -> None:
    register(place.database, PRICE)
    crown(place.database, pack(place.store, PRICE, price(0)))
    place.replica.look()
    gc.freeze()  # as the worker does once it is ready
    try:
        crown(place.database, pack(place.store, PRICE, Cyclic(), number=2))
        place.replica.look()
        old = weakref.ref(place.slots.take("price").estimator)
        for number in range(3, 8):
            crown(place.database, pack(place.store, PRICE, price(number), number=number))
            place.replica.look()
        assert old() is None
    finally:
        gc.unfreeze()
