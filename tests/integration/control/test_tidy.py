"""What a champion, a way back, a waiting swap, a probation or a run needs is never swept; the rest is, and late."""

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import update

from service.control import tidy
from service.control.leader import Leader, Term
from service.control.tidy import Tidy, needed
from service.domain.errors import ArtifactInvalid, LakeUnavailable, LeaseLost
from service.domain.run import RunState, Trigger
from service.domain.version import VersionState
from service.storage import audit, champions, checks, leases, models, runs, tables, versions
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.lake import Lake
from service.storage.rows import MOMENT
from service.storage.versions import VersionRow

MODEL, OTHER = "shop", "forge"
LONG_AGO = timedelta(days=30)


class Yard:
    """A database with a leader, a store and a lake, in which everything is old unless told otherwise."""

    def __init__(self, url: str, root: Path) -> None:
        self.database = Database(url)
        self.database.migrate()
        self.store, self.lake = ArtifactStore(root / "artifacts"), Lake(root / "lake")
        self.hours = 0.0
        self.broom = Tidy(self.store, self.lake, wall=lambda: time.time() + self.hours * 3600)
        with self.database.write() as conn:
            self.at = self.database.now(conn)
        for model in (MODEL, OTHER):
            self.register(model)
        found = Leader(self.database, owner="this one").step()
        assert found is not None
        self.term: Term = found

    def register(self, model: str, *, artifacts: int = 2) -> None:
        spec = {"policies": {"retention": {"predictions": "all", "labels": "all", "artifacts": artifacts}}}
        with self.database.write() as conn:
            models.register(conn, model, spec_json=spec, file=f"{model}.py", at=self.at)

    def grow(self, count: int, *, model: str = MODEL, **overrides: Any) -> list[str]:
        """Add so many versions, each with an artifact of its own; return the digests."""
        digests = []
        for _ in range(count):
            with self.database.write() as conn:
                number = versions.next_number(conn, model)
                digest = self.put(f"{model} {number}".encode())
                values: dict[str, Any] = {
                    "model": model,
                    "version": number,
                    "state": VersionState.APPROVED,
                    "run_id": None,
                    "parent": None,
                    "artifact": digest,
                    "manifest": {},
                    "lineage": {},
                    "metrics": {},
                    "reference": {},
                    "learned_until": self.at,
                    "created_at": self.at - LONG_AGO,
                    **overrides,
                }
                versions.insert(conn, VersionRow(**values))
            digests.append(digest)
        return digests

    def put(self, content: bytes) -> str:
        digest = self.store.put(content)
        old = time.time() - LONG_AGO.total_seconds()
        os.utime(self.store.root / digest, (old, old))
        return digest

    def crown(self, version: int, *, kind: Any = "promote") -> None:
        with self.database.write() as conn:
            current = champions.current(conn, MODEL)
            champions.swap(
                conn, MODEL, version=version, expected_generation=current.generation if current else 0, actor="test",
                reason="test", kind=kind, run_id=None, event_time=None, at=self.at,
            )  # fmt: skip

    def sweep(self) -> list[str]:
        """Sweep twice: what is deleted is what both agree on."""
        assert self.broom.sweep(self.term) == []
        return self.broom.sweep(self.term)

    def kept(self, model: str = MODEL) -> list[int]:
        with self.database.read() as conn:
            rows = versions.list_of(conn, model)
        return sorted(row.version for row in rows if self.store.exists(row.artifact))

    def states(self) -> dict[int, VersionState]:
        with self.database.read() as conn:
            return {row.version: row.state for row in versions.list_of(conn, MODEL)}


