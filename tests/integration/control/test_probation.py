"""Champions on probation, on both databases: begun, kept, prolonged and taken back, each in one transaction."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, update

from service.control.leader import Leader, Term
from service.control.probation import Probations
from service.control.promotion import advance, propose, resume
from service.control.rollback import roll_back
from service.control.settling import Settling
from service.control.tasks import Seen
from service.control.verdict import Judged, conclude
from service.domain.check import Examination, Performance, Verdict
from service.domain.errors import LeaseLost
from service.domain.policy import Probation, Retrain
from service.domain.probation import Comparison, ProbationState
from service.domain.run import RunState, Trigger
from service.domain.version import VersionState
from service.storage import audit, champions, checks, models, probations, replicas, runs, tables, versions
from service.storage.champions import Champion
from service.storage.database import Database
from service.storage.probations import ProbationRow
from service.storage.runs import Run
from tests.unit.control.conftest import AT, MODEL, a_version, spec_json

S = RunState
DAY = timedelta(days=1)
ALIKE = Comparison(rows=300, distance=0.1, labelled=300, loss=0.2, previous_loss=0.2, low=-0.01, high=0.01)
WORSE = Comparison(rows=300, distance=0.1, labelled=300, loss=0.5, previous_loss=0.2, low=0.2, high=0.4)
NOTHING = Comparison(rows=300, distance=0.1)


class Bench:
    """The controller's parts around one model, with the checks and the replicas played by the test."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.counts: Counter[str] = Counter()
        self.engine = Probations(counted=lambda model, outcome: self.counts.update({f"{model}:{outcome}": 1}))
        self.term = self.lead()
        self.day = 0.0

    def lead(self) -> Term:
        term = Leader(self.database).step()
        assert term is not None
        return term

    def version(self, number: int, **overrides: Any) -> int:
        with self.term.write() as conn:
            versions.insert(conn, a_version(number, **overrides))
        return number

    def promoted(self, number: int, *, by_hand: bool = False, **swap: Any) -> Run | None:
        """Promote a new version by the road: agreed on, committed; return its run."""
        run = None if by_hand else self.promoting(number)
        if by_hand:
            self.version(number)
            with self.term.write() as conn:
                before = champions.current(conn, MODEL)
                champions.request_swap(
                    conn, MODEL, version=number, expected_generation=before.generation if before else 0, actor="me",
                    reason="better", kind="promote", run_id=None, event_time=None, at=self.database.now(conn),
                )  # fmt: skip
        elif run is not None:
            propose(self.term, run)
        assert self.advance(**swap) == "committed"
        return None if run is None else self.run(run)

    def promoting(self, number: int) -> Run:
        current = self.champion_or_none()
        with self.term.write() as conn:
            at = self.database.now(conn)
            run = runs.create(
                conn, MODEL, trigger=Trigger.PERFORMANCE, actor="controller", reason="r", at=at, until=self.now()
            )
            parent = None if current is None else current.version
            if versions.find(conn, MODEL, number) is None:
                versions.insert(conn, a_version(number, parent=parent, run_id=run.id))
            for state in (S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING):
                runs.transition(conn, run.id, state, actor="t", reason="t", at=at, token=self.term.token)
            return runs.transition(
                conn, run.id, S.PROMOTING, actor="t", reason="t", at=at, token=self.term.token, version=number,
                code="gate_pass", decided_event_time=self.now(),
            )  # fmt: skip

    def advance(self, **swap: Any) -> str | None:
        with self.database.read() as conn:
            (waiting,) = champions.waiting(conn)
        return advance(self.term, waiting, **swap)

    def now(self) -> datetime:
        return AT + self.day * DAY

    def check(self, comparison: Comparison | None, *, days: float = 1, loss: float | None = None) -> Judged:
        """Let so many days of event time pass, make a check, and look."""
        self.day += days
        champion = self.champion()
        performance = None
        if loss is not None:
            performance = Performance(
                metric="accuracy", value=None, loss=loss, reference_loss=0.2, rows=100, labelled=100, delay_p50_s=1.0
            )
        saw = Seen(
            examination=Examination(verdict=Verdict.CLEAN, reason="as told", rows=100, performance=performance),
            window_from=self.now() - DAY,
            new_labels=1000,
            lake_version=1,
            seconds=0.1,
            comparison=comparison,
        )
        with self.term.write() as conn:
            at = self.database.now(conn)
            check = checks.create(
                conn, MODEL, actor="schedule", at=at, window_until=self.now(), version=champion.version,
                generation=champion.generation,
            )  # fmt: skip
            judged = conclude(conn, check.id, saw, models.get(conn, MODEL), at=at, token=self.term.token)
        self.look()
        return judged

    def look(self) -> None:
        with self.database.read() as conn:
            known = {row.name: row for row in models.list_all(conn)}
        self.engine.look(self.term, known)

    def replica(self, name: str, *, generation: int | None = None, health: dict[str, Any] | None = None) -> None:
        with self.term.write() as conn:
            replicas.hello(conn, name, host="h", pid=1, worker=0)
            current = champions.current(conn, MODEL)
            held = generation if generation is not None else (current.generation if current else 0)
            replicas.report(conn, name, MODEL, 1, held)
            held_rows = tables.replica_models.c.replica_id == name
            conn.execute(update(tables.replica_models).where(held_rows).values(health=health))

    def switch(self, name: str) -> None:
        with self.term.write() as conn:
            models.set_switch(conn, MODEL, name, value=True, actor="me", reason="r", at=self.database.now(conn))

    def release(self, name: str) -> None:
        with self.term.write() as conn:
            models.clear_switch(conn, MODEL, name)

    def champion_or_none(self) -> Champion | None:
        with self.database.read() as conn:
            return champions.current(conn, MODEL)

    def champion(self) -> Champion:
        found = self.champion_or_none()
        assert found is not None
        return found

    def row(self, generation: int) -> ProbationRow:
        with self.database.read() as conn:
            found = probations.find(conn, MODEL, generation)
        assert found is not None
        return found

    def run(self, run: Run | None) -> Run:
        assert run is not None
        with self.database.read() as conn:
            return runs.get(conn, run.id)

    def state(self, number: int) -> VersionState:
        with self.database.read() as conn:
            return versions.get(conn, MODEL, number).state

    def actions(self) -> list[str]:
        with self.database.read() as conn:
            assert audit.verify(conn) is None
            return [row.action for row in audit.list_of(conn)]


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    database = Database(database_url)
    database.migrate()
    policies = {
        "probation": Probation(duration="7d", min_rows=100, extensions=2),
        "retrain": Retrain(cooldown="7d", retry="1d"),
    }
    with database.write() as conn:
        models.register(conn, MODEL, spec_json=spec_json(**policies), file="models/shop.py", at=AT)
    yield Bench(database)
    database.close()


