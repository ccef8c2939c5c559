"""Why a check ended as it did, what another policy would have decided, and a suggestion that is accepted."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter

from service.control.breaker import settle
from service.domain.check import Examination, Performance, Verdict
from service.domain.decision import decide
from service.domain.policy import Retrain
from service.domain.reading import read
from service.domain.run import RunState, Trigger
from service.domain.situation import Situation
from service.storage import audit, checks, models, runs
from tests.served import AT
from tests.unit.api.conftest import Api

CALM = Situation(
    now=AT, verdict=Verdict.CLEAN, quarantined=False, loss=0.1, reference_loss=0.1, degraded_in_a_row=0,
    drifted_in_a_row=0, new_labels=500, learned_until=AT - timedelta(days=30), last_run_ended=None,
    rejected_in_a_row=0, active_run=None,
)  # fmt: skip
WORSE = replace(CALM, loss=0.2, degraded_in_a_row=1)


def judged(api: Api, situation: Situation, policy: Retrain, /, **columns: Any) -> str:
    """Write a check as a controller would have; return its id."""
    performance = Performance(
        metric="accuracy", value=None, loss=situation.loss, reference_loss=0.1, rows=100, labelled=90, delay_p50_s=1.0
    )
    examination = Examination(verdict=situation.verdict, reason="as told", rows=100, performance=performance)
    written: dict[str, Any] = {
        "window_until": situation.now,
        "verdict": situation.verdict.value,
        "examination": examination.to_json(),
        "situation": situation.to_json(),
        "decision": decide(policy, situation).to_json(),
        "policy": TypeAdapter(Retrain).dump_python(policy, mode="json"),
        "reading": read(examination, degraded=situation.degraded_in_a_row > 0).to_json(),
        "version": 1,
        "generation": 1,
    }
    with api.database.write() as conn:
        at = api.database.now(conn)
        check = checks.create(conn, "flip", actor="schedule", at=at)
        checks.finish(conn, check.id, at=at, **(written | columns))
    return check.id


def test_a_check_is_explained_in_the_order_of_its_decision(api: Api) -> None:
    check_id = judged(api, WORSE, Retrain())
    told = api.client.get(f"/v1/checks/{check_id}/explanation").json()
    assert [step["name"] for step in told["steps"]] == [
        "contract", "quality", "drift", "performance", "estimate", "reading",
    ]  # fmt: skip
    rules = [(rule["name"], rule["met"]) for rule in told["rules"]]
    assert rules[:2] == [("quarantined", False), ("performance", True)]
    assert [name for name, _ in rules[5:]] == [
        "mode_off", "frozen", "paused", "run_in_progress", "few_labels", "cooldown", "rollback", "retry", "budget",
    ]  # fmt: skip
    assert told["same"] is True
    assert told["warnings"] == []
    assert told["recorded"] == told["today"]
    shown = api.client.get(f"/v1/models/flip/checks/{check_id}").json()
    assert shown["reading"]["signature"] == "concept_drift"
    assert api.client.get("/v1/models/flip").json()["last_check"]["reading"]["signature"] == "concept_drift"


def test_a_decision_that_would_be_another_one_today_is_said_loudly(api: Api) -> None:
    old = decide(Retrain(), CALM).to_json()
    check_id = judged(api, WORSE, Retrain(), decision=old)
    told = api.client.get(f"/v1/checks/{check_id}/explanation").json()
    assert told["same"] is False
    assert any("DECIDES OTHERWISE" in warning for warning in told["warnings"])
    assert (told["recorded"]["code"], told["today"]["code"]) == ("no_cause", "performance")


def test_a_check_of_an_earlier_release_is_explained_by_the_present_policy_and_says_so(api: Api) -> None:
    check_id = judged(api, WORSE, Retrain(), policy=None, reading=None)
    told = api.client.get(f"/v1/checks/{check_id}/explanation").json()
    assert told["policy_recorded"] is False
    assert any("no policy was recorded" in warning for warning in told["warnings"])


def test_what_was_never_decided_is_not_explained(api: Api) -> None:
    assert api.client.get("/v1/checks/nothing/explanation").status_code == 404
    with api.database.write() as conn:
        check = checks.create(conn, "flip", actor="schedule", at=AT)
    refused = api.client.get(f"/v1/checks/{check.id}/explanation")
    assert (refused.status_code, refused.json()["code"]) == (409, "not-allowed-now")


def tried(api: Api, **body: Any) -> Any:
    return api.client.post("/v1/models/flip/policy:dry-run", json=body)


def test_a_changed_policy_is_tried_and_nothing_is_written(api: Api) -> None:
    auto = Retrain(backoff=1)
    for week in range(4):
        now = replace(WORSE, now=AT + timedelta(weeks=week), new_labels=500 * (week + 1))
        judged(api, now, replace(auto, mode="off"))
    before = api.client.get("/v1/models/flip/checks").json()
    changes = {"mode": "auto", "retry": "14d", "backoff": 1, "max_age": None, "cooldown": "28d"}
    told = tried(api, policy=changes, last=4).json()
    assert [one["replayed"]["action"] for one in told["decisions"]] == ["retrain", "none", "retrain", "none"]
    assert [one["derived"] for one in told["decisions"]] == [False, True, True, True]
    assert (told["checks"], told["changed"], told["recorded"]["runs"], told["replayed"]["runs"]) == (4, 2, 0, 2)
    assert told["replayed_if_promoted"]["runs"] == 1
    assert told["policy"]["retry"] == "14d"
    assert told["limits"]
    assert len(tried(api, policy={}, last=2).json()["decisions"]) == 2
    assert api.client.get("/v1/models/flip/checks").json() == before
    assert api.client.get("/v1/runs").json()["runs"] == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"policy": {"mode": "sometimes"}}, "mode"),
        ({"policy": {"mod": "off"}}, "mod"),
        ({"policy": {"retry": "soon"}}, "retry"),
        ({"policy": {"budget": "often"}}, "budget"),
        ({"last": 0}, "last"),
        ({"last": 501}, "last"),
        ({"assume": "luck"}, "assume"),
        ({"polcy": {}}, "polcy"),
    ],
)
def test_a_policy_that_no_model_file_could_have_is_refused_with_the_field_s_name(
    api: Api, body: dict[str, Any], words: str
) -> None:
    refused = tried(api, **body)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert words in refused.json()["detail"]
    assert "\n" not in refused.json()["detail"]


def test_a_dry_run_of_no_model_is_not_found(api: Api) -> None:
    assert api.client.post("/v1/models/nothing/policy:dry-run", json={}).status_code == 404


SUGGEST = Retrain(mode="suggest")
ACCEPT = "/v1/models/flip/suggestion/accept"


def test_a_suggestion_is_seen_and_accepted_with_one_call(api: Api) -> None:
    check_id = judged(api, WORSE, SUGGEST)
    shown = api.client.get("/v1/models/flip").json()["suggestion"]
    assert (shown["check"], shown["trigger"], shown["code"]) == (check_id, "performance", "mode_suggest")
    accepted = api.client.post(ACCEPT, json={"reason": "go on", "check": check_id})
    run = accepted.json()
    assert accepted.status_code == 202
    assert accepted.headers["location"] == f"/v1/runs/{run['id']}"
    assert (run["state"], run["trigger"], run["check_id"], run["actor"]) == (
        "queued", "performance", check_id, "operator",
    )  # fmt: skip
    assert api.client.get(f"/v1/models/flip/checks/{check_id}").json()["run_id"] == run["id"]
    assert api.client.get("/v1/models/flip").json()["suggestion"] is None
    assert api.client.post(ACCEPT).status_code == 409
    with api.database.read() as conn:
        entry = audit.list_of(conn)[0]
    assert (entry.action, entry.subject, entry.reason) == ("suggestion_accepted", run["id"], "go on")
    assert (entry.origin or {})["via"] == "http"


def test_only_the_newest_check_suggests_and_only_until_a_run_has_begun(api: Api) -> None:
    assert api.client.post(ACCEPT).status_code == 409
    first = judged(api, WORSE, SUGGEST)
    second = judged(api, replace(WORSE, now=AT + timedelta(days=7)), SUGGEST)
    stale = api.client.post(ACCEPT, json={"check": first})
    assert (stale.status_code, stale.json()["code"]) == (412, "out-of-date")
    assert api.client.get("/v1/models/flip").json()["suggestion"]["check"] == second
    run_id = api.client.post("/v1/models/flip/runs", json={}).json()["id"]
    assert api.client.post(ACCEPT).status_code == 409
    api.client.post(f"/v1/runs/{run_id}/cancel")
    assert api.client.get("/v1/models/flip").json()["suggestion"]["check"] == second
    judged(api, CALM, SUGGEST)
    assert api.client.get("/v1/models/flip").json()["suggestion"] is None


def test_a_frozen_model_accepts_no_suggestion(api: Api) -> None:
    judged(api, WORSE, SUGGEST)
    api.client.put("/v1/models/flip/freeze", json={})
    assert api.client.post(ACCEPT).status_code == 409
    assert api.client.get("/v1/runs").json()["runs"] == []


def test_the_breaker_is_cleared_like_a_switch_but_set_by_nobody(api: Api) -> None:
    assert api.client.put("/v1/models/flip/breaker", json={}).status_code == 422
    for _ in range(3):
        with api.database.write() as conn:
            at = api.database.now(conn)
            run = runs.create(conn, "flip", trigger=Trigger.PERFORMANCE, actor="t", reason="t", at=at)
            runs.transition(conn, run.id, RunState.FAILED, actor="t", reason="t", at=at, code="train_error")
            settle(conn, models.get(conn, "flip"), at=at)
    assert "3 runs broke" in api.client.get("/v1/models/flip").json()["switches"]["breaker"]["reason"]
    assert api.client.delete("/v1/models/flip/breaker", params={"reason": "mended"}).status_code == 204
    assert api.client.get("/v1/models/flip").json()["switches"] == {}
    with api.database.read() as conn:
        assert [row.action for row in audit.list_of(conn)] == ["switch_cleared", "breaker_set", "champion_promote"]
