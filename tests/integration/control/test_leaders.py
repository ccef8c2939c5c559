"""One leader among several real controllers: kills, stops, wrong clocks; nothing is done twice and nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, DateTime, func, select, update

from service.control.leader import LEASE, Leader
from service.domain.run import RunState, Trigger
from service.domain.version import VersionState
from service.storage import audit, champions, leases, replicas, runs, tables, versions
from service.storage.columns import Moment
from service.storage.database import Database
from tests.skewed import skewed
from tests.workshop import Workshop

S = RunState
FOLLOWED_S = 15.0
"""The law: so long after a leader's death another one leads."""
LEAVES_S = 10.0
WAITS_FOR_LEAVE = """
while not is_set("go"):
    time.sleep(0.02)
"""


class Controllers:
    """Real controller processes on one home."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.living: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, **environ: str) -> int:
        """Start one; return its process id."""
        settings = {
            "RETRUE_HOME": str(self.workshop.home),
            "RETRUE_MODELS_FOLDER": str(self.workshop.project / "models"),
            "RETRUE_DATABASE_URL": self.workshop.url,
            "RETRUE_TICK_S": "0.1",
            "RETRUE_TRAINING_NICE": "0",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "service.app", "controller"]
        process = subprocess.Popen(command, env={**os.environ, **settings, **environ}, stdin=subprocess.DEVNULL)
        self.living[process.pid] = process
        return process.pid

    def kill(self, pid: int) -> None:
        """Kill one as the kernel would."""
        process = self.living.pop(pid)
        process.kill()
        process.wait(10)

    def leader(self, *, but: int | None = None, within_s: float = 120) -> int:
        """Return who leads, as soon as somebody else than `but` does."""

        def leading(conn: Connection) -> int | None:
            lease = leases.holder(conn, LEASE)
            if lease is None or lease.expires_at <= self.workshop.database.now(conn):
                return None
            pid = int(lease.owner.split(":")[1])
            return pid if pid != but else None

        found: int = self.workshop.until(leading, within_s=within_s)
        return found

    def close(self) -> None:
        """End all of them."""
        for process in self.living.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.living.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@pytest.fixture
def controllers(tmp_path: Path, database_url: str) -> Iterator[Controllers]:
    workshop = Workshop(tmp_path / "shop", url=database_url)
    controllers = Controllers(workshop)
    yield controllers
    controllers.close()
    workshop.database.close()


def begun(workshop: Workshop, model: str, times: int) -> int:
    """Wait for the model's so-manieth fit; return its process."""
    workshop.until(lambda _: workshop.fits(model) >= times)
    return int(workshop.flag(f"{model}.begun").read_text().splitlines()[times - 1])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def tokens_never_fall(database: Database, run_id: str) -> bool:
    with database.read() as conn:
        tokens = [event.token for event in runs.events(conn, run_id) if event.token is not None]
    return tokens == sorted(tokens)


@pytest.mark.timeout(400)
def test_a_killed_leader_is_followed_and_its_run_and_its_promotion_are_done_once(controllers: Controllers) -> None:
    workshop = controllers.workshop
    workshop.add("slow", fit=WAITS_FOR_LEAVE)
    for _ in range(3):
        controllers.start()
    first = controllers.leader()
    run = workshop.first_run("slow")
    trainer = begun(workshop, "slow", 1)

    controllers.kill(first)
    second = controllers.leader(but=first, within_s=FOLLOWED_S)
    begun(workshop, "slow", 2)
    assert not is_alive(trainer)
    with workshop.database.write() as conn:  # a replica that has not answered yet keeps the promotion waiting
        replicas.hello(conn, "r", host="h", pid=1, worker=0)
        conn.execute(update(tables.replicas).values(heartbeat_at=workshop.database.now(conn) + timedelta(hours=1)))
    workshop.flag("slow.go").touch()
    swap = workshop.until(lambda conn: champions.waiting(conn, "slow"))[0]
    assert workshop.get(run.id).state is S.PROMOTING

    controllers.kill(second)
    with workshop.database.write() as conn:
        replicas.answer_swap(conn, "r", swap.id, "slow", ready=True)
    third = controllers.leader(but=second, within_s=FOLLOWED_S)
    ended = workshop.ended(run.id)
    assert (ended.state, ended.attempt) == (S.SUCCEEDED, 2)
    assert workshop.codes(run.id) == ["worker_lost"]
    with workshop.database.read() as conn:
        (committed,) = champions.history(conn, "slow")
        assert (committed.id, committed.generation) == (swap.id, 1)
        assert [one.id for one in runs.list_of(conn, "slow")] == [run.id]
        assert [one.state for one in versions.list_of(conn, "slow")] == [VersionState.CHAMPION]
        assert audit.verify(conn) is None
    assert tokens_never_fall(workshop.database, run.id)
    assert workshop.fits("slow") == 3  # one was killed, one is the version, one its yardstick on half the rows
    assert {first, second}.isdisjoint({third})