def test_the_first_version_of_a_model_has_nothing_to_go_back_to_and_succeeds_at_once(bench: Bench) -> None:
    run = bench.promoted(1)
    assert bench.run(run).state is S.SUCCEEDED
    with bench.database.read() as conn:
        assert probations.list_of(conn, MODEL) == []


def test_the_commit_puts_the_new_champion_and_its_run_on_probation(bench: Bench) -> None:
    bench.promoted(1)
    run = bench.promoted(2)
    assert bench.run(run).state is S.PROBATION
    row = bench.row(2)
    assert (row.state, row.version, row.previous_version) == (ProbationState.WATCHING, 2, 1)
    assert (row.run_id, row.began_event_time) == (bench.run(run).id, AT)
    assert bench.actions()[:2] == ["probation_began", "champion_promote"]


def test_a_model_without_a_probation_policy_keeps_its_champions_at_once(bench: Bench) -> None:
    spec = spec_json(probation=Probation(duration=None))
    with bench.term.write() as conn:
        models.register(conn, MODEL, spec_json=spec, file="models/shop.py", at=AT)
    bench.promoted(1)
    assert bench.run(bench.promoted(2)).state is S.SUCCEEDED
    with bench.database.read() as conn:
        assert probations.rollback_targets(conn, MODEL) == [1]


