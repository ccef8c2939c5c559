"""Runs and champions as one state machine on a real SQLite file: whatever happens in whatever order, the laws hold."""

import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, select, update

from service.control import requests
from service.control.leader import Leader, Term
from service.control.probation import Probations, note_comparison
from service.control.promotion import advance
from service.control.record import Record
from service.control.retrain import Retraining, Work
from service.control.setbacks import drop_version, setback_of
from service.domain.errors import (
    ArtifactInvalid,
    Conflict,
    LakeUnavailable,
    LeaseLost,
    NotAllowedNow,
    RetrueError,
)
from service.domain.probation import Comparison, ProbationState
from service.domain.run import ACTIVE, TERMINAL, WORKING, RunState, may_follow
from service.domain.version import VersionState
from service.storage import audit, champions, checks, models, probations, replicas, runs, tables, versions
from service.storage.database import Database
from service.storage.runs import Run
from tests.migrated import migrated
from tests.unit.control.conftest import AT, MODEL, a_version, spec_json
from tests.unit.control.fakes import FakeProcesses
from tests.unit.control.test_monitor import FakeLake

S = RunState
DAY = timedelta(days=1)
STEPS = {S.PREPARING: S.VALIDATING, S.VALIDATING: S.TRAINING, S.TRAINING: S.PACKAGING, S.PACKAGING: S.EVALUATING}
ERRORS = [LakeUnavailable("away"), RuntimeError("no"), OSError(28, "full"), ArtifactInvalid("altered")]

picks = st.integers(0, 99)
outcomes = st.sampled_from(["pass", "pass", "pass", "fail", "inconclusive"])


