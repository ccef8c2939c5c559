"""What a viewer sees and an operator asks for."""

import gzip
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from service.domain.errors import DatabaseUnavailable, NotAllowedNow
from service.domain.run import RunState, Trigger
from service.storage import audit, champions, checks, models, runs, tables, versions
from tests.served import AT, FLIP, crown, flip, pack
from tests.unit.api.conftest import Api


def move(api: Api, run_id: str, *states: RunState) -> None:
    for state in states:
        with api.database.write() as conn:
            runs.transition(conn, run_id, state, actor="t", reason="t", at=AT)


def actions(api: Api) -> list[str]:
    with api.database.read() as conn:
        return [row.action for row in audit.list_of(conn)]


def test_a_model_tells_who_answers_and_its_etag_is_the_generation(api: Api) -> None:
    response = api.client.get("/v1/models/flip")
    model = response.json()
    assert (model["champion"]["version"], model["champion"]["generation"]) == (1, 1)
    assert response.headers["etag"] == '"1"'
    assert model["serving"][0]["generation"] == 1
    assert model["task"] == "classification"
    listed = {one["name"]: one["champion"] for one in api.client.get("/v1/models").json()["models"]}
    assert listed["price"] is None
    assert api.client.get("/v1/models/price").headers["etag"] == '"0"'


def test_a_run_is_asked_for_once_however_often_the_request_comes(api: Api) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = api.client.post("/v1/models/flip/runs", json={"reason": "why"}, headers=headers)
    again = api.client.post("/v1/models/flip/runs", json={"reason": "why"}, headers=headers)
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == f"/v1/runs/{first.json()['id']}"
    other = api.client.post("/v1/models/flip/runs", json={"reason": "else"}, headers=headers)
    assert other.status_code == 409
    in_the_way = api.client.post("/v1/models/flip/runs")
    assert (in_the_way.status_code, in_the_way.json()["run"]) == (409, first.json()["id"])
    assert actions(api).count("run_asked") == 1


def test_a_queued_run_is_cancelled_at_once_and_a_working_one_is_told_to_stop(api: Api) -> None:
    run_id = api.client.post("/v1/models/flip/runs", json={}).json()["id"]
    assert api.client.post(f"/v1/runs/{run_id}/cancel", json={"reason": "no"}).json()["state"] == "cancelled"
    run_id = api.client.post("/v1/models/flip/runs", json={}).json()["id"]
    move(api, run_id, RunState.PREPARING, RunState.VALIDATING)
    for _ in range(2):
        assert api.client.post(f"/v1/runs/{run_id}/cancel").json()["state"] == "cancelling"
    events = api.client.get(f"/v1/runs/{run_id}/events").json()["events"]
    assert [event["after"] for event in events] == ["queued", "preparing", "validating", "cancelling"]


S = RunState
TO_APPROVAL = (S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING, S.AWAITING_APPROVAL)


def awaiting(api: Api, *, parent: int | None = 1) -> str:
    """Ask for a run and take it, with version 2, to where a person decides."""
    run_id: str = api.client.post("/v1/models/flip/runs", json={}).json()["id"]
    with api.database.write() as conn:
        versions.insert(conn, replace(pack(api.store, FLIP, flip(1), number=2), parent=parent, run_id=run_id))
    move(api, run_id, *TO_APPROVAL)
    with api.database.write() as conn:
        conn.execute(update(tables.runs).where(tables.runs.c.id == run_id).values(version=2))
    return run_id


