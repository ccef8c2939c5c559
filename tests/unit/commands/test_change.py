"""Verbs that change: what they ask for, how they wait for it, and what they say when it is refused or interrupted."""

from collections.abc import Iterator

import httpx
import pytest

from service.domain.check import CheckState
from service.domain.run import RunState
from service.storage import champions, checks, models, runs
from service.storage.database import now
from tests.commanded import Command, Wire
from tests.served import AT, FLIP, crown, flip, pack
from tests.unit.api.conftest import Api
from tests.unit.api.test_control import actions, move

S = RunState
TO_THE_GATE = (S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING)


def step_by_step(api: Api, wire: Wire, *states: RunState) -> None:
    """Move the newest run one state on each time that it is looked at."""
    left: Iterator[RunState] = iter(states)

    def before(request: httpx.Request) -> None:
        parts = request.url.path.split("/")
        if request.method == "GET" and parts[2] == "runs" and len(parts) == 4 and (state := next(left, None)):
            move(api, parts[3], state)

    wire.before = before


def interrupt(wire: Wire, *, path: str) -> None:
    def before(request: httpx.Request) -> None:
        if request.method == "GET" and path in request.url.path:
            raise KeyboardInterrupt

    wire.before = before


def test_a_retrain_is_asked_for_with_its_reason(api: Api, retrue: Command) -> None:
    ran = retrue("retrain", "flip", "--reason", "new tariff", "--force")
    run = api.client.get("/v1/runs").json()["runs"][0]
    assert (run["reason"], run["force"], run["state"]) == ("new tariff", True, "queued")
    assert ran.out == f"run {run['id']} is queued; follow it with `retrue runs {run['id']} --watch`\n"


def test_a_run_in_the_way_is_exit_1_and_named_and_can_be_joined(retrue: Command) -> None:
    first = retrue("retrain", "flip", "--json").json["id"]
    refused = retrue("retrain", "flip")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert f"`retrue runs {first}`" in refused.err
    assert retrue("retrain", "flip", "--join", "--json").json["id"] == first


@pytest.mark.parametrize(
    ("last", "code"),
    [(S.REJECTED, 4), (S.AWAITING_APPROVAL, 4), (S.PROMOTING, 0), (S.FAILED, 4), (S.AWAITING_LABELS, 4)],
)
def test_waiting_for_a_run_ends_with_0_if_it_promotes_and_4_if_not(
    last: RunState, code: int, api: Api, wire: Wire, retrue: Command
) -> None:
    further = (S.SUCCEEDED,) if last is S.PROMOTING else ()
    step_by_step(api, wire, *TO_THE_GATE, last, *further)
    ran = retrue("retrain", "flip", "--wait")
    assert ran.code == code
    told = [line.split()[2] for line in ran.out.splitlines()]
    assert told == [state.value for state in (*TO_THE_GATE, last, *further)]


def test_waiting_with_json_prints_the_run_as_it_ended_and_nothing_else(api: Api, wire: Wire, retrue: Command) -> None:
    step_by_step(api, wire, S.PREPARING, S.SKIPPED)
    ran = retrue("retrain", "flip", "--wait", "--json")
    assert (ran.code, ran.json["state"], ran.err) == (0, "skipped", "")


def test_a_wait_that_takes_too_long_ends_with_4_and_the_run_goes_on(api: Api, retrue: Command) -> None:
    ran = retrue("retrain", "flip", "--wait", "--timeout", "0.01s")
    run = api.client.get("/v1/runs").json()["runs"][0]
    assert (ran.code, ran.err.count("\n"), run["state"]) == (4, 1, "queued")
    assert f"retrue runs {run['id']} --watch" in ran.err