class Machines(RuleBasedStateMachine):
    """What an operator, a leader, its trainers, replicas and the data can do to one model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="retrue-machines-"))
        self.database: Database = migrated(self.folder / "retrue.db")
        self.event_time = AT
        self.leaders = 0
        self.stale: list[tuple[Term, Retraining]] = []
        self.ended: dict[str, RunState] = {}
        self.quarantined: set[int] = set()
        self.generation = 0
        self.working: RunState | None = None
        self.open_runs = self.open_swaps = 0
        self.is_busy = self.can_go_back = False

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(
        serves=st.sampled_from([True, True, True, False]),
        approval=st.sampled_from([False, False, True]),
        watched=st.sampled_from([True, True, False]),
    )
    def begin(self, serves: bool, approval: bool, watched: bool) -> None:
        spec = spec_json()
        spec["policies"]["gate"]["approval"] = approval
        if not watched:
            spec["policies"]["probation"]["duration"] = None
        with self.database.write() as conn:
            models.register(conn, MODEL, spec_json=spec, file="models/shop.py", at=AT)
            if serves:
                versions.insert(conn, a_version(1))
                champions.swap(
                    conn, MODEL, version=1, expected_generation=0, actor="controller", reason="first", kind="promote",
                    run_id=None, event_time=AT, at=AT,
                )  # fmt: skip
                self.generation = 1
        self.lead()

    # -- the leader and its trainers

    def lead(self) -> None:
        self.leaders += 1
        with self.database.write() as conn:
            conn.execute(update(tables.leases).values(expires_at=AT))
        term = Leader(self.database, owner=f"leader {self.leaders}").step()
        assert term is not None
        self.term, self.processes, lake = term, FakeProcesses(), FakeLake()
        lake.mark = self.event_time
        work = Work(
            database="", lake="", artifacts="", project=Path(), trainers=1, queue=timedelta(hours=1),
            first_pause=timedelta(microseconds=1),
        )  # fmt: skip
        self.lake, self.retraining = lake, Retraining(work, self.processes, lake, ended=lambda _run: None)
        self.probations = Probations(counted=lambda _model, _what: None)
        self.retraining.recover(self.term)

    @precondition(lambda self: self.open_runs and len(self.stale) < 4)
    @rule(is_killed=st.booleans())
    def another_one_leads(self, is_killed: bool) -> None:
        if not is_killed:
            self.retraining.release(self.term)
        self.stale.append((self.term, self.retraining))
        self.lead()

    @rule(times=st.integers(1, 3))
    def leader_looks(self, times: int) -> None:
        for _ in range(times):
            self.retraining.look(self.term, self.known())
            with self.database.read() as conn:
                waiting = champions.waiting(conn)
            for swap in waiting:
                advance(self.term, swap)
            self.probations.look(self.term, self.known())

    def known(self) -> dict[str, Any]:
        with self.database.read() as conn:
            return {row.name: row for row in models.list_all(conn)}

    def at_work(self) -> Run | None:
        with self.database.read() as conn:
            return next((run for run in runs.unfinished(conn) if run.state in WORKING), None)

    def record(self, run: Run, term: Term | None = None) -> Record:
        token = (term or self.term).token
        return Record(self.database, run.id, token=token, first_pause=timedelta(microseconds=1))

    @rule(until=st.sampled_from([*STEPS.values(), None, None, None, None]), outcome=outcomes)
    def work_goes_on(self, until: RunState | None, outcome: str) -> None:
        """Let the run under way come as far as that, or be judged; one is asked for where there is none."""
        if not self.is_busy:
            self.person_asks_for_a_run(force=True, coalesce=False, key=None)
        self.retraining.look(self.term, self.known())
        run = self.at_work()
        while run is not None and run.state is not until and run.state in STEPS:
            self.step(self.record(run), run)
            run = self.at_work()
        if until is None and run is not None:
            self.judge(run, outcome)

    @rule(ready=st.sampled_from([True, True, False]))
    def a_challenger_goes_all_the_way(self, ready: bool) -> None:
        """Let a run be made, pass, and be agreed on or refused: what takes a walk at random too long to meet."""
        self.work_goes_on(until=None, outcome="pass")
        self.leader_looks(times=1)
        self.replicas_answer(ready=ready)
        self.leader_looks(times=1)

    def step(self, record: Record, run: Run) -> None:
        def write(conn: Any) -> Run:
            after = STEPS[run.state]
            if after is not S.EVALUATING:
                return record.move(conn, after, "a step")
            champion = champions.current(conn, MODEL)
            parent = None if champion is None else champion.version
            number = versions.next_number(conn, MODEL)
            row = a_version(number, parent=parent, run_id=run.id, state=VersionState.CANDIDATE)
            versions.insert(conn, row)
            return record.move(conn, after, "packaged", version=number)

        record.write(write, is_done=lambda _run: False)

    def judge(self, run: Run, outcome: str) -> None:
        assert run.version is not None
        record, version = self.record(run), run.version

        def write(conn: Any) -> Run:
            if outcome == "fail":
                versions.set_state(conn, MODEL, version, VersionState.REJECTED)
                return record.move(conn, S.REJECTED, "worse", code="gate_fail")
            if outcome == "inconclusive":
                return record.move(conn, S.AWAITING_LABELS, "too few", code="gate_inconclusive")
            versions.set_state(conn, MODEL, version, VersionState.APPROVED)
            for other in runs.unfinished(conn):
                if other.id != run.id and other.state is S.AWAITING_APPROVAL:
                    drop_version(conn, other)
                    record.supersede(conn, other)
            row = models.get(conn, MODEL)
            held = {"freeze", "pin", "hold"} & models.switches(conn, MODEL).keys()
            if held or (row.spec or {})["policies"]["gate"]["approval"]:
                return record.move(conn, S.AWAITING_APPROVAL, "ask", code="held" if held else "approval")
            return record.move(conn, S.PROMOTING, "passed", code="gate_pass")

        record.write(write, is_done=lambda _run: False)

    @precondition(lambda self: self.working is not None)
    @rule(error=st.sampled_from(ERRORS))
    def trainer_meets_an_error(self, error: Exception) -> None:
        run = self.at_work()
        if run is None:
            return
        setback = setback_of(error, run.state)
        assert setback is not None
        record = self.record(run)
        record.write(lambda conn: record.set_back(conn, setback, str(error)), is_done=lambda _run: False)

    @precondition(lambda self: self.working is not None)
    @rule(exit_code=st.sampled_from([0, 1, -9, -15, 71, 72, 75, 137]))
    def trainer_ends(self, exit_code: int) -> None:
        for job in self.processes.of_kind("train"):
            job.exit_code = exit_code

    @precondition(lambda self: self.stale)
    @rule(pick=picks)
    def stale_leader_and_its_trainers_go_on(self, pick: int) -> None:
        """Let whoever lost the lease try all that it knows: it writes nothing."""
        term, retraining = self.stale[pick % len(self.stale)]
        before = self.everything()
        run = self.at_work()
        attempts: list[Any] = [
            lambda: retraining.recover(term),
            lambda: retraining.release(term),
            lambda: retraining.look(term, self.known()),
            lambda: Probations(counted=lambda _model, _what: None).look(term, self.known()),
        ]
        if run is not None:
            attempts.append(lambda: self.record(run, term).progress(step="fit", done=1, of=2, words="stale"))
            if run.state in STEPS:
                attempts.append(lambda: self.step(self.record(run, term), run))
        with self.database.read() as conn:
            waiting = champions.waiting(conn)
        attempts += [lambda swap=swap: advance(term, swap) for swap in waiting]
        for attempt in attempts:
            with suppress(LeaseLost):
                attempt()
        assert self.everything() == before

    def everything(self) -> dict[str, list[Any]]:
        with self.database.read() as conn:
            return {
                table.name: sorted(map(repr, conn.execute(select(table)).all()))
                for table in tables.metadata.sorted_tables
            }

    # -- people

    @rule(force=st.booleans(), coalesce=st.booleans(), key=st.sampled_from([None, "a", "b"]))
    def person_asks_for_a_run(self, force: bool, coalesce: bool, key: str | None) -> None:
        with self.database.read() as conn:
            active = runs.active(conn, MODEL)
            earlier = {
                run.idempotency_key: run.id for run in runs.list_of(conn, MODEL, limit=1000) if run.idempotency_key
            }
        try:
            with self.database.write() as conn:
                run = requests.ask(
                    conn, MODEL, actor="ada", reason="now", force=force, coalesce=coalesce,
                    idempotency_key=key, request_digest="the same" if key else None,
                )  # fmt: skip
        except NotAllowedNow:
            return
        except Conflict:
            assert active is not None
            assert not coalesce or active.state is S.CANCELLING
            return
        if key in earlier:
            assert run.id == earlier[key]

    @precondition(lambda self: self.open_runs)
    @rule(verb=st.sampled_from(["cancel", "approve", "approve", "reject"]), pick=picks)
    def person_decides(self, verb: str, pick: int) -> None:
        with self.database.read() as conn:
            found = runs.unfinished(conn) or runs.list_of(conn, MODEL, limit=3)
        if not found:
            return
        run = found[pick % len(found)]
        try:
            with self.database.write() as conn:
                if verb == "cancel":
                    requests.cancel(conn, run.id, actor="ada", reason="no")
                elif verb == "approve":
                    requests.approve(conn, run.id, seen=runs.revision(conn, run.id), actor="ada", reason="yes")
                else:
                    requests.reject(conn, run.id, seen=None, actor="ada", reason="no")
        except Conflict:
            return

    @rule(pick=picks)
    def person_promotes(self, pick: int) -> None:
        with self.database.read() as conn:
            known, current = versions.list_of(conn, MODEL), champions.current(conn, MODEL)
        usable = [row for row in known if row.state not in {VersionState.QUARANTINED, VersionState.CHAMPION}]
        if not usable:
            return
        version = usable[pick % len(usable)].version
        try:
            with self.database.write() as conn:
                champions.request_swap(
                    conn, MODEL, version=version, expected_generation=current.generation if current else 0,
                    actor="ada", reason="mine", kind="promote", run_id=None, event_time=None,
                    at=self.database.now(conn),
                )  # fmt: skip
        except Conflict:
            return

    @precondition(lambda self: self.can_go_back)
    @rule()
    def person_rolls_back(self) -> None:
        with self.database.write() as conn:
            current, kept = champions.current(conn, MODEL), probations.rollback_targets(conn, MODEL)
            if current is None or not kept:
                return
            at = self.database.now(conn)
            champions.swap(
                conn, MODEL, version=kept[0], expected_generation=current.generation, actor="ada", reason="worse",
                kind="rollback", run_id=None, event_time=self.event_time, at=at,
            )  # fmt: skip
            probations.give_way(
                conn, MODEL, is_rollback=True, actor="ada", reason="worse", at=at, event_time=self.event_time
            )
            models.set_switch(conn, MODEL, "hold", value=True, actor="ada", reason="rolled back", at=at)

    @rule(name=st.sampled_from([None, None, "pause", "freeze", "pin", "hold", "hold"]))
    def person_switches(self, name: str | None) -> None:
        """Set one switch, or clear them all."""
        with self.database.write() as conn:
            if name is not None:
                models.set_switch(conn, MODEL, name, value=True, actor="ada", reason="r", at=self.database.now(conn))
            else:
                for one in models.switches(conn, MODEL):
                    models.clear_switch(conn, MODEL, one)

    # -- replicas and data

    @precondition(lambda self: self.open_swaps)
    @rule(name=st.sampled_from(["r1", "r2"]), leaves=st.booleans())
    def replica_comes_or_goes(self, name: str, leaves: bool) -> None:
        with self.database.write() as conn:
            if leaves:
                replicas.goodbye(conn, name)
            else:
                replicas.hello(conn, name, host="h", pid=1, worker=0)
                ahead = self.database.now(conn) + DAY  # it lives for as long as the test takes
                conn.execute(update(tables.replicas).where(tables.replicas.c.id == name).values(heartbeat_at=ahead))

    @precondition(lambda self: self.open_swaps)
    @rule(ready=st.sampled_from([True, True, True, False]))
    def replicas_answer(self, ready: bool) -> None:
        with self.database.write() as conn:
            for swap in champions.waiting(conn, MODEL):
                for one in replicas.live(conn, 6.0):
                    words = None if ready else "golden row 3 differs"
                    replicas.answer_swap(conn, one.id, swap.id, MODEL, ready=ready, error=words)

    @rule(days=st.sampled_from([1, 3, 8, 60]), worse=st.booleans(), new_labels=st.sampled_from([5, 500]))
    def window_is_checked(self, days: int, worse: bool, new_labels: int) -> None:
        self.event_time += days * DAY
        self.lake.mark = self.event_time
        comparison = Comparison(
            rows=500, distance=0.1, labelled=500, loss=0.9 if worse else 0.2, previous_loss=0.2,
            low=0.5 if worse else -0.1, high=0.9 if worse else 0.1,
        )  # fmt: skip
        with self.database.write() as conn:
            champion, at = champions.current(conn, MODEL), self.database.now(conn)
            generation = champion.generation if champion else None
            check = checks.create(conn, MODEL, actor="schedule", at=at, window_until=self.event_time)
            conn.execute(update(tables.checks).where(tables.checks.c.id == check.id).values(generation=generation))
            saw: Any = SimpleNamespace(comparison=comparison)
            note_comparison(conn, replace(check, generation=generation), saw)
            checks.finish(conn, check.id, at=at, token=self.term.token, situation={"new_labels": new_labels})

    # -- the laws

    @invariant()
    def the_laws_hold(self) -> None:
        with self.database.read() as conn:
            listed = runs.list_of(conn, MODEL, limit=1000)
            self.runs_are_what_their_events_say(conn, listed)
            current = self.champion_is_one_and_each_change_is_one_generation(conn)
            self.open_probation_is_the_champions(conn, current)
            waiting = champions.waiting(conn, MODEL)
            states = [runs.get(conn, swap.run_id).state for swap in waiting if swap.run_id is not None]
            self.can_go_back = bool(probations.rollback_targets(conn, MODEL))
            assert audit.verify(conn) is None
        assert len(waiting) <= 1
        assert states in ([], [S.PROMOTING])  # a swap waits for a run that promotes, or for a person
        assert sum(run.active for run in listed) <= 1
        assert all(run.active == (run.state in ACTIVE) for run in listed)
        now = {run.id: run.state for run in listed}
        assert {run_id: now[run_id] for run_id in self.ended} == self.ended
        self.ended = {run_id: state for run_id, state in now.items() if state in TERMINAL}
        self.open_swaps, self.open_runs = len(waiting), len(now) - len(self.ended)
        self.is_busy = any(run.active for run in listed)
        self.working = next((state for state in now.values() if state in WORKING), None)

    def runs_are_what_their_events_say(self, conn: Connection, listed: list[Run]) -> None:
        for run in listed:
            events = runs.events(conn, run.id)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert [event.before for event in events] == [None, *(event.after for event in events[:-1])]
            assert events[-1].after is run.state
            assert all(may_follow(event.before, event.after) for event in events if event.before is not None)
            tokens = [event.token for event in events if event.token is not None]
            assert tokens == sorted(tokens)
            assert [event.at for event in events] == sorted(event.at for event in events)

    def champion_is_one_and_each_change_is_one_generation(self, conn: Connection) -> champions.Champion | None:
        current, history = champions.current(conn, MODEL), champions.history(conn, MODEL)
        states = {row.version: row.state for row in versions.list_of(conn, MODEL)}
        newest = current.generation if current else 0
        assert [swap.generation for swap in history] == list(range(newest, 0, -1))
        assert all(swap.expected_generation == (swap.generation or 0) - 1 for swap in history)
        answering = [version for version, state in states.items() if state is VersionState.CHAMPION]
        assert answering == ([current.version] if current else [])
        for swap in history[: newest - self.generation]:
            assert swap.actor != "controller" or swap.version not in self.quarantined
        self.generation = newest
        self.quarantined = {version for version, state in states.items() if state is VersionState.QUARANTINED}
        return current

    def open_probation_is_the_champions(self, conn: Connection, current: champions.Champion | None) -> None:
        watching = [row for row in probations.list_of(conn, MODEL) if row.state is ProbationState.WATCHING]
        assert len(watching) <= 1
        on_probation = {run.id for run in runs.unfinished(conn) if run.state is S.PROBATION}
        for row in watching:
            assert current is not None
            assert (row.generation, row.version) == (current.generation, current.version)
        assert on_probation == {row.run_id for row in watching if row.run_id is not None}


def test_whatever_happens_to_runs_and_champions_their_laws_hold() -> None:
    run_state_machine_as_test(
        Machines,
        settings=settings(
            max_examples=12,
            stateful_step_count=40,
            deadline=None,
            phases=[Phase.reuse, Phase.generate],  # a walk that breaks a law is told whole: to shrink it takes minutes
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_refused_request_leaves_nothing(tmp_path: Path) -> None:
    """The errors that the machine passes over are refusals: what raised them was rolled back whole."""
    database = migrated(tmp_path / "retrue.db")
    with database.write() as conn:
        models.register(conn, MODEL, spec_json=spec_json(), file="models/shop.py", at=AT)
        run = requests.ask(conn, MODEL, actor="ada", reason="now")
    for verb in (requests.approve, requests.reject):
        try:
            with database.write() as conn:
                audit.append(conn, actor="x", action="x", model=None, subject=None, reason="", at=AT)
                verb(conn, run.id, seen=None, actor="ada", reason="no")
        except RetrueError:
            pass
    with database.read() as conn:
        assert [row.action for row in audit.list_of(conn)] == ["run_asked"]
    database.close()
