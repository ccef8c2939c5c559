"""Models, switches, versions, champions and the audit, on both databases."""

import dataclasses
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from service.domain.errors import Conflict, GenerationMismatch, NotAllowedNow, UnknownModel, UnknownVersion
from service.domain.version import VersionState
from service.storage import audit, champions, models, versions
from service.storage.database import Database

MODEL = "electricity"


def add_version(conn: Connection, at: datetime) -> int:
    row = versions.VersionRow(
        model=MODEL,
        version=versions.next_number(conn, MODEL),
        state=VersionState.APPROVED,
        run_id=None,
        parent=None,
        artifact="a" * 64,
        manifest={"format": 1},
        lineage={},
        metrics={"value": 0.7},
        reference={"rows": 3},
        learned_until=at,
        created_at=at,
    )
    versions.insert(conn, row)
    assert versions.get(conn, MODEL, row.version) == row
    return row.version


def swap(conn: Connection, at: datetime, version: int, expected: int, **overrides: Any) -> champions.Champion:
    facts: dict[str, Any] = {
        "actor": "ada",
        "reason": "better",
        "kind": "promote",
        "run_id": None,
        "event_time": None,
        "at": at,
        **overrides,
    }
    return champions.swap(conn, MODEL, version=version, expected_generation=expected, **facts)


def request(conn: Connection, at: datetime, version: int, expected: int) -> str:
    return champions.request_swap(
        conn,
        MODEL,
        version=version,
        expected_generation=expected,
        actor="ada",
        reason="better",
        kind="promote",
        run_id=None,
        event_time=None,
        at=at,
    )


def test_an_unchanged_spec_leaves_its_row_alone(database: Database, at: datetime) -> None:
    later = at + timedelta(hours=1)
    spec = {"task": "classification"}
    with database.write() as conn:
        assert models.register(conn, MODEL, spec_json=spec, file="electricity.py", at=later).updated_at == at
        changed = models.register(conn, MODEL, spec_json={**spec, "metric": "f1"}, file="electricity.py", at=later)
    assert (changed.registered_at, changed.updated_at) == (at, later)


def test_a_broken_file_keeps_what_was_known(database: Database, at: datetime) -> None:
    with database.write() as conn:
        broken = models.mark_broken(conn, MODEL, "no column 'price'", "electricity.py", at=at)
        assert (broken.error, broken.spec) == ("no column 'price'", {"task": "classification"})
        assert models.mark_broken(conn, "bikes", "does not import", "bikes.py", at=at).spec is None
        mended = models.register(conn, MODEL, spec_json={"task": "classification"}, file="electricity.py", at=at)
        assert mended.error is None
        assert [row.name for row in models.list_all(conn)] == ["bikes", MODEL]
        with pytest.raises(UnknownModel):
            models.get(conn, "taxis")


def test_a_switch_ends_by_the_databases_clock(database: Database) -> None:
    with database.write() as conn:
        moment = database.now(conn)
        for name, ends in (("pause", None), ("freeze", moment - timedelta(seconds=1)), ("pin", moment.max)):
            ends_at = ends.replace(tzinfo=UTC, year=2100) if name == "pin" and ends else ends
            models.set_switch(
                conn, MODEL, name, value={"on": True}, actor="ada", reason="r", at=moment, expires_at=ends_at
            )
        assert set(models.switches(conn, MODEL)) == {"pause", "pin"}
        assert models.clear_switch(conn, MODEL, "pause")
        assert not models.clear_switch(conn, MODEL, "pause")
        assert set(models.switches(conn, MODEL)) == {"pin"}


def test_versions_are_numbered_without_gaps(database: Database, at: datetime) -> None:
    with database.write() as conn:
        assert [add_version(conn, at) for _ in range(3)] == [1, 2, 3]
        assert [row.version for row in versions.list_of(conn, MODEL)] == [3, 2, 1]
        with pytest.raises(UnknownVersion):
            versions.get(conn, MODEL, 4)
        with pytest.raises(UnknownVersion):
            versions.set_state(conn, MODEL, 4, VersionState.REJECTED)