def test_a_promotion_by_hand_is_watched_from_where_the_data_stand(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2, by_hand=True, watermark=lambda _: AT + 3 * DAY)
    assert (bench.row(2).run_id, bench.row(2).began_event_time) == (None, AT + 3 * DAY)
    with bench.database.read() as conn:
        assert champions.history(conn, MODEL)[0].event_time == AT + 3 * DAY  # cooldowns count from it, too
    bench.check(ALIKE, days=9)
    assert bench.row(2).state is ProbationState.WATCHING
    bench.promoted(3, by_hand=True)  # no lake to ask: the newest check's window
    assert bench.row(3).began_event_time == AT + 9 * DAY


def test_a_promotion_that_no_event_time_is_known_of_is_watched_from_the_first_check_on(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2, by_hand=True)
    assert bench.row(2).began_event_time is None
    bench.check(ALIKE, days=2)
    assert bench.row(2).began_event_time == AT + 2 * DAY
    bench.check(ALIKE, days=6.9)
    assert bench.row(2).state is ProbationState.WATCHING
    bench.check(ALIKE, days=0.1)
    assert bench.row(2).state is ProbationState.KEPT


def test_a_champion_that_does_well_is_kept_and_its_run_has_succeeded(bench: Bench) -> None:
    bench.promoted(1)
    run = bench.promoted(2)
    bench.check(ALIKE, days=6)
    assert bench.run(run).state is S.PROBATION
    bench.check(ALIKE)
    row, ended = bench.row(2), bench.run(run)
    assert (row.state, row.code, row.ended_event_time) == (ProbationState.KEPT, "clean", AT + 7 * DAY)
    assert (ended.state, ended.code, ended.detail) == (S.SUCCEEDED, "clean", row.reason)
    assert ended.decided_event_time == AT  # cooldowns count from the promotion, as ever
    assert row.evidence is not None
    assert row.evidence["comparison"]["loss"] == 0.2
    assert bench.champion().generation == 2
    assert bench.actions()[0] == "probation_kept"
    assert bench.counts == {f"{MODEL}:kept": 1}


def test_too_few_labels_prolong_it_and_in_the_end_it_is_kept_unproven(bench: Bench) -> None:
    bench.promoted(1)
    run = bench.promoted(2)
    for week in (1, 2):
        bench.check(NOTHING, days=7)
        assert (bench.row(2).state, bench.row(2).extended) == (ProbationState.WATCHING, week)
    bench.check(NOTHING, days=7)
    assert (bench.row(2).state, bench.row(2).code) == (ProbationState.KEPT, "unproven")
    assert (bench.run(run).state, bench.run(run).code) == (S.SUCCEEDED, "unproven")
    assert bench.counts == {f"{MODEL}:extended": 2, f"{MODEL}:unproven": 1}


def test_a_champion_that_disappoints_is_taken_back_in_one_transaction(bench: Bench) -> None:
    bench.promoted(1)
    run = bench.promoted(2)
    bench.check(WORSE, days=3)
    champion, row, ended = bench.champion(), bench.row(2), bench.run(run)
    assert (champion.version, champion.generation, champion.previous_version) == (1, 3, 2)
    assert (bench.state(1), bench.state(2)) == (VersionState.CHAMPION, VersionState.QUARANTINED)
    assert (row.state, row.code) == (ProbationState.ROLLED_BACK, "performance")
    assert (ended.state, ended.code, ended.decided_event_time) == (S.ROLLED_BACK, "performance", AT + 3 * DAY)
    with bench.database.read() as conn:
        swap = champions.history(conn, MODEL)[0]
    assert (swap.kind, swap.run_id, swap.event_time) == ("rollback", ended.id, AT + 3 * DAY)
    assert bench.actions()[:2] == ["probation_rolled_back", "champion_rollback"]
    assert bench.counts == {f"{MODEL}:rolled_back": 1}
    bench.look()
    assert bench.champion().generation == 3