@pytest.mark.parametrize(
    ("verb", "state", "version"), [("approve", "promoting", "approved"), ("reject", "rejected", "rejected")]
)
def test_only_a_run_that_awaits_approval_can_be_decided(api: Api, verb: str, state: str, version: str) -> None:
    run_id = api.client.post("/v1/models/flip/runs", json={}).json()["id"]
    any_state = {"If-Match": "*"}
    assert api.client.post(f"/v1/runs/{run_id}/{verb}", json={}, headers=any_state).status_code == 409
    api.client.post(f"/v1/runs/{run_id}/cancel")
    run_id = awaiting(api)
    seen = {"If-Match": api.client.get(f"/v1/runs/{run_id}").headers["etag"]}
    response = api.client.post(f"/v1/runs/{run_id}/{verb}", json={"reason": "looked at it"}, headers=seen)
    assert (response.status_code, response.json()["state"]) == (202, state)
    with api.database.read() as conn:
        assert versions.get(conn, "flip", 2).state.value == version
    assert actions(api)[0] == f"run_{verb}"


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_who_decides_must_say_what_he_looked_at(api: Api, verb: str) -> None:
    run_id = awaiting(api)
    url = f"/v1/runs/{run_id}/{verb}"
    assert api.client.post(url, json={}).status_code == 428
    assert api.client.post(url, json={}, headers={"If-Match": "then"}).status_code == 400
    seen = {"If-Match": api.client.get(f"/v1/runs/{run_id}").headers["etag"]}
    move(api, run_id, S.EVALUATING, S.AWAITING_APPROVAL)
    stale = api.client.post(url, json={}, headers=seen)
    assert (stale.status_code, stale.json()["code"]) == (412, "out-of-date")
    assert api.client.get(f"/v1/runs/{run_id}").json()["state"] == "awaiting_approval"


def test_a_challenger_that_was_judged_against_another_champion_is_not_approved(api: Api) -> None:
    run_id = awaiting(api)
    crown(api.database, pack(api.store, FLIP, flip(3), number=3))
    refused = api.client.post(f"/v1/runs/{run_id}/approve", json={}, headers={"If-Match": "*"})
    assert (refused.status_code, refused.json()["code"]) == (412, "generation-mismatch")
    assert "judged against version 1, and the champion is version 3" in refused.json()["detail"]


def test_a_run_that_promotes_is_cancelled_with_its_swap_until_the_champion_has_moved(api: Api) -> None:
    run_id = awaiting(api)
    move(api, run_id, S.PROMOTING)
    with api.database.write() as conn:
        swap_id = champions.request_swap(
            conn, "flip", version=2, expected_generation=1, actor="t", reason="t", kind="promote", run_id=run_id,
            event_time=None, at=AT,
        )  # fmt: skip
    assert api.client.post(f"/v1/runs/{run_id}/cancel").json()["state"] == "cancelled"
    assert api.client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
    with api.database.read() as conn:
        swap = champions.find_swap(conn, swap_id)
        assert swap is not None
        assert (swap.state, versions.get(conn, "flip", 2).state.value) == ("failed", "rejected")
    with api.database.write() as conn, pytest.raises(NotAllowedNow):
        champions.swap(
            conn, "flip", version=2, expected_generation=1, actor="t", reason="t", kind="promote", run_id=run_id,
            event_time=None, at=AT, swap_id=swap_id,
        )  # fmt: skip


@pytest.mark.parametrize("after", [S.PROBATION, S.SUCCEEDED])
def test_a_run_whose_version_is_champion_is_taken_back_not_cancelled(api: Api, after: RunState) -> None:
    run_id = awaiting(api)
    move(api, run_id, S.PROMOTING, after)
    refused = api.client.post(f"/v1/runs/{run_id}/cancel")
    assert refused.status_code == 409
    assert "rollback" in refused.json()["detail"]


def test_a_request_joins_the_run_in_its_way_or_takes_the_place_of_a_queued_one_that_would_do_less(api: Api) -> None:
    def ask(**body: Any) -> dict[str, Any]:
        response = api.client.post("/v1/models/flip/runs?on_conflict=coalesce", json=body)
        assert response.status_code == 202, response.text
        return dict(response.json())

    with api.database.write() as conn:
        of_a_check = runs.create(
            conn, "flip", trigger=Trigger.PERFORMANCE, actor="controller", reason="worse", at=AT, until=AT
        )
    newest = ask(reason="look at everything")
    assert newest["id"] != of_a_check.id
    assert api.client.get(f"/v1/runs/{of_a_check.id}").json()["state"] == "superseded"
    assert ask(reason="me too")["id"] == newest["id"]
    forced = ask(force=True)
    assert forced["id"] != newest["id"]
    assert ask()["id"] == forced["id"]
    move(api, forced["id"], S.PREPARING)
    assert ask(force=True)["id"] == forced["id"]
    assert actions(api)[:2] == ["run_joined", "run_joined"]
    api.client.post(f"/v1/runs/{forced['id']}/cancel")
    assert api.client.post("/v1/models/flip/runs?on_conflict=coalesce", json={}).status_code == 409
    assert api.client.post("/v1/models/flip/runs?on_conflict=perhaps", json={}).status_code == 422


