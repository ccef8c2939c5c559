"""The twelve acceptance tests: each is a defect that such services were found to have, and the law that rules it out.

The numbers are those of the list that they come from. They run in this order on one real service: HTTP, spool,
committer, Delta lake, two controllers, trainers in their own processes.
"""

import ast
import asyncio
import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.control.processes import Surroundings
from service.domain.errors import ArtifactInvalid
from service.domain.run import TERMINAL, RunState, Trigger
from service.domain.version import VersionState
from service.serving.bundle import load as load_bundle
from service.storage import audit, champions, checks, models, runs, versions
from service.storage.artifacts import ArtifactStore
from service.storage.lake import Lake
from tests.acceptance import NICE, House
from tests.integration.serving.test_swaps_under_load import Load, Served, answered, served, written
from tests.looped import WEEK

__all__ = ["served"]

ROOT = Path(__file__).parents[2]
SWAPS = 1000


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    running = House(tmp_path_factory.mktemp("house"))
    yield running
    running.close()


def test_01_a_retrain_on_unchanged_data_is_a_recorded_no_op(house: House) -> None:
    """Elsewhere each retrain learned the same seeded rows again and called the twin an improvement."""
    before = house.state()
    run = house.ended(house.ask_run(force=False))
    assert (run.state, run.code) == (RunState.SKIPPED, "no_new_data")
    assert run.version is None
    with house.database.read() as conn:
        events = runs.events(conn, run.id)
        assert [version.version for version in versions.list_of(conn, "shop")] == [1]
    assert events[-1].after is RunState.SKIPPED
    assert events[-1].reason
    assert house.state() == before


def test_02_a_rejected_challenger_leaves_champion_reference_and_drift_state_byte_identical(house: House) -> None:
    """Elsewhere training wrote over the reference before the gate, so that a rejected model silenced the detector."""
    for _ in range(2):
        house.live(house.next_week())
    before = house.state()
    with house.told("worse"):
        run = house.ended(house.ask_run())
    assert (run.state, run.code) == (RunState.REJECTED, "gate_fail")
    with house.database.read() as conn:
        assert versions.get(conn, "shop", run.version or 0).state is VersionState.REJECTED
    assert house.state() == before


def test_03_a_window_holds_the_newest_rows(house: House) -> None:
    """Elsewhere a limit on ascending rows froze the window on the first thousand for ever."""
    check = house.live(house.next_week())
    assert len(house.given) > 1000
    newest = [one for one in house.given if one.at > house.now - WEEK]
    assert (check.window_until, check.rows) == (house.now, len(newest))
    held = Lake(house.home / "lake").newest_rows("shop", 500)
    assert set(held["id"].to_pylist()) == {one.id for one in house.given[-500:]}
    times = held["event_time"].to_pylist()
    assert times == sorted(times)
    assert times[-1].astimezone(UTC) == house.given[-1].at


def test_04_each_logged_version_is_the_object_that_answered_through_a_thousand_swaps(served: Served) -> None:
    """Elsewhere the version was read again after predicting, so that a swap in between mislabelled the log."""
    load = Load(swaps=SWAPS, per_swap=1, callers=4)
    asyncio.run(load.play(served))
    assert load.failures == []
    told = answered(load, served.bundles)
    assert written(served.home, served.bundles) == told
    assert len({generation for _, generation, _ in told.values()}) > SWAPS * 0.9


def test_05_an_error_of_registry_or_database_in_the_gate_is_no_promotion(house: House) -> None:
    """Elsewhere an outage of the registry made the champion's error infinite, and anything was promoted against it."""
    for _ in range(2):
        house.live(house.next_week())  # the world has turned round: a challenger would pass
    pointer = house.pointer()
    with house.database.write() as conn:
        conn.exec_driver_sql(
            "CREATE TRIGGER broken BEFORE UPDATE ON versions WHEN NEW.state = 'approved' "
            "BEGIN SELECT RAISE(ABORT, 'the disk is gone'); END"
        )
    run = house.ended(house.ask_run())
    assert run.state is RunState.FAILED, run
    with house.database.write() as conn:
        conn.exec_driver_sql("DROP TRIGGER broken")
        artifact = house.home / "artifacts" / versions.get(conn, "shop", pointer.version).artifact
    bytes_before = artifact.read_bytes()
    artifact.write_bytes(bytes_before[:-1] + b"?")
    second = house.ended(house.ask_run())
    artifact.write_bytes(bytes_before)
    assert second.state is RunState.FAILED, second
    assert house.pointer() == pointer
    with house.database.read() as conn:
        assert champions.waiting(conn) == []
        assert len(champions.history(conn, "shop")) == 1
        states = {row.state for row in versions.list_of(conn, "shop") if row.version > 1}
    assert states <= {VersionState.REJECTED, VersionState.CANDIDATE}
    assert {one.version for one in house.answer(house.week(house.now).tail(3))} == {pointer.version}