@pytest.fixture
def yard(database_url: str, tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(database_url, tmp_path)
    yield yard
    yard.database.close()


def test_old_versions_are_archived_before_their_files_go_and_it_is_audited(yard: Yard) -> None:
    yard.grow(6)
    assert yard.broom.sweep(yard.term) == []
    assert yard.kept() == [1, 2, 3, 4, 5, 6]  # a request that is being committed now may need one of them yet
    assert {number for number, state in yard.states().items() if state is VersionState.ARCHIVED} == {1, 2, 3, 4}
    assert len(yard.broom.sweep(yard.term)) == 4
    assert yard.kept() == [5, 6]
    with yard.database.read() as conn:
        (row,) = [row for row in audit.list_of(conn, MODEL) if row.action == "versions_archived"]
        assert row.subject == "1, 2, 3, 4"
        assert row.facts["states"] == dict.fromkeys("1234", "approved")
        assert audit.verify(conn) is None
    assert yard.sweep() == []


def test_the_champion_and_three_ways_back_are_kept_however_old(yard: Yard) -> None:
    yard.grow(12)
    for version in (1, 2, 3, 4, 5):
        yard.crown(version)
    yard.sweep()
    assert yard.kept() == [2, 3, 4, 5, 11, 12]
    assert yard.states()[5] is VersionState.CHAMPION


def test_a_champion_whose_probation_was_cut_short_can_still_be_named_as_a_way_back(yard: Yard) -> None:
    yard.grow(12)
    for version in (1, 2, 3, 4, 5):
        yard.crown(version)
    with yard.database.write() as conn:
        values = {"generation": 3, "version": 3, "previous_version": 2, "state": "ended", "began_at": yard.at}
        conn.execute(tables.probations.insert().values(model=MODEL, **values))
    yard.sweep()
    assert yard.kept() == [1, 2, 3, 4, 5, 11, 12]


def test_bad_champions_do_not_use_up_the_ways_back(yard: Yard) -> None:
    yard.grow(12)
    for version in (1, 2, 3, 4, 5, 6, 7):
        yard.crown(version)
        if version in {4, 5, 6}:
            with yard.database.write() as conn:
                versions.set_state(conn, MODEL, version, VersionState.QUARANTINED)
    for version in (4, 5, 6):
        with yard.database.write() as conn:
            versions.set_state(conn, MODEL, version, VersionState.QUARANTINED)
    yard.sweep()
    assert {1, 2, 3, 7} <= set(yard.kept())


def test_a_waiting_swap_keeps_what_it_asks_for(yard: Yard) -> None:
    yard.grow(6)
    with yard.database.write() as conn:
        champions.request_swap(
            conn, MODEL, version=1, expected_generation=0, actor="ada", reason="r", kind="promote", run_id=None,
            event_time=None, at=yard.at,
        )  # fmt: skip
    yard.sweep()
    assert yard.kept() == [1, 5, 6]


def test_an_open_probation_keeps_both_its_versions(yard: Yard) -> None:
    yard.grow(6)
    with yard.database.write() as conn:
        values = {"generation": 9, "version": 2, "previous_version": 1, "state": "watching", "began_at": yard.at}
        conn.execute(tables.probations.insert().values(model=MODEL, **values))
    yard.sweep()
    assert yard.kept() == [1, 2, 5, 6]


@pytest.mark.parametrize("state", [RunState.PREPARING, RunState.AWAITING_APPROVAL, RunState.AWAITING_LABELS])
def test_an_unfinished_run_keeps_its_version(yard: Yard, state: RunState) -> None:
    yard.grow(6)
    with yard.database.write() as conn:
        run = runs.create(conn, MODEL, trigger=Trigger.MANUAL, actor="ada", reason="r", at=yard.at)
        conn.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(version=2, state=state.value))
    yard.sweep()
    assert yard.kept() == [2, 5, 6]


def test_a_check_under_way_keeps_the_version_whose_reference_it_reads(yard: Yard) -> None:
    yard.grow(6)
    with yard.database.write() as conn:
        checks.create(conn, MODEL, actor="schedule", at=yard.at, version=1, generation=1)
    yard.sweep()
    assert yard.kept() == [1, 5, 6]


def test_a_pinned_version_is_kept(yard: Yard) -> None:
    yard.grow(6)
    yard.crown(1)
    with yard.database.write() as conn:
        models.set_switch(conn, MODEL, "pin", value=2, actor="ada", reason="r", at=yard.at)
        assert needed(conn, MODEL) == {1, 2, 5, 6}


def test_versions_and_files_of_this_hour_are_kept(yard: Yard) -> None:
    yard.grow(4, created_at=yard.at - timedelta(minutes=30))
    yard.grow(2)
    young = yard.store.put(b"its row is not written yet")
    assert yard.sweep() == []
    assert yard.kept() == list(range(1, 7))
    yard.hours = 2
    assert yard.sweep() == [young]  # the run died before it wrote the row