def test_ctrl_c_ends_the_wait_alone_and_says_what_goes_on(api: Api, wire: Wire, retrue: Command) -> None:
    interrupt(wire, path="/v1/runs/")
    ran = retrue("retrain", "flip", "--wait")
    run = api.client.get("/v1/runs").json()["runs"][0]
    assert (ran.code, ran.err.count("\n"), run["state"]) == (130, 1, "queued")
    assert "goes on" in ran.err
    assert f"`retrue runs {run['id']} --watch`" in ran.err
    assert f"`retrue cancel {run['id']}`" in ran.err
    interrupt(wire, path="/v1/models")
    ran = retrue("status")
    assert (ran.code, ran.err) == (130, "retrue: nothing was changed\n")


def test_watching_with_json_is_one_line_for_each_change(api: Api, wire: Wire, retrue: Command) -> None:
    run_id = retrue("retrain", "flip", "--json").json["id"]
    step_by_step(api, wire, *TO_THE_GATE, S.REJECTED)
    ran = retrue("runs", "flip", "--watch", "--json")
    assert ran.code == 0
    assert [line["state"] for line in ran.lines] == [state.value for state in (*TO_THE_GATE, S.REJECTED)]
    assert {line["id"] for line in ran.lines} == {run_id}
    again = retrue("runs", run_id, "--watch", "--json")
    assert [line["state"] for line in again.lines] == ["rejected"]
    idle = retrue("runs", "--watch", "--json")
    assert (idle.code, idle.out) == (0, "")
    assert retrue("runs", "--watch").out == "no run is under way\n"


def test_watching_tells_a_run_that_stands_still_once(api: Api, wire: Wire, retrue: Command) -> None:
    # It is looked at three times in each state.
    still = [state for state in (*TO_THE_GATE, S.REJECTED) for _ in range(3)]
    run_id = retrue("retrain", "flip", "--json").json["id"]
    looks = iter(still)
    known = S.QUEUED

    def before(request: httpx.Request) -> None:
        nonlocal known
        if (
            request.method == "GET"
            and request.url.path == f"/v1/runs/{run_id}"
            and (state := next(looks, known)) != known
        ):
            move(api, run_id, state)
            known = state

    wire.before = before
    ran = retrue("runs", run_id, "--watch", "--json")
    assert [line["state"] for line in ran.lines] == [state.value for state in (*TO_THE_GATE, S.REJECTED)]


def test_a_run_is_cancelled_and_asking_again_changes_nothing(api: Api, retrue: Command) -> None:
    run_id = retrue("retrain", "flip", "--json").json["id"]
    assert retrue("cancel", run_id, "--json").json["state"] == "cancelled"
    assert retrue("cancel", run_id).out.startswith(f"run {run_id} is cancelled")
    assert actions(api).count("run_cancel") == 1


@pytest.mark.parametrize(("verb", "state"), [("approve", "promoting"), ("reject", "rejected")])
def test_a_waiting_challenger_is_decided_once(verb: str, state: str, api: Api, retrue: Command) -> None:
    run_id = retrue("retrain", "flip", "--json").json["id"]
    too_early = retrue(verb, run_id)
    assert (too_early.code, too_early.err.count("\n")) == (1, 1)
    move(api, run_id, *TO_THE_GATE)
    row = pack(api.store, FLIP, flip(1), number=2)
    from dataclasses import replace

    from service.storage import versions

    with api.database.write() as conn:
        versions.insert(conn, replace(row, parent=1, run_id=run_id))
        runs.transition(conn, run_id, S.AWAITING_APPROVAL, actor="t", reason="t", at=AT, version=2)
    assert f"retrue approve {run_id}" in retrue("status").out
    ran = retrue(verb, run_id, "--reason", "looks good", "--json")
    assert (ran.code, ran.json["state"]) == (0, state), ran.err


def test_each_switch_is_set_and_undone_by_its_own_pair(api: Api, retrue: Command) -> None:
    for verb, undo, name in (("pause", "resume", "pause"), ("freeze", "unfreeze", "freeze"), ("pin", "unpin", "pin")):
        done = retrue(verb, "flip", "--reason", "storm", "--json")
        assert (done.code, done.json["name"], done.json["reason"]) == (0, name, "storm")
        with api.database.read() as conn:
            assert set(models.switches(conn, "flip")) == {name}
        assert retrue(undo, "flip").out == f"flip: {name} is off\n"
        with api.database.read() as conn:
            assert models.switches(conn, "flip") == {}
    assert retrue("switch", "flip", "hold").code == 0
    assert retrue("release", "flip", "hold", "--json").json == {"model": "flip", "name": "hold", "value": False}


