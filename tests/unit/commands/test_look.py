"""Verbs that look: what a person reads is what the service says, and `--json` is the service's own document."""

from typing import Any

import pytest

from service.domain.run import RunState
from service.storage import models, runs
from service.storage.database import now
from tests.commanded import Command, Ran
from tests.served import AT, flip, pack
from tests.unit.api.conftest import Api
from tests.unit.api.test_control import move


def ask_run(api: Api) -> str:
    run_id: str = api.client.post("/v1/models/flip/runs", json={"reason": "why not"}).json()["id"]
    return run_id


@pytest.mark.parametrize(
    ("words", "path", "under"),
    [
        ("status", "/v1/models", "models"),
        ("status flip", "/v1/models/flip", None),
        ("models --url http://retrue", "/v1/models", "models"),
        ("versions flip", "/v1/models/flip/versions", "versions"),
        ("versions flip 1", "/v1/models/flip/versions/1", None),
        ("checks flip", "/v1/models/flip/checks", "checks"),
        ("runs", "/v1/runs", "runs"),
        ("runs flip", "/v1/runs?model=flip", "runs"),
        ("audit", "/v1/audit", "audit"),
    ],
)
def test_json_is_the_services_own_document(words: str, path: str, under: str | None, api: Api, retrue: Command) -> None:
    ask_run(api)
    told = api.client.get(path).json()
    ran = retrue(*words.split(), "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == (told if under is None else told[under])


def test_status_tells_what_serves_since_when_and_what_the_last_run_did(api: Api, retrue: Command) -> None:
    ask_run(api)
    with api.database.write() as conn:
        models.set_switch(conn, "flip", "pause", value=True, actor="me", reason="storm", at=now(conn))
    lines = retrue("status").out.splitlines()
    (line,) = [line for line in lines if line.startswith("flip ")]
    assert "version 1" in line
    assert "queued (manual)" in line
    assert line.rstrip().endswith("pause")
    (empty,) = [line for line in lines if line.startswith("price ")]
    assert "none yet" in empty


def line_of(ran: Ran, name: str) -> str:
    (line,) = [line for line in ran.out.splitlines() if line.startswith(f"  {name}  ")]
    return line


def test_a_models_status_says_what_a_retrain_and_a_roll_back_would_do(api: Api, retrue: Command) -> None:
    ran = retrue("status", "flip")
    assert "version 1, generation 1" in line_of(ran, "champion")
    assert "0.7" in line_of(ran, "on holdout")
    assert "trains a challenger" in line_of(ran, "retrain")
    assert "refused: no version before this one" in line_of(ran, "roll back")
    run_id = ask_run(api)
    assert f"refused: run {run_id} is queued" in line_of(retrue("status", "flip"), "retrain")
    with api.database.write() as conn:
        for name in ("freeze", "pin"):
            models.set_switch(conn, "flip", name, value=True, actor="me", reason="storm", at=now(conn))
    ran = retrue("status", "flip")
    assert "retrue unfreeze flip" in line_of(ran, "retrain")
    assert "retrue unpin flip" in line_of(ran, "roll back")
    assert "set by me" in line_of(ran, "freeze")


def test_a_roll_back_that_is_foretold_is_the_one_that_is_done(api: Api, retrue: Command) -> None:
    from tests.served import FLIP, crown

    crown(api.database, pack(api.store, FLIP, flip(1), number=2))
    api.worker.replica.look()
    assert "retired are 1" in line_of(retrue("status", "flip"), "roll back")
    done = retrue("rollback", "flip", "--json")
    assert (done.code, done.json["version"], done.json["generation"]) == (0, 1, 3)
    assert line_of(retrue("status", "flip"), "hold")


def test_a_run_is_told_in_full_with_its_transitions(api: Api, retrue: Command) -> None:
    run_id = ask_run(api)
    move(api, run_id, RunState.PREPARING)
    gate = {"clauses": [
        {"name": "better", "outcome": "fail", "value": 0.1, "threshold": 0.2, "n": 9, "reason": "it is not"}
    ]}  # fmt: skip
    with api.database.write() as conn:
        runs.transition(
            conn, run_id, RunState.FAILED, actor="t", reason="t", at=AT, gate=gate, code="boom", detail="bang"
        )
    for words in (["runs", run_id], ["explain", run_id]):
        ran = retrue(*words)
        assert "boom: bang" in line_of(ran, "outcome")
        assert "fail         better 0.1 against 0.2  it is not" in ran.out
        assert [word in ran.out for word in ("queued", "preparing", "failed")] == [True] * 3
        assert "it goes on" not in ran.out
        shown: Any = retrue(*words, "--json").json
        assert [event["after"] for event in shown["events"]] == ["queued", "preparing", "failed"]
        assert shown["code"] == "boom"


def test_what_is_not_there_is_one_line_and_exit_2(looking: Command) -> None:
    unknown = "019a0000-0000-7000-8000-000000000000"
    for words in (
        ["status", "nothing"], ["versions", "nothing"], ["versions", "flip", "9"], ["checks", "nothing"],
        ["runs", "nothing"], ["runs", unknown], ["runs", unknown, "--watch"], ["explain", "nothing"],
        ["predict", "nothing"], ["label", "nothing", "--set", f"{unknown}=UP"], ["replay", "nothing"],
        ["cancel", unknown],
    ):  # fmt: skip
        ran = looking(*words, stdin='{"a": 1}')
        assert (ran.code, ran.err.count("\n")) == (2, 1), (words, ran.err)


def test_a_model_without_a_check_is_explained_by_what_to_do(looking: Command) -> None:
    ran = looking("explain", "flip")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "retrue check flip --wait" in ran.err


def test_address_and_key_come_from_option_environment_or_file_in_that_order(
    looking: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*words: str) -> tuple[str, str | None]:
        assert looking("status", *words).code == 0
        request = looking.http.sent[-1]  # type: ignore[attr-defined]
        return str(request.url.host), request.headers.get("authorization")

    assert reached() == ("127.0.0.1", None)
    (looking.folder / ".env").write_text("RETRUE_URL=http://file\nRETRUE_API_KEY=of-file\n")
    assert reached() == ("file", "Bearer of-file")
    monkeypatch.setenv("RETRUE_URL", "http://environment")
    assert reached() == ("environment", "Bearer of-file")
    monkeypatch.setenv("RETRUE_API_KEY", "of-environment")
    assert reached() == ("environment", "Bearer of-environment")
    assert reached("--url", "http://option", "--key", "of-option") == ("option", "Bearer of-option")


def test_models_are_those_of_the_service_wherever_its_address_stands(looking: Command) -> None:
    (looking.folder / ".env").write_text("RETRUE_URL=http://file\n")
    ran = looking("models", "--json")
    assert (ran.code, looking.http.sent[-1].url.host) == (0, "file")  # type: ignore[attr-defined]
    assert "flip" in {model["name"] for model in ran.json}


def test_the_audit_of_a_model_that_nobody_knows_is_bad_input_and_not_an_empty_list(looking: Command) -> None:
    ran = looking("audit", "--model", "nothere", "--json")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "no model called 'nothere'" in ran.err


def test_config_tells_where_each_setting_came_from_and_masks_what_is_secret(
    looking: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (looking.folder / ".env").write_text("RETRUE_WORKERS=3\nRETRUE_URL=http://me:hunter2@file\n")
    monkeypatch.setenv("RETRUE_DATABASE_URL", "postgresql://me:hunter2@db/x?sslmode=require&password=hunter2")
    monkeypatch.setenv("RETRUE_API_KEY", "hunter2")
    ran = looking("config", "--json")
    rows = {row["name"]: row for row in ran.json}
    assert (rows["workers"]["value"], rows["workers"]["origin"]) == ("3", ".env")
    assert (rows["port"]["value"], rows["port"]["origin"]) == ("8080", "default")
    assert rows["database_url"]["origin"] == "environment"
    assert (rows["url"]["value"], rows["url"]["origin"]) == ("http://me:***@file", ".env")
    assert (rows["api_key"]["value"], rows["api_key"]["origin"]) == ("***", "environment")
    for shown in (ran, looking("config")):
        assert "hunter2" not in shown.out + shown.err
        assert "***" in shown.out