@pytest.mark.timeout(400)
def test_a_controller_that_is_told_to_leave_gives_its_run_back_in_time(controllers: Controllers) -> None:
    workshop = controllers.workshop
    workshop.add("slow", fit=f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{WAITS_FOR_LEAVE.strip()}")
    leader = controllers.start()
    run = workshop.first_run("slow")
    trainer = begun(workshop, "slow", 1)
    process = controllers.living.pop(leader)
    process.terminate()
    assert process.wait(LEAVES_S) == 0
    assert not is_alive(trainer)
    found = workshop.get(run.id)
    assert (found.state, found.attempt) == (S.QUEUED, 1)
    with workshop.database.read() as conn:
        lease = leases.holder(conn, LEASE)
        assert lease is not None
        assert lease.expires_at <= workshop.database.now(conn)  # given back: nobody need wait for its end
    controllers.start()
    workshop.flag("slow.go").touch()
    assert workshop.ended(run.id).state is S.SUCCEEDED


STOPPED_INSIDE = """
import os, signal, sys
from service.control.leader import Leader
from service.domain.errors import RetrueError
from service.storage import audit
from service.storage.database import Database
database = Database(sys.argv[1])
leader = Leader(database, owner="stopped")
term = leader.step()
try:
    with term.write() as conn:
        print("inside", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        audit.append(conn, actor="stale", action="x", model=None, subject=None, reason="", at=database.now(conn))
except RetrueError as error:
    print(error.code, flush=True)
try:
    with term.write() as conn:
        audit.append(conn, actor="stale", action="x", model=None, subject=None, reason="", at=database.now(conn))
except RetrueError as error:
    print(error.code, flush=True)
"""


@pytest.mark.timeout(120)
def test_a_leader_that_is_stopped_inside_a_transaction_is_followed_and_writes_nothing_when_it_wakes(
    postgres_url: str,
) -> None:
    """On PostgreSQL: there two hosts may share a database, and locks of a silent one would last for ever."""
    database = Database(postgres_url)
    database.migrate()
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED_INSIDE, postgres_url], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "inside\n"
        other, ends = Leader(database, owner="other"), time.monotonic() + FOLLOWED_S
        while other.step() is None and time.monotonic() < ends:
            time.sleep(0.2)
        assert other.term is not None
        process.send_signal(signal.SIGCONT)
        told, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert told.split() == ["database-unavailable", "lease-lost"]
    with database.read() as conn:
        assert audit.list_of(conn) == []
    database.close()


def every_moment(database: Database) -> dict[str, tuple[datetime, datetime]]:
    """Return the earliest and the latest moment in each column of wall-clock time."""
    event_time = {"after", "learned_until", "window_from", "window_until", "until", "event_time", "decided_event_time"}
    found = {}
    with database.read() as conn:
        for table in tables.metadata.sorted_tables:
            for column in table.columns:
                if isinstance(column.type, Moment | DateTime) and not (
                    column.name in event_time or column.name.endswith("event_time")
                ):
                    low, high = conn.execute(select(func.min(column), func.max(column))).one()
                    if low is not None:
                        found[f"{table.name}.{column.name}"] = (low, high)
    return found