def test_a_switch_that_is_set_refuses_with_1_and_says_which(retrue: Command) -> None:
    retrue("freeze", "flip", "--reason", "storm")
    refused = retrue("retrain", "flip")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "freeze" in refused.err
    assert "storm" in refused.err


def test_a_promotion_is_waited_for_until_it_is_committed_or_fails(api: Api, wire: Wire, retrue: Command) -> None:
    from service.storage import versions

    for number in (2, 3):
        with api.database.write() as conn:
            versions.insert(conn, pack(api.store, FLIP, flip(number), number=number))
    asked = retrue("promote", "flip", "2", "--json").json
    assert (asked["version"], asked["state"]) == (2, "waiting")
    in_the_way = retrue("promote", "flip", "3")
    assert in_the_way.code == 1
    with api.database.write() as conn:
        champions.fail_swap(conn, asked["id"], error="test", at=AT)

    def commit(request: httpx.Request) -> None:
        with api.database.read() as conn:
            waiting = champions.waiting(conn, "flip")
        for swap in waiting if request.method == "GET" else ():
            with api.database.write() as conn:
                champions.swap(
                    conn, "flip", version=swap.version, expected_generation=swap.expected_generation, actor="t",
                    reason="t", kind="promote", run_id=None, event_time=None, at=AT, swap_id=swap.id,
                )  # fmt: skip

    wire.before = commit
    ran = retrue("promote", "flip", "3", "--wait")
    assert (ran.code, ran.out) == (0, "version 3 of flip is champion, generation 2\n")

    def refuse(request: httpx.Request) -> None:
        with api.database.read() as conn:
            waiting = champions.waiting(conn, "flip")
        for swap in waiting if request.method == "GET" else ():
            with api.database.write() as conn:
                champions.fail_swap(conn, swap.id, error="it did not load", at=AT)

    wire.before = refuse
    ran = retrue("promote", "flip", "2", "--wait", "--json")
    assert (ran.code, ran.json["state"]) == (4, "failed")


def test_a_check_is_waited_for_until_its_verdict(api: Api, wire: Wire, retrue: Command) -> None:
    asked = retrue("check", "flip", "--json").json
    assert asked["state"] == "queued"

    def finish(request: httpx.Request) -> None:
        if request.method == "GET" and request.url.path.endswith(asked["id"]):
            with api.database.write() as conn:
                if checks.get(conn, asked["id"]).state is CheckState.QUEUED:
                    checks.finish(conn, asked["id"], at=now(conn), verdict="clean", reason="all is as it was")

    wire.before = finish
    ran = retrue("check", "flip", "--wait")  # joins the one that waits
    assert (ran.code, ran.out) == (0, "clean: all is as it was\n")

    def fail(request: httpx.Request) -> None:
        with api.database.write() as conn:
            newest = checks.newest(conn, "flip")
            if request.method == "GET" and newest is not None and newest.state is CheckState.QUEUED:
                checks.fail(conn, newest.id, error="the lake is away", at=now(conn))

    wire.before = fail
    ran = retrue("check", "flip", "--wait", "--json")
    assert (ran.code, ran.json["state"], ran.json["error"]) == (4, "failed", "the lake is away")


def test_a_rollback_without_a_target_is_refused_with_1(retrue: Command) -> None:
    ran = retrue("rollback", "flip")
    assert (ran.code, ran.err.count("\n")) == (1, 1)


def test_a_rollback_names_the_version_and_that_automation_is_held(api: Api, retrue: Command) -> None:
    crown(api.database, pack(api.store, FLIP, flip(1), number=2))
    ran = retrue("rollback", "flip", "--reason", "it is worse")
    assert (ran.code, ran.out) == (0, "flip is back on version 1, generation 3\n")
    assert "retrue release flip hold" in ran.err