def test_an_artifact_that_two_versions_share_stays_while_one_needs_it(yard: Yard) -> None:
    shared = yard.put(b"the same bytes")
    yard.grow(1, artifact=shared)
    yard.grow(1, model=OTHER, artifact=shared)
    yard.grow(4)
    yard.sweep()
    assert yard.states()[1] is VersionState.ARCHIVED
    assert yard.store.exists(shared)
    yard.grow(4, model=OTHER)
    yard.sweep()
    assert not yard.store.exists(shared)


def test_a_compiled_artifact_lives_as_long_as_its_version(yard: Yard) -> None:
    compiled = [yard.put(f"compiled {number}".encode()) for number in range(3)]
    for digest in compiled:
        yard.grow(1, manifest={"compiled": {"artifact": digest}})
    yard.grow(1, manifest={"compiled": {"refused": "a transformer of one's own"}})
    yard.sweep()
    assert [yard.store.exists(digest) for digest in compiled] == [False, False, True]


def test_an_archived_version_that_became_champion_meanwhile_keeps_its_file(yard: Yard) -> None:
    yard.grow(6)
    yard.broom.sweep(yard.term)
    yard.crown(1)  # its request had read the state before the sweep wrote it
    yard.broom.sweep(yard.term)
    yard.broom.sweep(yard.term)
    assert 1 in yard.kept()


def test_a_crash_before_the_file_went_leaves_an_orphan_for_the_next_sweep(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard.grow(6)

    def killed(*_: Any) -> None:
        raise OSError(5, "killed")

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "delete", killed)
        yard.broom.sweep(yard.term)
        with pytest.raises(OSError, match="killed"):
            yard.broom.sweep(yard.term)
    assert yard.kept() == [1, 2, 3, 4, 5, 6]
    yard.broom = Tidy(yard.store, yard.lake)
    assert len(yard.sweep()) == 4


def test_a_leader_that_was_overtaken_sweeps_nothing(yard: Yard) -> None:
    yard.grow(6)
    yard.broom.sweep(yard.term)
    with yard.database.write() as conn:
        conn.execute(update(tables.leases).values(token=tables.leases.c.token + 1))
        assert leases.holder(conn, "controller") is not None
    with pytest.raises(LeaseLost):
        yard.broom.sweep(yard.term)
    assert yard.kept() == [1, 2, 3, 4, 5, 6]


def test_references_of_archived_versions_go_with_them(yard: Yard) -> None:
    times = pa.array([1, 2, 3], pa.int64()).view(MOMENT)
    kept = [
        yard.lake.keep(MODEL, pa.table({"event_time": times, "x_price": [number, 2.0, 3.0]})).to_json()
        for number in (1.0, 2.0, 3.0)
    ]
    yard.hours = 2
    for reference in kept[:2]:
        yard.grow(1, reference=reference)
    yard.grow(1, reference=kept[0])
    yard.grow(1)
    yard.sweep()
    assert yard.lake.read_snapshot(kept[0]).num_rows == 3  # version 3 has it too
    for reference in kept[1:]:
        with pytest.raises(LakeUnavailable):
            yard.lake.read_snapshot(reference)


def test_a_sweep_comes_now_and_then_and_never_raises(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    broom = Tidy(yard.store, yard.lake, monotonic=lambda: now[0])
    yard.grow(6)
    for _ in range(5):
        broom.look(yard.term)
    assert len(yard.kept()) == 6
    now[0] += tidy.SWEEP_S
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "forget_references", _away)
        broom.look(yard.term)
    now[0] += tidy.SWEEP_S
    broom.look(yard.term)
    assert yard.kept() == [5, 6]
    with pytest.raises(ArtifactInvalid, match="missing"):
        yard.store.read(_digest_of(yard, 1))


def _away(*_: Any, **__: Any) -> list[str]:
    raise LakeUnavailable("gone")


def _digest_of(yard: Yard, version: int) -> str:
    with yard.database.read() as conn:
        return versions.get(conn, MODEL, version).artifact