def test_nothing_is_taken_back_where_any_part_of_it_cannot_be_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.promoted(1)
    run = bench.promoted(2)

    def torn(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(probations, "end_run", torn)
        with pytest.raises(RuntimeError):
            bench.check(WORSE)
    assert bench.champion().generation == 2
    assert (bench.state(2), bench.row(2).state) == (VersionState.CHAMPION, ProbationState.WATCHING)
    assert bench.run(run).state is S.PROBATION
    bench.look()
    assert bench.champion().version == 1


def test_a_leader_that_lost_its_lease_takes_nothing_back(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2)
    bench.replica("a", health={"2": {"answered": 0, "failed": 500}})
    with bench.database.write() as conn:
        conn.execute(update(tables.leases).values(expires_at=AT))
    newer = bench.lead()
    with pytest.raises(LeaseLost):
        bench.look()
    assert (bench.champion().generation, bench.row(2).state) == (2, ProbationState.WATCHING)
    bench.term = newer
    bench.look()
    assert bench.champion().generation == 3


def test_a_rollback_by_hand_ends_the_probation_with_its_run_and_holds_automation(bench: Bench) -> None:
    bench.promoted(1)
    run = bench.promoted(2)
    with bench.database.write() as conn:
        back = roll_back(conn, MODEL, to=None, actor="me", reason="odd")
    assert (back.version, back.generation) == (1, 3)
    assert (bench.row(2).state, bench.row(2).code) == (ProbationState.ENDED, "rolled_back_by_person")
    assert (bench.run(run).state, bench.state(2)) == (S.ROLLED_BACK, VersionState.QUARANTINED)
    with bench.database.read() as conn:
        assert "hold" in models.switches(conn, MODEL)
    bench.look()
    assert bench.champion().generation == 3


def test_a_breach_that_a_person_answers_at_the_same_moment_is_answered_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.promoted(1)
    bench.promoted(2)
    bench.check(ALIKE, days=7)
    bench.promoted(3)
    row = bench.row(3)
    bench.replica("a", health={"3": {"answered": 0, "failed": 500}})
    with bench.database.read() as conn:
        known = models.get(conn, MODEL)
    look = bench.database.now

    def meanwhile(conn: Connection) -> datetime:
        """Between the engine's look and its step a person takes the champion back."""
        monkeypatch.setattr(bench.database, "now", look)
        with bench.database.write() as another:
            roll_back(another, MODEL, to=None, actor="me", reason="odd")
        return look(conn)

    monkeypatch.setattr(bench.database, "now", meanwhile)
    bench.engine._look(bench.term, row, known)
    assert (bench.champion().version, bench.champion().generation) == (2, 4)
    assert bench.row(3).code == "rolled_back_by_person"
    assert bench.counts == {f"{MODEL}:kept": 1}


def test_a_run_that_only_the_failing_champion_called_for_ends_with_it(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2)
    judged = bench.check(WORSE, days=8, loss=0.9)
    assert judged.check.run_id is not None
    with bench.database.read() as conn:
        assert runs.get(conn, judged.check.run_id).state is S.SUPERSEDED
        assert runs.active(conn, MODEL) is None


def test_errors_are_summed_over_the_live_replicas(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2)
    good = {"answered": 400, "failed": 0, "batches": 10, "seconds": 0.1}
    bench.replica("dead", health={"2": {"answered": 0, "failed": 900}})
    with bench.term.write() as conn:
        conn.execute(update(tables.replicas).values(heartbeat_at=AT))
    bench.replica("a", health={"1": good, "2": good})
    bench.replica("b", health={"1": good, "2": good | {"failed": 8}})
    bench.look()
    assert bench.champion().version == 2  # 8 of 808 rows
    bench.replica("b", health={"1": good, "2": good | {"failed": 9}})
    bench.look()
    assert bench.champion().version == 1
    assert bench.row(2).code == "errors"
    assert "9 of 809" in (bench.row(2).reason or "")


def test_the_generation_before_is_measured_by_its_fullest_count_when_replicas_restart(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2)
    fast = {"answered": 900, "failed": 0, "batches": 900, "seconds": 0.9}
    bench.replica("a", health={"1": fast, "2": fast})
    bench.look()
    bench.replica("a", health={"2": fast})  # restarted: it has never held generation 1
    bench.look()
    assert bench.champion().version == 2
    bench.replica("a", health={"2": fast | {"seconds": 18.0}})
    bench.look()
    assert (bench.champion().version, bench.row(2).code) == (1, "latency")


def test_it_goes_back_to_the_last_version_that_was_kept_and_compares_with_it(bench: Bench) -> None:
    bench.promoted(1)
    run = bench.promoted(2)
    bench.promoted(3, by_hand=True)  # before version 2 had proved itself
    assert (bench.row(2).state, bench.row(2).code) == (ProbationState.ENDED, "superseded")
    assert bench.run(run).state is S.SUPERSEDED
    assert bench.state(2) is VersionState.RETIRED
    assert bench.row(3).previous_version == 1
    bench.check(WORSE)
    assert bench.champion().version == 1


def test_a_version_that_cannot_answer_any_more_is_passed_over(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2)
    bench.check(ALIKE, days=7)
    bench.promoted(3)
    with bench.term.write() as conn:
        versions.set_state(conn, MODEL, 2, VersionState.ARCHIVED)
    bench.check(WORSE)
    assert bench.champion().version == 1


def test_without_any_version_to_go_back_to_it_serves_on_and_says_so(bench: Bench) -> None:
    bench.promoted(1)
    run = bench.promoted(2)
    with bench.term.write() as conn:
        versions.set_state(conn, MODEL, 1, VersionState.QUARANTINED)
    bench.check(WORSE)
    assert (bench.champion().version, bench.state(2)) == (2, VersionState.CHAMPION)
    assert (bench.row(2).state, bench.row(2).code) == (ProbationState.ENDED, "no_target")
    assert bench.run(run).state is S.SUCCEEDED
    assert bench.run(run).code == "no_target"
    assert bench.actions()[0] == "probation_ended"
    assert bench.counts == {f"{MODEL}:no_target": 1}


def test_a_pinned_champion_stays_and_the_breach_is_told_once(bench: Bench) -> None:
    bench.promoted(1)
    run = bench.promoted(2)
    bench.switch("pin")
    bench.check(WORSE)
    for _ in range(3):
        bench.look()
    assert (bench.champion().version, bench.run(run).state) == (2, S.PROBATION)
    assert bench.row(2).code == "performance"
    assert bench.actions().count("probation_breach_pinned") == 1
    assert bench.counts == {f"{MODEL}:pinned": 1}
    bench.release("pin")
    bench.look()
    assert bench.champion().version == 1


def test_a_breach_that_has_passed_is_forgotten_under_a_pin(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2)
    bench.switch("pin")
    bench.check(ALIKE)
    bench.check(WORSE)
    assert bench.row(2).code == "performance"
    bench.check(ALIKE)
    assert bench.row(2).code is None
    bench.release("pin")
    bench.look()
    assert bench.champion().version == 2


@pytest.mark.parametrize("name", ["freeze", "hold", "pause"])
def test_switches_that_stop_promotions_do_not_keep_a_broken_champion(bench: Bench, name: str) -> None:
    bench.promoted(1)
    bench.promoted(2)
    bench.switch(name)
    bench.check(WORSE)
    assert bench.champion().version == 1


def test_an_open_probation_keeps_the_next_automatic_promotion_waiting_and_no_longer(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2)
    waiting = bench.promoting(3)
    for _ in range(2):
        propose(bench.term, bench.run(waiting))
    with bench.database.read() as conn:
        assert champions.waiting(conn) == []
    assert bench.run(waiting).state is S.PROMOTING
    assert "probation of version 2" in (bench.run(waiting).progress or {})["words"]
    bench.check(ALIKE, days=7)
    propose(bench.term, bench.run(waiting))
    assert bench.advance() == "committed"
    assert (bench.champion().version, bench.run(waiting).state) == (3, S.PROBATION)


def test_a_challenger_of_a_champion_that_was_taken_back_is_judged_again(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2)
    waiting = bench.promoting(3)
    propose(bench.term, waiting)
    bench.check(WORSE)
    propose(bench.term, bench.run(waiting))
    found = bench.run(waiting)
    assert (found.state, found.attempt) == (S.QUEUED, 2)
    assert bench.champion().version == 1


def test_a_challenger_that_a_person_approved_does_not_wait(bench: Bench) -> None:
    bench.promoted(1)
    first = bench.promoted(2)
    approved = bench.promoting(3)
    with bench.term.write() as conn:
        conn.execute(update(tables.runs).where(tables.runs.c.id == approved.id).values(code="approval"))
    propose(bench.term, bench.run(approved))
    assert bench.advance() == "committed"
    assert bench.run(first).state is S.SUPERSEDED
    assert bench.row(3).state is ProbationState.WATCHING


def test_a_challenger_that_was_promoted_by_hand_meanwhile_stays_champion(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2)
    waiting = bench.promoting(3)
    propose(bench.term, waiting)
    with bench.term.write() as conn:
        champions.request_swap(
            conn, MODEL, version=3, expected_generation=2, actor="me", reason="now", kind="promote", run_id=None,
            event_time=None, at=AT,
        )  # fmt: skip
    assert bench.advance() == "committed"
    with bench.term.write() as conn:
        row = probations.open_of(conn, MODEL)
        assert row is not None
        probations.end(
            conn, row, ProbationState.KEPT, run_state=S.SUCCEEDED, code="clean", reason="r", actor="t", at=AT,
            event_time=None,
        )  # fmt: skip
    propose(bench.term, bench.run(waiting))
    assert (bench.run(waiting).state, bench.run(waiting).code) == (S.SUCCEEDED, "promoted_by_person")
    assert bench.state(3) is VersionState.CHAMPION


@pytest.mark.parametrize(
    ("comparison", "after"),
    [(None, S.PROBATION), (ALIKE, S.SUCCEEDED), (WORSE, S.ROLLED_BACK)],
    ids=["watched", "kept", "taken back"],
)
def test_a_run_whose_leader_died_after_the_commit_goes_where_its_probation_went(
    bench: Bench, comparison: Comparison | None, after: RunState
) -> None:
    bench.promoted(1)
    run = bench.run(bench.promoted(2))
    with bench.term.write() as conn:
        # As it would stand, had the commit been written without its bookkeeping.
        conn.execute(update(tables.runs).where(tables.runs.c.id == run.id).values(state="promoting", active=True))
    if comparison is not None:
        bench.check(comparison, days=7)
    generation = bench.champion().generation
    for _ in range(2):
        if bench.run(run).state is S.PROMOTING:
            propose(bench.term, bench.run(run))
    assert bench.run(run).state is after
    assert bench.champion().generation == generation


def test_a_commit_without_any_bookkeeping_still_begins_the_probation(bench: Bench) -> None:
    bench.promoted(1)
    run = bench.promoting(2)
    with bench.term.write() as conn:
        champions.swap(
            conn, MODEL, version=2, expected_generation=1, actor="controller", reason="r", kind="promote",
            run_id=run.id, event_time=AT, at=AT,
        )  # fmt: skip
    propose(bench.term, run)
    assert bench.run(run).state is S.PROBATION
    assert bench.row(2).run_id == run.id


def test_a_probation_whose_champion_is_gone_ends_by_itself(bench: Bench) -> None:
    bench.promoted(1)
    run = bench.promoted(2)
    with bench.term.write() as conn:
        champions.swap(
            conn, MODEL, version=1, expected_generation=2, actor="x", reason="r", kind="rollback", run_id=None,
            event_time=None, at=AT,
        )  # fmt: skip
    bench.look()
    assert bench.row(2).state is ProbationState.ENDED
    assert bench.run(run).state is S.SUPERSEDED


def test_a_check_of_an_earlier_champion_says_nothing_of_this_one(bench: Bench) -> None:
    bench.promoted(1)
    with bench.term.write() as conn:
        check = checks.create(conn, MODEL, actor="schedule", at=AT, window_until=AT + DAY, version=1, generation=1)
    bench.promoted(2)
    saw = Seen(
        examination=Examination(verdict=Verdict.CLEAN, reason="as told", rows=100),
        window_from=AT,
        new_labels=0,
        lake_version=1,
        seconds=0.1,
        comparison=WORSE,
    )
    with bench.term.write() as conn:
        conclude(conn, check.id, saw, models.get(conn, MODEL), at=AT, token=bench.term.token)
    bench.look()
    assert bench.champion().version == 2
    assert (bench.row(2).evidence or {}).get("event_time") is None


def test_after_a_rollback_the_next_automatic_run_waits_twice_the_cooldown(bench: Bench) -> None:
    bench.promoted(1)
    bench.promoted(2)
    bench.check(WORSE, days=3)
    early = bench.check(None, days=13.9, loss=0.9)
    assert (early.decision.code, early.check.run_id) == ("cooldown", None)
    assert "rollback" in early.decision.reason
    assert (early.check.situation or {})["rolled_back_at"] is not None
    assert bench.check(None, days=0.1, loss=0.9).check.run_id is not None


def test_a_held_run_goes_on_when_the_switch_is_cleared_and_its_champion_is_still_there(bench: Bench) -> None:
    bench.promoted(1)
    bench.switch("hold")
    held = bench.promoting(2)
    propose(bench.term, held)
    assert (bench.run(held).state, bench.run(held).code) == (S.AWAITING_APPROVAL, "held")
    resume(bench.term, bench.run(held))
    assert bench.run(held).state is S.AWAITING_APPROVAL
    bench.release("hold")
    resume(bench.term, bench.run(held))
    propose(bench.term, bench.run(held))
    assert bench.advance() == "committed"
    assert bench.champion().version == 2


def test_a_swap_has_settled_when_the_last_live_replica_serves_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.promoted(1)
    for name in ("a", "b"):
        bench.replica(name, generation=1)
    run = bench.promoting(2)
    propose(bench.term, run)
    with bench.term.write() as conn:
        (waiting,) = champions.waiting(conn)
        for name in ("a", "b"):
            replicas.answer_swap(conn, name, waiting.id, MODEL, ready=True)
    assert bench.advance() == "committed"
    mixed: list[float] = []
    late: list[str] = []
    settling = Settling(settled=lambda _, seconds: mixed.append(seconds), late=late.append)
    with bench.term.write() as conn:
        replicas.report(conn, "a", MODEL, 2, 2)
    settling.look(bench.term, {})
    assert (mixed, late) == ([], [])
    monkeypatch.setattr("service.control.settling.LATE_S", (0.0, 120.0))
    for _ in range(2):
        settling.look(bench.term, {})
    assert late == [MODEL]
    assert "swap_degraded" in caplog.text
    with bench.term.write() as conn:
        replicas.report(conn, "b", MODEL, 2, 2)
        bound = bench.database.now(conn) + timedelta(seconds=1.5)
        conn.execute(update(tables.replica_models).values(bound_at=bound))
    settling.look(bench.term, {})
    settling.look(bench.term, {})
    with bench.database.read() as conn:
        swap = champions.history(conn, MODEL)[0]
    assert swap.settled_at == bound
    assert swap.ended_at is not None
    assert mixed == [(bound - swap.ended_at).total_seconds()]
    assert mixed[0] >= 1.5


def test_a_replica_that_came_later_is_no_part_of_the_mixed_window(bench: Bench) -> None:
    bench.promoted(1)
    bench.replica("a", generation=1)
    bench.version(2)
    with bench.term.write() as conn:
        began = bench.database.now(conn)
        champions.swap(
            conn, MODEL, version=2, expected_generation=1, actor="x", reason="r", kind="promote",
            run_id=None, event_time=None, at=began,
        )  # fmt: skip
        replicas.report(conn, "a", MODEL, 2, 2)
        conn.execute(update(tables.replica_models).values(bound_at=began + timedelta(seconds=0.2)))
    bench.replica("late", generation=2)
    with bench.term.write() as conn:
        later = tables.replica_models.c.replica_id == "late"
        conn.execute(update(tables.replica_models).where(later).values(bound_at=began + timedelta(seconds=90)))
    mixed: list[float] = []
    Settling(settled=lambda _, seconds: mixed.append(round(seconds, 3)), late=lambda _: None).look(bench.term, {})
    assert mixed == [0.2]