def test_events_can_be_followed_until_the_run_ends(api: Api) -> None:
    run_id = api.client.post("/v1/models/flip/runs", json={}).json()["id"]
    api.client.post(f"/v1/runs/{run_id}/cancel")
    response = api.client.get(f"/v1/runs/{run_id}/events?follow=1")
    assert response.headers["content-type"].startswith("text/event-stream")
    told = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert [event["after"] for event in told] == ["queued", "cancelled"]


def test_a_promotion_needs_the_generation_that_the_caller_saw(api: Api) -> None:
    second = pack(api.store, FLIP, flip(1), number=2)
    with api.database.write() as conn:
        versions.insert(conn, second)
    url, body = "/v1/models/flip/champion", {"version": 2, "reason": "better"}
    assert api.client.put(url, json=body).status_code == 428
    assert api.client.put(url, json=body, headers={"If-Match": '"7"'}).status_code == 412
    assert api.client.put(url, json=body, headers={"If-Match": "x"}).status_code == 400
    assert api.client.put(url, json={"version": 9}, headers={"If-Match": '"1"'}).status_code == 404
    assert api.client.put(url, json={"version": 1}, headers={"If-Match": '"1"'}).status_code == 409
    response = api.client.put(url, json=body, headers={"If-Match": '"1"'})
    assert (response.status_code, response.json()["state"]) == (202, "waiting")
    assert api.client.put(url, json=body, headers={"If-Match": '"1"'}).status_code == 409
    assert "promotion_asked" in actions(api)


def test_a_rollback_is_one_call_and_holds_automatic_promotion(api: Api) -> None:
    assert api.client.post("/v1/models/flip/rollback", json={}).status_code == 409
    crown(api.database, pack(api.store, FLIP, flip(1), number=2))
    response = api.client.post("/v1/models/flip/rollback", json={"reason": "worse"})
    assert (response.status_code, response.json()["version"], response.json()["generation"]) == (200, 1, 3)
    with api.database.read() as conn:
        assert "hold" in models.switches(conn, "flip")
    assert api.client.post("/v1/models/price/rollback", json={}).status_code == 409
    assert api.client.post("/v1/models/flip/rollback", json={"to": 1}).status_code == 409


@pytest.mark.parametrize("name", ["pause", "freeze", "pin", "hold"])
def test_a_switch_is_set_and_cleared_and_both_are_audited(api: Api, name: str) -> None:
    assert api.client.put(f"/v1/models/flip/{name}", json={"reason": "holiday"}).json()["reason"] == "holiday"
    assert name in api.client.get("/v1/models/flip").json()["switches"]
    assert api.client.delete(f"/v1/models/flip/{name}").status_code == 204
    assert api.client.get("/v1/models/flip").json()["switches"] == {}
    assert actions(api)[:2] == ["switch_cleared", "switch_set"]


