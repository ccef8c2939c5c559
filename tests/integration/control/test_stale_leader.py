"""A leader whose lease went to another keeps trying, by every way to write that it knows, on both databases."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from service.control.controller import Controller, Place
from service.control.evidence import note_report
from service.control.leader import Leader, Term
from service.control.monitor import Monitor
from service.control.probation import Probations
from service.control.promotion import advance, propose
from service.control.record import Record
from service.control.retrain import Retraining, Work
from service.control.setbacks import set_back
from service.domain.errors import LeaseLost
from service.domain.retry import Setback
from service.domain.run import RunState, Trigger
from service.storage import audit, champions, checks, models, runs, tables, versions
from service.storage.champions import Swap
from service.storage.database import Database
from service.storage.runs import Run
from service.telemetry import Telemetry
from tests.unit.control.conftest import AT, MODEL, a_version, spec_json
from tests.unit.control.fakes import FakeProcesses
from tests.unit.control.test_monitor import FakeLake

S = RunState


class House:
    """A model at work on everything at once, whose leader has just lost the lease."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url)
        self.database.migrate()
        with self.database.write() as conn:
            models.register(conn, MODEL, spec_json=spec_json(), file="models/shop.py", at=AT)
            versions.insert(conn, a_version(1))
            champions.swap(
                conn, MODEL, version=1, expected_generation=0, actor="t", reason="t", kind="promote", run_id=None,
                event_time=AT, at=AT,
            )  # fmt: skip
            versions.insert(conn, a_version(2, parent=1))
            self.check = checks.create(conn, MODEL, actor="schedule", at=AT, window_until=AT)
        first = Leader(self.database, owner="first").step()
        assert first is not None
        self.stale = first
        self.run = self.at_work()
        with self.stale.write() as conn:
            checks.start(conn, self.check.id, token=self.stale.token)
            self.swap = self.asked(conn)

    def at_work(self) -> Run:
        with self.stale.write() as conn:
            at = self.database.now(conn)
            run = runs.create(conn, MODEL, trigger=Trigger.MANUAL, actor="t", reason="t", at=at)
            return runs.transition(
                conn, run.id, S.PREPARING, actor="t", reason="t", at=at, token=self.stale.token, until=AT
            )

    def asked(self, conn: Connection) -> Swap:
        swap_id = champions.request_swap(
            conn, MODEL, version=2, expected_generation=1, actor="t", reason="t", kind="promote", run_id=None,
            event_time=AT, at=AT,
        )  # fmt: skip
        swap = champions.find_swap(conn, swap_id)
        assert swap is not None
        return swap

    def another_leads(self) -> Term:
        with self.database.write() as conn:
            conn.execute(update(tables.leases).values(expires_at=AT))
        term = Leader(self.database, owner="second").step()
        assert term is not None
        assert term.token > self.stale.token
        return term

    def everything(self) -> dict[str, list[str]]:
        with self.database.read() as conn:
            return {
                table.name: sorted(map(repr, conn.execute(select(table)).all()))
                for table in tables.metadata.sorted_tables
            }

    @property
    def record(self) -> Record:
        return Record(self.database, self.run.id, token=self.stale.token, first_pause=timedelta())

    def retraining(self) -> Retraining:
        work = Work(database=self.url, lake="", artifacts="", project=Path(), trainers=1, queue=timedelta(hours=1))
        return Retraining(work, FakeProcesses(), FakeLake(), ended=lambda _run: None)

    def known(self) -> dict[str, Any]:
        with self.database.read() as conn:
            return {row.name: row for row in models.list_all(conn)}

    def monitor(self) -> Monitor:
        lake = FakeLake()
        lake.mark = AT + timedelta(days=30)
        return Monitor(
            FakeProcesses(), lake, reports=Path("reports"), settle_s=0.0, judged=lambda _judged: None,
            drawn=lambda _term, _check, _path: None,
        )  # fmt: skip


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    house = House(database_url)
    yield house
    house.database.close()


def within(what: Callable[[Connection, House], Any]) -> Callable[[House], None]:
    """Return a write as the controller makes it: inside its term."""

    def write(house: House) -> None:
        with house.stale.write() as conn:
            what(conn, house)

    return write


def commit(conn: Connection, house: House) -> None:
    champions.swap(
        conn, MODEL, version=2, expected_generation=1, actor="stale", reason="t", kind="promote", run_id=None,
        event_time=AT, at=AT, swap_id=house.swap.id,
    )  # fmt: skip


def begin_again(conn: Connection, _house: House) -> None:
    runs.create(conn, "shop", trigger=Trigger.DRIFT, actor="stale", reason="t", at=AT)