@pytest.mark.timeout(400)
def test_hosts_whose_clocks_are_an_hour_apart_agree(tmp_path: Path, postgres_url: str) -> None:
    """On PostgreSQL: two hosts cannot share a SQLite file, whose clock is that of its host."""
    workshop = Workshop(tmp_path / "shop", url=postgres_url)
    controllers = Controllers(workshop)
    database = workshop.database
    with database.read() as conn:
        began = database.now(conn)
    try:
        clock = [sys.executable, "-c", "import time; print(time.time())"]
        ahead = subprocess.run(
            clock, env={**os.environ, **skewed(tmp_path, 3600)}, capture_output=True, text=True, check=True
        )
        assert 3590 < float(ahead.stdout) - time.time() < 3610  # the clock of such a process is really wrong

        # A queue that is shorter than the clocks are apart: a controller that asked its own clock would let it expire.
        workshop.add("shop", fit='(FLAGS / f"tried{tries}").touch()')
        fast = controllers.start(**skewed(tmp_path, 3600), RETRUE_QUEUE_HOURS="0.5", RETRUE_APPROVAL_DAYS="0.02")
        first = workshop.ended(workshop.first_run("shop").id, within_s=150)
        assert (first.state, first.attempt) == (S.SUCCEEDED, 1)

        # A replica that lives is waited for, whatever the leader's clock says.
        with database.write() as conn:
            replicas.hello(conn, "r", host="h", pid=1, worker=0)
            conn.execute(update(tables.replicas).values(heartbeat_at=database.now(conn) + timedelta(minutes=2)))
        slow = controllers.start(**skewed(tmp_path, -3600), RETRUE_QUEUE_HOURS="0.5")
        controllers.kill(fast)
        assert controllers.leader(but=fast, within_s=FOLLOWED_S) == slow

        # A run that has to wait waits by the database's clock.
        with database.write() as conn:
            at = database.now(conn)
            run = runs.create(conn, "shop", trigger=Trigger.MANUAL, actor="me", reason="now", force=True, at=at)
            pause = at + timedelta(seconds=3)
            conn.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(not_before=pause))
        workshop.until(lambda conn: runs.get(conn, run.id).state is not S.QUEUED)
        with database.read() as conn:
            started = runs.get(conn, run.id).started_at
            newest = [one.id for one in runs.list_of(conn, "shop")]
        assert started is not None
        assert pause <= started < pause + timedelta(seconds=20)
        assert newest == [run.id, first.id]  # by the database's clock, not by that of the host that made the id
        workshop.until(lambda conn: runs.get(conn, run.id).finished_at or champions.waiting(conn, "shop"))
        with database.read() as conn:
            ended = database.now(conn)
    finally:
        controllers.close()
    leeway = timedelta(minutes=3)  # of the replica's heartbeat and of the lease's end, which lie ahead
    wrong = {
        name: found for name, found in every_moment(database).items() if found[0] < began or found[1] > ended + leeway
    }
    assert wrong == {}
    database.close()


TICKING = """
import sys, time
from pathlib import Path
from service.control.tick import Tick
tick = Tick(lambda name, what: None)
tick.add("look", lambda: print(time.time(), flush=True), every_s=0.2)
tick.start()
sys.stdin.read()
tick.stop()
"""


def test_looks_go_on_when_a_hosts_clock_is_set_back_an_hour(tmp_path: Path) -> None:
    skew = tmp_path / "skew"
    skew.write_text("0")
    process = subprocess.Popen(
        [sys.executable, "-c", TICKING],
        env={**os.environ, **skewed(tmp_path, file=skew)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert process.stdout is not None
    try:
        before = float(process.stdout.readline())
        skew.write_text("-3600")
        seen = [float(process.stdout.readline()) for _ in range(20)]
    finally:
        process.kill()
        process.communicate()
    assert seen[-1] < before - 3500