def test_06_a_restart_keeps_champion_cooldowns_pause_pins_and_the_run_under_way(house: House) -> None:
    """Elsewhere all of that lived in memory: a deploy forgot the cooldown and what an operator had forbidden."""
    for switch in ("pause", "pin"):
        assert house.client.put(f"/v1/models/shop/{switch}", json={"reason": "maintenance"}).status_code < 300
    pointer = house.pointer()
    with house.database.read() as conn:
        switches = models.switches(conn, "shop")
    with house.told("hold"):
        run_id = house.ask_run()
        house.run_is(run_id, RunState.TRAINING)
        house.close_api()
        house.open_api()
        shown = house.client.get("/v1/models/shop").json()
        assert (shown["champion"]["version"], shown["champion"]["generation"]) == (pointer.version, pointer.generation)
        assert shown["last_run"]["id"] == run_id
        with house.database.read() as conn:
            assert runs.get(conn, run_id).state is RunState.TRAINING
        house.stop_controllers()
        house.start_controllers()
    run = house.ended(run_id)
    assert (run.state, run.code) == (RunState.AWAITING_APPROVAL, "held")  # it passed, and the pin was not forgotten
    assert house.pointer() == pointer
    with house.database.read() as conn:
        assert models.switches(conn, "shop") == switches
    assert (house.live(house.next_week()).decision or {})["code"] == "paused"
    assert house.client.delete("/v1/models/shop/pause").status_code < 300
    assert (house.live(house.next_week()).decision or {})["code"] == "cooldown"
    # The pin holds the run on; it has grown stale meanwhile, and is judged again on what has come.
    house.until(lambda conn: (now := runs.get(conn, run_id)).until == house.now and now.code == "held")


def test_07_two_schedulers_and_many_operators_at_once_make_one_run(house: House) -> None:
    """Elsewhere a cron job and a control loop trained side by side, and the later one won."""
    with house.database.read() as conn:
        first = [run for run in runs.list_of(conn, "shop") if run.trigger is Trigger.INITIAL]
    assert len(first) == 1, "two controllers looked at a model without a version"
    with house.told("hold"):
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda _: house.client.post("/v1/models/shop/runs", json={"force": True}), range(16))
            )
        statuses = [answer.status_code for answer in answers]
        assert sorted(statuses) == [httpx.codes.ACCEPTED] + [httpx.codes.CONFLICT] * 15
        made = next(answer.json()["id"] for answer in answers if answer.status_code == httpx.codes.ACCEPTED)
        assert {answer.json()["run"] for answer in answers if answer.status_code == httpx.codes.CONFLICT} == {made}
        house.run_is(made, RunState.TRAINING)
        assert house.client.post(f"/v1/runs/{made}/cancel", json={"reason": "enough"}).status_code < 300
        assert house.ended(made).state is RunState.CANCELLED


def test_08_a_controller_that_is_killed_while_it_promotes_is_followed_by_one_that_promotes_once(house: House) -> None:
    """Elsewhere a promotion was three writes: a crash between them left a version that nobody had asked for."""
    generation = house.pointer().generation
    with house.database.read() as conn:  # it passed, and is held by the pin
        run_id = next(run.id for run in runs.list_of(conn, "shop") if run.state is RunState.AWAITING_APPROVAL)
    house.stop_controllers()
    doomed = house.doomed_controller(RunState.PROMOTING)
    try:
        assert house.client.delete("/v1/models/shop/pin").status_code < 300
        assert doomed.wait(60) == -9
        with house.database.read() as conn:
            assert runs.get(conn, run_id).state is RunState.PROMOTING
    finally:
        doomed.kill()
        doomed.wait()
        house.start_controllers()
    run = house.ended(run_id)
    assert run.state is RunState.SUCCEEDED, run
    pointer = house.pointer()
    assert (pointer.version, pointer.generation) == (run.version, generation + 1)
    with house.database.read() as conn:
        promoted = [entry for entry in audit.list_of(conn, "shop") if entry.action == "champion_promote"]
    assert len(promoted) == generation + 1