def test_a_frozen_model_trains_nothing_and_a_pinned_one_keeps_its_champion(api: Api) -> None:
    api.client.put("/v1/models/flip/freeze", json={})
    assert api.client.post("/v1/models/flip/runs", json={}).status_code == 409
    api.client.delete("/v1/models/flip/freeze")
    crown(api.database, pack(api.store, FLIP, flip(1), number=2))
    api.client.put("/v1/models/flip/pin", json={})
    assert api.client.post("/v1/models/flip/rollback", json={}).status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("PUT", "/v1/models/flip/nonsense", b"{}", 404),
        ("PUT", "/v1/models/nothing/pause", b"{}", 404),
        ("POST", "/v1/models/nothing/runs", b"{}", 404),
        ("POST", "/v1/models/flip/runs", b'{"forse": true}', 422),
        ("POST", "/v1/models/flip/runs", b'{"reason": ""}', 422),
        ("POST", "/v1/models/flip/runs", b"{", 400),
        ("POST", "/v1/models/flip/runs", b"\xff\xfe", 400),
        ("POST", "/v1/models/flip/runs", b"[" * 60_000, 400),
        ("POST", "/v1/models/flip/runs", b"x" * 70_000, 413),
        ("GET", "/v1/models/flip/versions/9", b"", 404),
        ("GET", "/v1/models/flip/versions/x", b"", 422),
        ("GET", "/v1/models/flip/versions/99999999999999999999", b"", 422),
        ("GET", "/v1/models/flip/checks/x", b"", 404),
        ("GET", "/v1/runs/x", b"", 404),
        ("GET", "/v1/runs?limit=0", b"", 422),
        ("GET", "/v1/predictions/nonsense", b"", 404),
        ("POST", "/v1/models/price/checks", b"{}", 409),
    ],
)
def test_bad_requests_are_problems(shared_api: Api, method: str, path: str, content: bytes, status: int) -> None:
    response = shared_api.client.request(method, path, content=content)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_a_check_is_asked_for_and_its_report_served_from_the_reports_alone(api: Api) -> None:
    check = api.client.post("/v1/models/flip/checks", json={}).json()
    assert api.client.post("/v1/models/flip/checks").json()["id"] == check["id"]
    url = f"/v1/models/flip/checks/{check['id']}"
    assert api.client.get(f"{url}/report").status_code == 404
    (api.home / "reports").mkdir()
    (api.home / "reports" / "page.html.gz").write_bytes(gzip.compress(b"<p>evidence</p>"))
    (api.home / "secret.txt").write_text("secret")
    with api.database.write() as conn:
        checks.finish(conn, check["id"], at=AT, verdict="clean", report="page.html.gz")
    for accepted in ("gzip", "identity"):
        page = api.client.get(f"{url}/report", headers={"Accept-Encoding": accepted})
        assert (page.status_code, page.text) == (200, "<p>evidence</p>")
    assert api.client.get(url).json()["verdict"] == "clean"
    assert api.client.get(f"/v1/models/price/checks/{check['id']}").status_code == 404
    with api.database.write() as conn:
        other = checks.create(conn, "flip", actor="t", at=AT)
        checks.finish(conn, other.id, at=AT, report="../secret.txt")
    assert api.client.get(f"/v1/models/flip/checks/{other.id}/report").status_code == 404


def test_ready_means_that_a_model_answers(api: Api) -> None:
    assert api.client.get("/livez").json() == {"status": "alive"}
    ready = api.client.get("/readyz")
    assert (ready.status_code, ready.json()["models"]["price"]) == (200, "no champion")


def test_state_metrics_come_from_the_database_and_outlive_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = api.client.post("/v1/models/flip/runs", json={}).json()["id"]
    assert run_id
    text = api.client.get("/metrics").text
    assert "retrue_database_up 1.0" in text
    assert 'retrue_champion_generation{model="flip"} 1.0' in text
    assert 'retrue_runs{model="flip",state="queued"} 1.0' in text
    assert 'retrue_model_info{model="flip",role="champion",version="1"} 1.0' in text

    def away(*_: Any) -> Any:
        msg = "away"
        raise DatabaseUnavailable(msg)

    monkeypatch.setattr("service.api.metrics.FRESH_S", -1.0)
    monkeypatch.setattr(champions, "all_current", away)
    text = api.client.get("/metrics").text
    assert "retrue_database_up 0.0" in text
    assert 'retrue_champion_generation{model="flip"} 1.0' in text


def test_openapi_holds_the_real_schema_of_each_served_model(api: Api) -> None:
    document = api.client.get("/openapi.json").json()
    body = document["paths"]["/v1/models/flip/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    row = body["oneOf"][0]["properties"]["instances"]["items"]
    assert set(row["required"]) == set(FLIP.names)
    assert row["properties"]["n"] == {"anyOf": [{"type": "number", "minimum": 0.0, "maximum": 1.0}, {"type": "null"}]}
    assert "/v1/models/price/predict" not in document["paths"]
    assert api.client.get("/docs").status_code == 200


def test_a_body_that_is_a_form_is_told_to_be_json(api: Api) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = api.client.request("POST", "/v1/models/flip/runs", content=b'{"reason":"x"}', headers=form)
    assert (answer.status_code, answer.json()["code"]) == (415, "not-json")
    assert "application/json" in answer.json()["detail"]


def test_the_page_of_the_api_needs_no_internet(api: Api) -> None:
    page = api.client.get("/docs").text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(addresses) >= 3
    for address in addresses:
        assert address.startswith("/docs/assets/")
        assert api.client.get(address).status_code == 200
