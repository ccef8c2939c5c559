"""Trainers that fail in earnest: every row of the table of run states that a process, a disk or a lake can cause."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.control import requests
from service.control.controller import Controller
from service.domain.run import RunState
from service.domain.version import VersionState
from service.storage import runs, versions
from service.telemetry import Telemetry
from tests.workshop import Workshop

S = RunState
HUNGRY = """
import mmap
used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
np.ones(1 << 30)
"""
ONLY_ONCE = """
if tries == 1:
    os.kill(os.getpid(), signal.SIGKILL)
"""
LYING_DISK = """
from service.storage.artifacts import ArtifactStore
put = ArtifactStore.put
def lie(store, content):
    sha256 = put(store, content)
    path = store.root / sha256
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return sha256
ArtifactStore.put = lie
"""
STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child()
time.sleep(300)
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a model's code does in the trainer, and what becomes of its first run."""

    event: str
    model: str
    after: RunState
    code: str
    fit: str = "pass"
    build: str = "pass"
    deadline: str = "15m"
    retried: list[str] = field(default_factory=list)
    fits: int | None = None

    def __str__(self) -> str:
        return f"{self.event} -> {self.after.upper()}({self.code})"


ROWS = [
    Row(
        event="the fit raises",
        model="raises",
        fit='raise RuntimeError("no")',
        after=S.FAILED,
        code="train_error",
        fits=1,
    ),
    Row(
        event="build raises", model="unbuilt", build='raise KeyError("no")', after=S.FAILED, code="train_error", fits=0
    ),
    Row(event="the code exits", model="exits", fit="os._exit(5)", after=S.FAILED, code="train_error", fits=1),
    Row(
        event="the code leaves as if well",
        model="leaves",
        fit="sys.exit(0)",
        after=S.FAILED,
        code="train_error",
        fits=1,
    ),
    Row(
        event="killed twice",
        model="killed",
        fit="os.kill(os.getpid(), signal.SIGKILL)",
        after=S.FAILED,
        code="resource",
        retried=["resource"],
        fits=2,
    ),
    Row(
        event="killed once",
        model="unlucky",
        fit=ONLY_ONCE,
        after=S.SUCCEEDED,
        code="promoted",
        retried=["resource"],
        fits=3,  # and the yardstick's second fit
    ),
    Row(
        event="memory runs out",
        model="hungry",
        fit=HUNGRY,
        after=S.FAILED,
        code="resource",
        retried=["resource"],
        fits=2,
    ),
    Row(
        event="past its deadline",
        model="sleeps",
        fit="child(); time.sleep(300)",
        deadline="6s",
        after=S.TIMED_OUT,
        code="deadline",
    ),
    Row(
        event="stopped",
        model="stopped",
        fit="os.kill(os.getpid(), signal.SIGSTOP)",
        after=S.FAILED,
        code="worker_lost",
        retried=["worker_lost"],
        fits=2,
    ),
    Row(
        event="the estimator can't be packed",
        model="unpackable",
        fit="self.lock_ = threading.Lock()",
        after=S.FAILED,
        code="train_error",
        fits=1,
    ),
    Row(event="the disk lies", model="lied", fit=LYING_DISK, after=S.FAILED, code="corrupt", fits=1),
    Row(event="all is well", model="good", after=S.SUCCEEDED, code="promoted", fits=2),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    for row in ROWS:
        workshop.add(row.model, fit=row.fit, build=row.build, deadline=row.deadline)
    controller = Controller(workshop.place(trainers=3), workshop.database, Telemetry())
    controller.start()
    yield workshop
    controller.stop()
    workshop.database.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def soon(holds: Callable[[], bool], *, within_s: float = 15) -> bool:
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if holds():
            return True
        time.sleep(0.02)
    return holds()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_table_in_earnest(workshop: Workshop, row: Row) -> None:
    run = workshop.ended(workshop.first_run(row.model).id, within_s=110)
    assert (run.state, run.code) == (row.after, row.code), run.detail
    assert workshop.codes(run.id) == row.retried
    assert run.attempt == len(row.retried) + 1
    if row.fits is not None:
        assert workshop.fits(row.model) == row.fits
    if row.after is not S.SUCCEEDED:
        assert run.detail
    with workshop.database.read() as conn:
        states = {version.state for version in versions.list_of(conn, row.model)}
    assert states == ({VersionState.CHAMPION} if row.after is S.SUCCEEDED else set())


def test_what_an_estimator_started_dies_with_its_trainer(workshop: Workshop) -> None:
    workshop.ended(workshop.first_run("sleeps").id, within_s=110)
    child = int(workshop.flag("sleeps.child").read_text())
    assert soon(lambda: not is_alive(child))


def test_a_cancelled_trainer_that_does_not_leave_is_killed_with_all_that_it_started(workshop: Workshop) -> None:
    workshop.add("stubborn", fit=STUBBORN)
    run = workshop.first_run("stubborn")
    assert soon(workshop.flag("stubborn.child").exists, within_s=60)
    with workshop.database.write() as conn:
        requests.cancel(conn, run.id, actor="me", reason="enough")
    found = workshop.ended(run.id, within_s=30)
    assert (found.state, found.code) == (S.CANCELLED, "cancelled")
    with workshop.database.read() as conn:
        assert S.CANCELLING in {event.after for event in runs.events(conn, run.id)}
    assert soon(lambda: not is_alive(int(workshop.flag("stubborn.child").read_text())))


def test_a_store_that_cannot_write_is_tried_again_and_then_given_up(workshop: Workshop) -> None:
    workshop.champion("good")
    artifacts = workshop.home / "artifacts"
    artifacts.rename(artifacts.with_suffix(".away"))
    artifacts.write_text("a file is in the way")
    try:
        # Another version than the champion, whose artifact need not be read: only the store is in its way.
        workshop.add("stored")
        found = workshop.ended(workshop.first_run("stored").id)
    finally:
        artifacts.unlink()
        artifacts.with_suffix(".away").rename(artifacts)
    assert (found.state, found.code) == (S.FAILED, "artifact"), found.detail
    assert workshop.codes(found.id) == ["artifact", "artifact"]
    assert workshop.ended(workshop.ask("stored").id).state is S.SUCCEEDED


def test_a_champion_that_cannot_answer_is_no_verdict_on_the_challenger(workshop: Workshop) -> None:
    before = workshop.champion("good")
    workshop.flag("good.champion-broken").touch()
    found = workshop.ended(workshop.ask("good").id)
    workshop.flag("good.champion-broken").unlink()
    assert (found.state, found.code) == (S.FAILED, "eval_error"), found.detail
    assert workshop.codes(found.id) == ["eval_error"]
    with workshop.database.read() as conn:
        states = [version.state for version in versions.list_of(conn, "good")][:2]
    assert states == [VersionState.CANDIDATE, VersionState.REJECTED]
    assert workshop.champion("good") == before


def test_an_artifact_of_the_champion_that_was_altered_judges_nobody(workshop: Workshop) -> None:
    champion = workshop.champion("unlucky")
    with workshop.database.read() as conn:
        artifact = workshop.home / "artifacts" / versions.get(conn, "unlucky", champion.version).artifact
    whole = artifact.read_bytes()
    artifact.chmod(0o644)
    artifact.write_bytes(whole[:-9])
    found = workshop.ended(workshop.ask("unlucky").id)
    artifact.write_bytes(whole)
    assert (found.state, found.code) == (S.FAILED, "eval_error"), found.detail
    assert workshop.codes(found.id) == ["eval_error"]


@pytest.mark.parametrize("returns", [False, True], ids=["and stays away", "and comes back"])
def test_a_run_waits_for_a_lake_that_went_away(workshop: Workshop, returns: bool) -> None:
    workshop.champion("good")
    lake = workshop.home / "lake"
    lake.rename(lake.with_suffix(".away"))
    try:
        run = workshop.ask("good")
        if returns:
            workshop.until(lambda conn: runs.retried(conn, run.id, "data_unavailable"))
            lake.with_suffix(".away").rename(lake)
        found = workshop.ended(run.id)
        assert not (lake / "datasets").exists() or returns  # nothing was begun anew in the lake's place
    finally:
        if not returns:
            lake.with_suffix(".away").rename(lake)
    if returns:
        assert found.state in {S.SUCCEEDED, S.REJECTED}, found.detail
        assert set(workshop.codes(run.id)) == {"data_unavailable"}
    else:
        assert (found.state, found.code) == (S.FAILED, "data_unavailable"), found.detail
        assert workshop.codes(run.id) == ["data_unavailable"] * 3


def test_a_source_that_went_away_is_waited_for(workshop: Workshop) -> None:
    source = workshop.project / "data" / "source.parquet"
    workshop.add("sourceless", fit="sys.exit(0)")
    run = workshop.ended(workshop.first_run("sourceless").id)
    assert run.code == "train_error"
    lake = workshop.home / "lake" / "datasets" / "sourceless"
    lake.rename(lake.with_name("elsewhere"))
    source.rename(source.with_suffix(".away"))
    found = workshop.ended(workshop.ask("sourceless").id)
    source.with_suffix(".away").rename(source)
    assert (found.state, found.code) == (S.FAILED, "data_unavailable"), found.detail
    assert workshop.codes(found.id) == ["data_unavailable"] * 3


def test_no_process_of_a_trainer_is_left(workshop: Workshop) -> None:
    """Runs last: every fit that ever began has ended, however it did."""
    workshop.until(lambda conn: not [run for run in runs.unfinished(conn) if run.active])
    pids = [int(pid) for path in workshop.flag("").glob("*.begun") for pid in path.read_text().split()]
    assert len(pids) > len(ROWS)
    assert soon(lambda: not [pid for pid in pids if is_alive(pid) and os.getpgid(pid) == pid])