WORKED_ON = [RunState.PREPARING, RunState.VALIDATING, RunState.TRAINING, RunState.PACKAGING, RunState.EVALUATING]


@pytest.mark.parametrize("state", WORKED_ON)
def test_08_a_trainer_that_is_killed_is_tried_once_more_from_the_start(house: House, state: RunState) -> None:
    """Elsewhere a run whose process died stood in "training" for ever."""
    pointer = house.pointer()
    house.kill_trainer_at(state)
    with house.told("worse"):
        run = house.ended(house.ask_run())
    assert (run.state, run.attempt) == (RunState.REJECTED, 2)
    with house.database.read() as conn:
        states = [event.after for event in runs.events(conn, run.id)]
        listed = versions.list_of(conn, "shop")
    assert states[: states.index(RunState.QUEUED, 1) + 1] == [
        RunState.QUEUED,
        *WORKED_ON[: WORKED_ON.index(state) + 1],
        RunState.QUEUED,
    ]
    assert house.pointer() == pointer
    assert {row.state for row in listed if row.run_id == run.id} == {VersionState.REJECTED}


def test_08_a_trainer_that_is_killed_twice_fails_its_run_for_good(house: House) -> None:
    """Elsewhere a job that ran out of memory was started again and again."""
    pointer = house.pointer()
    house.kill_trainer_at(RunState.TRAINING, RunState.TRAINING)
    run = house.ended(house.ask_run())
    assert (run.state, run.code, run.attempt) == (RunState.FAILED, "resource", 2)
    assert house.pointer() == pointer


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_09_nothing_unpickles_bytes_that_a_client_sent(house: House, tmp_path: Path) -> None:
    """Elsewhere one unauthenticated POST with a model in its body ran whatever code that body named."""
    mark = tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(mark))
    in_json = json.dumps({"instances": [{"x": base64.b64encode(bomb).decode(), "z": "!!python/object"}]}).encode()
    asked = 0
    for path, operations in house.client.get("/openapi.json").json()["paths"].items():
        address = path.replace("{model}", "shop").replace("{run_id}", "1").replace("{switch}", "hold")
        for method in {"post", "put"} & operations.keys():
            for body in (bomb, in_json):
                for kind in ("application/octet-stream", "application/json", "application/python-pickle"):
                    answer = house.client.request(
                        method.upper(), address, content=body, headers={"content-type": kind, "if-match": '"1"'}
                    )
                    assert 400 <= answer.status_code < 500, (method, address, kind, answer.text)
                    asked += 1
    assert asked >= 60
    # What somebody put into the store itself is refused by its digest, before anything looks inside.
    store = ArtifactStore(house.home / "artifacts")
    with house.database.read() as conn:
        row = versions.get(conn, "shop", house.pointer().version)
    digests = (row.artifact, (row.manifest.get("compiled") or {}).get("artifact"))
    files = [house.home / "artifacts" / digest for digest in digests if digest]
    sound = [file.read_bytes() for file in files]
    for file in files:
        file.write_bytes(bomb)
    try:
        with pytest.raises(ArtifactInvalid):
            load_bundle(store, row, generation=99)
    finally:
        for file, content in zip(files, sound, strict=True):
            file.write_bytes(content)
    assert not mark.exists()
    with pytest.raises(FileNotFoundError):
        mark.stat()
    pickle.loads(bomb)  # noqa: S301  the bomb is a real one
    assert mark.exists()


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("x", lambda x: x * 1e9, "scale"),
        ("x", lambda x: x + 1e6, None),
        ("z", lambda z: z * np.nan, "all_null"),
    ],
    ids=["a unit of its own", "far outside the reference", "null"],
)
def test_10_extreme_and_empty_features_are_drift_or_broken_data_and_never_silence(
    house: House, column: str, values: Any, found: str | None
) -> None:
    """Elsewhere a histogram dropped what lay beyond its edges, and nulls were dropped before every test."""
    rows = house.next_week()
    check = house.live(rows.assign(**{column: values(rows[column])}))
    seen = check.examination or {}
    if found is None:
        assert check.verdict == "drifted"
        moved = next(one for one in seen["columns"] if one["column"] == column)
        assert moved["drifted"] is True
        assert moved["statistic"] > 100
    else:
        assert check.verdict == "quarantined"
        assert [(finding["check"], finding["column"]) for finding in seen["findings"]] == [(found, column)]
    told = f'retrue_check_verdict{{model="shop",verdict="{check.verdict}"}} 1.0'
    # State metrics are read from the database at most once a second.
    house.until(lambda _: told in house.client.get("/metrics").text, within_s=10)