WRITES: dict[str, Callable[[House], Any]] = {
    "a run's transition": within(
        lambda conn, house: runs.transition(
            conn, house.run.id, S.VALIDATING, actor="t", reason="t", at=AT, token=house.stale.token
        )
    ),
    "a run's setback": within(
        lambda conn, house: set_back(
            conn, house.run, Setback.WORKER_LOST, why="t", actor="t", at=AT, token=house.stale.token
        )
    ),
    "a new run": within(begin_again),
    "a run's heartbeat": within(lambda conn, house: runs.heartbeat(conn, house.run.id, at=AT, token=house.stale.token)),
    "a trainer's step": lambda house: house.record.step(S.VALIDATING, "stale"),
    "a trainer's progress": lambda house: house.record.progress(step="fit", done=1, of=2, words="stale"),
    "a trainer's setback": lambda house: house.record.write(
        lambda conn: house.record.set_back(conn, Setback.RESOURCE, "stale"), is_done=lambda _run: False
    ),
    "a check's start": within(lambda conn, house: checks.start(conn, house.check.id, token=house.stale.token)),
    "a check's verdict": within(
        lambda conn, house: checks.finish(conn, house.check.id, at=AT, token=house.stale.token, verdict="clean")
    ),
    "a check's failure": within(
        lambda conn, house: checks.fail(conn, house.check.id, at=AT, token=house.stale.token, error="t")
    ),
    "a check's report": lambda house: note_report(house.stale, house.check.id, "page.html.gz"),
    "a swap's commit": within(commit),
    "a swap's agreement": lambda house: advance(house.stale, house.swap),
    "a swap's end": within(lambda conn, house: champions.fail_swap(conn, house.swap.id, error="t", at=AT)),
    "a swap that is asked for": lambda house: propose(house.stale, house.run),
    "a version": within(lambda conn, _house: versions.insert(conn, a_version(3))),
    "a switch": within(
        lambda conn, _house: models.set_switch(
            conn, MODEL, "quarantine", value=True, actor="controller", reason="t", at=AT
        )
    ),
    "an audit row": within(
        lambda conn, _house: audit.append(
            conn, actor="controller", action="x", model=MODEL, subject=None, reason="t", at=AT
        )
    ),
    "recovery": lambda house: house.retraining().recover(house.stale),
    "release": lambda house: house.retraining().release(house.stale),
    "a look at runs": lambda house: house.retraining().look(house.stale, house.known()),
    "a look at checks": lambda house: house.monitor().look(house.stale, house.known()),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_leader_whose_lease_went_to_another_writes_nothing(house: House, name: str) -> None:
    house.another_leads()
    before = house.everything()
    with pytest.raises(LeaseLost):
        WRITES[name](house)
    assert house.everything() == before


def test_a_look_at_probations_by_a_stale_leader_changes_nothing(house: House) -> None:
    with house.stale.write() as conn:
        commit(conn, house)
        row = tables.probations.insert().values(
            model=MODEL, generation=2, version=2, previous_version=1, state="watching", began_at=AT, extended=0
        )
        conn.execute(row)
        models.clear_switch(conn, MODEL, "pin")
    house.another_leads()
    before = house.everything()
    with pytest.raises(LeaseLost):
        Probations(counted=lambda _model, _what: None).look(house.stale, house.known())
    assert house.everything() == before


def test_what_was_begun_under_the_lease_is_ended_before_another_can_lead(house: House) -> None:
    """The term is verified once, at the beginning: nobody else's may begin before the transaction ends."""
    order: list[str] = []
    inside = threading.Event()

    def follow() -> None:
        inside.wait(10)
        with house.database.write() as conn:
            conn.execute(update(tables.leases).values(expires_at=AT))
        if Leader(house.database, owner="second").step() is not None:
            order.append("the second leads")

    follower = threading.Thread(target=follow)
    follower.start()
    with house.stale.write() as conn:
        inside.set()
        follower.join(0.5)
        assert follower.is_alive()
        runs.heartbeat(conn, house.run.id, at=AT, token=house.stale.token)
        order.append("the first has written")
    follower.join(20)
    assert order == ["the first has written", "the second leads"]


def test_a_controller_that_lost_its_lease_ends_its_children_and_stands_by(house: House, tmp_path: Path) -> None:
    place = Place(
        database=house.url, lake=tmp_path / "lake", artifacts=tmp_path / "artifacts", reports=tmp_path / "reports",
        models_folder=tmp_path,
    )  # fmt: skip
    controller = Controller(place, house.database, Telemetry())
    with house.database.write() as conn:
        conn.execute(update(tables.leases).values(expires_at=AT))
    assert controller.leader.step() is not None
    controller._processes = processes = FakeProcesses()
    processes.start("train", house.run.id, model=MODEL, task=None)
    controller._term = controller.leader.term
    house.another_leads()
    controller.look()  # it still believes that it leads, until it writes
    before = house.everything()
    assert controller._term is None
    assert processes.of_kind("train") == []
    assert controller.leader.step() is None
    controller.look()
    assert house.everything() == before