def test_a_swap_moves_pointer_states_history_and_audit_together(database: Database, at: datetime) -> None:
    with database.write() as conn:
        add_version(conn, at)
        add_version(conn, at)
        assert champions.current(conn, MODEL) is None
        swap(conn, at, 1, 0)
        swap(conn, at, 2, 1, run_id="a-run")
        back = swap(conn, at, 1, 2, kind="rollback")
    assert (back.version, back.generation, back.previous_version) == (1, 3, 2)
    with database.read() as conn:
        assert champions.all_current(conn) == [back]
        assert [row.state for row in versions.list_of(conn, MODEL)] == [VersionState.RETIRED, VersionState.CHAMPION]
        assert [(s.generation, s.version, s.previous_version) for s in champions.history(conn, MODEL)] == [
            (3, 1, 2),
            (2, 2, 1),
            (1, 1, None),
        ]
        assert [row.action for row in audit.list_of(conn, MODEL)] == [
            "champion_rollback",
            "champion_promote",
            "champion_promote",
        ]
        assert audit.verify(conn) is None


@pytest.mark.parametrize("expected", [0, 2])
def test_a_stale_swap_changes_nothing(database: Database, at: datetime, expected: int) -> None:
    with database.write() as conn:
        add_version(conn, at)
        add_version(conn, at)
        before = swap(conn, at, 1, 0)
    with pytest.raises(GenerationMismatch) as caught, database.write() as conn:
        swap(conn, at, 2, expected)
    assert caught.value.facts == {"model": MODEL, "expected": expected, "generation": 1, "version": 1}
    with database.read() as conn:
        assert champions.current(conn, MODEL) == before
        assert len(champions.history(conn, MODEL)) == len(audit.list_of(conn)) == 1
        assert versions.get(conn, MODEL, 2).state is VersionState.APPROVED


def test_of_many_swaps_at_once_one_wins(database: Database, at: datetime) -> None:
    with database.write() as conn:
        add_version(conn, at)
        swap(conn, at, 1, 0)
        for _ in range(4):
            add_version(conn, at)
    outcomes: list[str] = []
    together = threading.Barrier(4)

    def race(version: int) -> None:
        together.wait(10)
        try:
            with database.write() as conn:
                swap(conn, at, version, 1)
            outcomes.append("won")
        except GenerationMismatch:
            outcomes.append("lost")

    threads = [threading.Thread(target=race, args=(version,)) for version in (2, 3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["lost", "lost", "lost", "won"]
    with database.read() as conn:
        assert [swap.generation for swap in champions.history(conn, MODEL)] == [2, 1]
        assert audit.verify(conn) is None


def test_a_waiting_swap_is_committed_once_or_fails(database: Database, at: datetime) -> None:
    with database.write() as conn:
        add_version(conn, at)
        add_version(conn, at)
        swap(conn, at, 1, 0)
        swap_id = request(conn, at, 2, 1)
        assert [waiting.id for waiting in champions.waiting(conn)] == [swap_id]
        with pytest.raises(Conflict) as caught:
            request(conn, at, 2, 1)
        assert caught.value.facts["swap"] == swap_id
        champions.fail_swap(conn, swap_id, error="a replica can't load it", at=at)
        with pytest.raises(NotAllowedNow):
            champions.fail_swap(conn, swap_id, error="again", at=at)
        assert champions.waiting(conn, MODEL) == []
        other = request(conn, at, 2, 1)
        swap(conn, at, 2, 1, swap_id=other)
        ended = champions.find_swap(conn, other)
    assert ended is not None
    assert (ended.state, ended.generation) == ("committed", 2)


def test_a_failed_swap_can_not_be_committed(database: Database, at: datetime) -> None:
    with database.write() as conn:
        add_version(conn, at)
        swap_id = request(conn, at, 1, 0)
        champions.fail_swap(conn, swap_id, error="e", at=at)
    with pytest.raises(NotAllowedNow), database.write() as conn:
        swap(conn, at, 1, 0, swap_id=swap_id)
    with database.read() as conn:
        assert champions.current(conn, MODEL) is None


def test_a_swap_is_asked_for_against_the_present_generation(database: Database, at: datetime) -> None:
    with database.write() as conn:
        add_version(conn, at)
        with pytest.raises(GenerationMismatch):
            request(conn, at, 1, 1)


def test_the_audit_is_read_in_pages(database: Database, at: datetime) -> None:
    with database.write() as conn:
        for number in range(5):
            audit.append(conn, actor="a", action="t", model=None, subject=str(number), reason="r", at=at)
        first = audit.list_of(conn, limit=2)
        assert [row.seq for row in first] == [5, 4]
        assert [row.seq for row in audit.list_of(conn, limit=2, before=first[-1].seq)] == [3, 2]
    assert dataclasses.is_dataclass(first[0])