def test_11_training_runs_in_another_process_niced_and_capped_while_answers_go_on(house: House) -> None:
    """Elsewhere training ran in a thread of the server and stood in every percentile; figures are for the benches."""
    (house.project / "trainer.json").unlink(missing_ok=True)
    with house.told("hold"):
        run_id = house.ask_run()
        house.run_is(run_id, RunState.TRAINING)
        house.until(lambda _: (house.project / "trainer.json").exists())
        told = json.loads((house.project / "trainer.json").read_text())
        assert len(house.answer(house.week(house.now).tail(5))) == 5
        with house.database.read() as conn:
            assert runs.get(conn, run_id).state is RunState.TRAINING
    house.ended(run_id)
    assert told["pid"] != os.getpid()
    assert told["nice"] == os.nice(0) + NICE
    assert told["caps"] == {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    assert (Surroundings().nice, Surroundings().threads) == (19, 1)
    words = "import sys, service.api.application, service.serving.worker; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = set(ast.literal_eval(done.stdout))
    assert "service.serving.worker" in imported
    learners = {"service.control.trainer", "service.learning.train", "evidently", "apscheduler", "deltalake", "sklearn"}
    assert not imported & learners


def test_12_late_labels_change_the_realised_metric_of_the_right_window_and_version(house: House) -> None:
    """Elsewhere "realised" was a static file that was scored again; no label ever met the answer that it was for."""
    version = house.pointer().version
    new = house.answer(house.next_week())
    house.label(new[: len(new) // 2])
    house.settle()
    first = realised(house.checked(house.now))
    assert (first["labelled"], first["value"]) == house.accuracy(version)

    house.label(new[len(new) // 2 :], after=WEEK / 2, is_wrong=True)  # they come in the week after, and are bad news
    second = realised(house.live(house.next_week(), is_labelled=False))
    assert (second["labelled"], second["value"]) == house.accuracy(version)
    assert second["labelled"] == len(new)
    assert second["value"] < first["value"] - 0.2

    before, rows = house.pointer(), house.next_week()
    assert before.previous_version is not None
    theirs = house.answer(rows.iloc[: len(rows) // 2])
    assert house.client.post("/v1/models/shop/rollback", json={"reason": "bad news"}).status_code < 300
    house.until(lambda _: house.answer(rows.head(1))[0].version == before.previous_version)
    mine = house.answer(rows.iloc[len(rows) // 2 :])
    house.label([one for one in mine if one.at + timedelta(hours=1) <= house.now])
    house.label(theirs, is_wrong=True)  # of the same window, for another version's answers
    house.label(new, after=2 * WEEK)  # corrections of what came wrong
    house.settle()
    third = house.checked(house.now)
    assert third.version == before.previous_version
    assert (realised(third)["labelled"], realised(third)["value"]) == house.accuracy(before.previous_version)


def realised(check: checks.Check) -> dict[str, Any]:
    found: dict[str, Any] = (check.examination or {})["performance"]
    return found


def test_the_house_is_sound_after_all_of_it(house: House) -> None:
    """No generation was skipped, no run was left behind, and every answer is in the lake once, with its version."""
    house.settle()
    with house.database.read() as conn:
        generations = sorted(swap.generation or 0 for swap in champions.history(conn, "shop"))
        left = [run for run in runs.list_of(conn, "shop") if run.state not in TERMINAL and run.active]
    assert generations == list(range(1, len(generations) + 1))
    assert left == []
    table = Lake(house.home / "lake").read_window("shop", after=None, until=None, columns=["version"])
    recorded = dict(zip(table["id"].to_pylist(), table["version"].to_pylist(), strict=True))
    assert len(recorded) == table.num_rows
    assert recorded == {one.id: one.version for one in house.given}
    assert timedelta(0) < house.now - house.given[0].at
