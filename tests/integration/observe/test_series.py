"""The figures that the database holds: as many after 200 versions as after two, and right about what they tell."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from service.api.metrics import Sample, samples
from service.control.leader import LEASE
from service.domain.run import RunState, Trigger
from service.storage import checks, leases, models, runs
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from tests.served import AT, PRICE, crown, pack, price, register

MINUTE = timedelta(minutes=1)


def opened(url: str, folder: Path) -> tuple[Database, Any]:
    """Return a database with one model, and version 1 of it, packed."""
    database = Database(url)
    database.migrate()
    register(database, PRICE)
    return database, pack(ArtifactStore(folder / "artifacts"), PRICE, price(0))


def told(database: Database) -> dict[tuple[str, tuple[str, ...]], float]:
    with database.read() as conn:
        found: list[Sample] = list(samples(conn))
    assert max(Counter((name, labels) for name, labels, _ in found).values()) == 1
    return {(name, labels): value for name, labels, value in found}


def shape(found: dict[tuple[str, tuple[str, ...]], float]) -> set[tuple[str, ...]]:
    """Return the series, but for the numbers of the versions on the one info gauge."""
    return {(name, labels[0], labels[2]) if name == "model_info" else (name, *labels) for name, labels in found}


def test_the_number_of_series_is_the_same_after_200_versions(database_url: str, tmp_path: Path) -> None:
    database, first = opened(database_url, tmp_path)
    for number in (1, 2, 3):
        crown(database, replace(first, version=number), kind="rollback" if number == 3 else "promote")
    before = told(database)
    for number in range(4, 201):
        crown(database, replace(first, version=number))
        if number % 20 == 0:
            finished_run(database, RunState.FAILED)
    after = told(database)
    new = shape(after) - shape(before)
    assert {name for name, *_ in new} <= {"run_state_seconds"}  # of the first run that ended: a closed set too
    assert len(after) - len(before) == len(new)
    assert after["champion_changes", ("price", "promote")] == 199
    assert after["model_info", ("price", "200", "champion")] == 1
    database.close()


def finished_run(database: Database, *states: RunState) -> str:
    """Let a run go through queued, preparing and these states, a minute each; return its id."""
    with database.write() as conn:
        at = database.now(conn)
        run = runs.create(conn, "price", trigger=Trigger.MANUAL, actor="test", reason="test", at=at)
        for state in (RunState.PREPARING, *states):
            at += MINUTE
            runs.transition(conn, run.id, state, actor="test", reason="test", at=at)
    return run.id


def test_runs_that_break_are_counted_until_one_comes_to_a_verdict(database_url: str, tmp_path: Path) -> None:
    database, _ = opened(database_url, tmp_path)
    assert told(database)["run_broken_in_a_row", ("price",)] == 0
    finished_run(database, RunState.FAILED)
    finished_run(database, RunState.SKIPPED)
    finished_run(database, RunState.FAILED)
    now = told(database)
    assert now["run_broken_in_a_row", ("price",)] == 2
    assert now["run_state_seconds", ("price", "preparing")] == 60
    work = (RunState.VALIDATING, RunState.TRAINING, RunState.PACKAGING, RunState.EVALUATING)
    finished_run(database, *work, RunState.REJECTED)
    assert told(database)["run_broken_in_a_row", ("price",)] == 0
    database.close()


def test_a_run_that_waits_tells_since_when(database_url: str, tmp_path: Path) -> None:
    database, _ = opened(database_url, tmp_path)
    with database.read() as conn:
        began = database.now(conn)
    finished_run(database, RunState.VALIDATING, RunState.AWAITING_LABELS)
    found = told(database)
    waits = {labels: value for (name, labels), value in found.items() if name.startswith("run_waiting")}
    since = waits.pop(("price", "awaiting_labels"))
    assert waits == {}
    assert 180 <= since - began.timestamp() < 240  # three minutes after its request
    assert found["runs", ("price", "awaiting_labels")] == 1
    database.close()


def test_switches_verdicts_and_states_have_a_sample_each_whether_they_hold_or_not(
    database_url: str, tmp_path: Path
) -> None:
    database, first = opened(database_url, tmp_path)
    crown(database, first)
    with database.write() as conn:
        models.set_switch(conn, "price", "quarantine", value=True, actor="test", reason="test", at=AT)
    found = told(database)
    switches = {labels[1]: value for (name, labels), value in found.items() if name == "switch"}
    assert switches == {"pause": 0, "freeze": 0, "pin": 0, "hold": 0, "quarantine": 1, "breaker": 0}
    assert {labels[1] for name, labels in found if name == "runs"} == {state.value for state in RunState}
    assert found["champion_changes", ("price", "rollback")] == 0
    assert found["model_max_age_seconds", ("price",)] == 42 * 86400
    assert found["check_every_seconds", ("price",)] == 7 * 86400
    database.close()


def test_checks_that_fail_are_counted_until_one_has_a_verdict(database_url: str, tmp_path: Path) -> None:
    database, _ = opened(database_url, tmp_path)
    for turn in range(3):
        with database.write() as conn:
            at = database.now(conn) + turn * MINUTE
            check = checks.create(conn, "price", actor="test", at=at)
            if turn == 0:
                checks.finish(conn, check.id, at=at, verdict="clean", rows=100, window_until=AT)
            else:
                checks.fail(conn, check.id, error="test", at=at)
    assert told(database)["check_failures", ("price",)] == 2
    assert told(database)["check_window_timestamp_seconds", ("price",)] == AT.timestamp()
    database.close()


def test_without_a_leader_it_tells_since_when(database_url: str, tmp_path: Path) -> None:
    database, _ = opened(database_url, tmp_path)
    assert ("leaderless_seconds", ()) not in told(database)  # nobody has ever led
    with database.write() as conn:
        lease = leases.acquire(conn, LEASE, "somebody", 60.0)
    assert told(database)["leaderless_seconds", ()] == 0
    with database.write() as conn:
        assert lease is not None
        leases.renew(conn, lease, -30.0)
    assert 30 <= told(database)["leaderless_seconds", ()] < 90
    database.close()
