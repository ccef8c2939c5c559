"""Who may come in, and what for: every route, every role, every way a key can be bad."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from service.api.access import Gate
from service.api.rates import Bucket, Rates
from service.api.routes import ROUTES, Table
from service.domain.access import RIGHTS, Right, Role, key_of
from service.domain.errors import TooManyRequests
from tests.keyed import Keyed, keyed
from tests.migrated import migrated
from tests.served import instance

PREDICT = "/v1/models/flip/predict"
ROW = {"instances": [instance()]}
THERE = {"model": "flip", "switch": "hold", "path": "swagger-ui.css", "version": "1", "run_id": "x", "check_id": "x"}
ASKS = [(method, template) for template, methods in ROUTES.items() for method in methods]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Keyed]:
    database = migrated(tmp_path / "retrue.db")
    with keyed(tmp_path, database) as made:
        yield made
    database.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Keyed, dict[Role, str]]]:
    """Yield an application, and a key for each role."""
    folder = tmp_path_factory.mktemp("home")
    database = migrated(folder / "retrue.db")
    with keyed(folder, database) as made:
        yield made, {role: made.key(role) for role in Role}
    database.close()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """Yield an application in which nobody makes a key: it is open."""
    folder = tmp_path_factory.mktemp("open")
    database = migrated(folder / "retrue.db")
    with keyed(folder, database) as made:
        yield made
    database.close()


def at(template: str) -> str:
    path = template.replace(":switch}", "}").replace(":path}", "}")
    for name in ("prediction_id", "key_id", *THERE):
        path = path.replace("{" + name + "}", THERE.get(name, "x"))
    return path


def refusal(response: httpx.Response, template: str) -> Any:
    """Return the status and the code, or what the protocol has instead of codes: none."""
    if template.startswith("/v2"):
        assert response.json().keys() == {"error"}
        return response.status_code, None
    return response.status_code, code_of(response)


def code_of(response: httpx.Response) -> Any:
    kind = response.headers.get("content-type", "")
    return response.json()["code"] if kind == "application/problem+json" else None


# -- the table


def test_every_route_has_a_declared_right_and_every_declared_one_is_there(shared: tuple[Keyed, Any]) -> None:
    there: set[tuple[str | None, str]] = set()
    for route in iter_route_contexts(shared[0].app.routes):
        if route.methods is None:  # a mount
            there.add((f"{route.path}/{{path:path}}", "GET"))
        else:
            there |= {(route.path, method) for method in route.methods - {"HEAD"}}
    assert there == {(template, method) for method, template in ASKS}


@pytest.mark.parametrize(("method", "template"), ASKS)
@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_just_what_its_rights_say(
    shared: tuple[Keyed, dict[Role, str]], role: Role, method: str, template: str
) -> None:
    home, made = shared
    needed = ROUTES[template][method]
    answer = home.ask(method, at(template), made[role], json={})
    if needed is None or needed in RIGHTS[role]:
        assert answer.status_code not in {401, 403}
    else:
        is_problem = not template.startswith("/v2")
        assert refusal(answer, template) == (403, "not-permitted" if is_problem else None)
        assert not is_problem or answer.json()["needs"] == needed.value


@pytest.mark.parametrize(("method", "template"), ASKS)
def test_without_a_key_there_is_nothing_but_health_figures_and_the_page(
    shared: tuple[Keyed, Any], method: str, template: str
) -> None:
    answer = shared[0].ask(method, at(template), json={})
    if ROUTES[template][method] is None:
        assert answer.status_code == 200
    else:
        assert refusal(answer, template) == (401, None if template.startswith("/v2") else "no-key")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_route_that_was_forgotten_in_the_table_is_the_admins_alone(
    shared: tuple[Keyed, dict[Role, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, made = shared
    fewer = {template: methods for template, methods in ROUTES.items() if template != "/v1/audit"}
    monkeypatch.setattr(home.app.warden, "_table", Table(fewer))
    assert [home.ask("GET", "/v1/audit", made[role]).status_code for role in Role] == [404, 404, 404, 404, 200]


def test_of_two_routes_at_an_address_the_first_that_takes_the_method_says_the_right() -> None:
    table = Table(
        {
            "/things/{name}": {"GET": Right.READ, "POST": Right.OPERATE},
            "/things/keys": {"GET": None, "DELETE": Right.ADMINISTER},
        }
    )
    assert table.at("/things/keys") == {"GET": Right.READ, "POST": Right.OPERATE, "DELETE": Right.ADMINISTER}
    assert table.at("/things") == {}


def test_addresses_and_methods_that_are_not_there_are_told_alike_to_all(shared: tuple[Keyed, dict[Role, str]]) -> None:
    home, made = shared
    for role in Role:
        assert home.ask("GET", "/v1/nothing", made[role]).status_code == 404
        answer = home.ask("DELETE", "/v1/runs", made[role])
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert home.ask("GET", "/v1/nothing").status_code == 401
    assert home.ask("HEAD", "/v1/models", made[Role.VIEWER]).status_code == 200
    assert home.ask("HEAD", "/v1/models", made[Role.PREDICT]).status_code == 403


# -- bad keys, on both ways


@pytest.mark.parametrize(("method", "path", "body"), [("GET", "/v1/models", None), ("POST", PREDICT, ROW)])
def test_each_kind_of_bad_key_is_told_apart(home: Keyed, method: str, path: str, body: Any) -> None:
    good = home.key(Role.ADMIN, name="good")
    gone, over = home.key(Role.ADMIN, name="gone"), home.key(Role.ADMIN, name="over", lasts=timedelta(hours=1))
    home.revoke("gone")
    home.expire("over")
    said = [
        (None, "no-key"),
        ("rtr_", "malformed-key"),
        (good[:-1], "malformed-key"),
        ("x" * 5000, "malformed-key"),
        (key_of(b"12345", bytes(32)), "wrong-key"),
        (gone, "revoked-key"),
        (over, "expired-key"),
    ]
    for key, code in said:
        answer = home.ask(method, path, key, json=body)
        assert (answer.status_code, code_of(answer)) == (401, code)
    assert home.ask(method, path, good, json=body).status_code == 200
    basic = home.ask(method, path, headers={"Authorization": "Basic Zm9vOmJhcg=="}, json=body)
    assert (basic.status_code, code_of(basic)) == (401, "malformed-key")


def test_the_long_way_to_a_prediction_asks_for_the_same_key(home: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    predict, viewer = home.key(Role.PREDICT), home.key(Role.VIEWER)
    monkeypatch.setattr(type(home.app.fast), "way", lambda _self, _scope: None)
    assert home.ask("POST", PREDICT, json=ROW).status_code == 401
    assert home.ask("POST", PREDICT, viewer, json=ROW).status_code == 403
    assert home.ask("POST", PREDICT, predict, json=ROW).status_code == 200


def test_a_refused_request_is_counted_by_its_reason_and_its_body_never_read(home: Keyed) -> None:
    home.key(Role.ADMIN)

    def endless() -> Iterator[bytes]:
        yield b"["
        pytest.fail("the body of a stranger was read")

    for path in (PREDICT, "/v1/models/flip/runs"):
        assert home.ask("POST", path, content=endless()).status_code == 401
    text = home.client.get("/metrics").text
    assert 'retrue_refused_requests_total{reason="no_key"} 2.0' in text


# -- open, while there is no key


def test_without_any_key_it_is_open_and_says_so_and_the_first_key_closes_it(
    home: Keyed, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        home.app.gate.announce()
    assert caplog.records[-1].getMessage() == "access_open"
    assert "one person at one machine" in caplog.records[-1].facts["why"]  # type: ignore[attr-defined]
    assert home.ask("POST", PREDICT, json=ROW).status_code == 200
    assert home.ask("POST", "/v1/models/flip/runs", json={}).status_code == 202
    assert home.audit()[0].actor == "operator"
    key = home.key(Role.ADMIN)
    assert home.ask("GET", "/v1/models").status_code == 401
    assert home.ask("POST", PREDICT, json=ROW).status_code == 401
    home.revoke("admin's")
    assert home.ask("GET", "/v1/models", key).status_code == 401, "nor does revoking the last one open it again"


def test_where_others_reach_it_it_is_never_open(tmp_path: Path) -> None:
    database = migrated(tmp_path / "retrue.db")
    with keyed(tmp_path, database, may_be_open=False) as home:
        assert home.ask("GET", "/v1/models").status_code == 401
        assert home.ask("POST", PREDICT, json=ROW).status_code == 401
    database.close()


@pytest.mark.parametrize("path", [PREDICT, "/v1/models/flip/feedback", "/v1/models/flip/runs"])
@pytest.mark.parametrize(
    ("page", "is_refused"),
    [
        ("http://evil.example", True),
        ("null", True),
        ("http://localhost.evil.example", True),
        ("http://[", True),
        ("http://localhost:8080", False),
        ("http://127.0.0.1:8080", False),
        ("http://[::1]:8080", False),
    ],
)
def test_while_it_is_open_no_page_of_another_site_may_send_anything(
    opened: Keyed, path: str, page: str, is_refused: bool
) -> None:
    answer = opened.ask("POST", path, headers={"Origin": page}, json={})
    assert (code_of(answer) == "foreign-page") == is_refused
    assert (answer.status_code == 403) == is_refused


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", PREDICT)])
@pytest.mark.parametrize(
    ("name", "is_refused"),
    [
        ("evil.example", True),
        ("127.0.0.1.evil.example:8080", True),
        ("10.0.0.7:8080", True),
        ("[", True),
        ("localhost:8080", False),
        ("127.0.0.3", False),
        ("[::1]:8080", False),
    ],
)
def test_while_it_is_open_it_answers_by_this_machines_own_names_alone(
    home: Keyed, method: str, path: str, name: str, is_refused: bool
) -> None:
    # A stranger's name may lead to 127.0.0.1, and then the browser takes the stranger's page for ours.
    answer = home.ask(method, path, headers={"Host": name}, json={} if method == "POST" else None)
    assert (code_of(answer) == "foreign-page") == is_refused
    assert (answer.status_code == 403) == is_refused


def test_with_keys_it_answers_by_any_name(home: Keyed) -> None:
    key = home.key(Role.VIEWER)
    assert home.ask("GET", "/v1/models", key, headers={"Host": "models.example"}).status_code == 200


# -- who did it


def test_the_audit_names_the_key_its_id_and_where_it_came_from(home: Keyed) -> None:
    key = home.key(Role.OPERATOR, name="ada")
    run = home.ask("POST", "/v1/models/flip/runs", key, json={"reason": "why"})
    assert run.json()["actor"] == "ada"
    assert home.ask("PUT", "/v1/models/flip/pause", key, json={}).json()["actor"] == "ada"
    shown = home.ask("GET", "/v1/audit", key).json()["audit"][1]
    assert (shown["actor"], shown["action"], shown["reason"]) == ("ada", "run_asked", "why")
    assert shown["origin"] == {"via": "http", "address": "127.0.0.1", "key": key[4:12]}


@pytest.mark.parametrize(
    ("method", "path", "role", "body"),
    [
        ("POST", "/v1/models/flip/runs", Role.OPERATOR, {}),
        ("POST", "/v1/models/flip/checks", Role.OPERATOR, {}),
        ("PUT", "/v1/models/flip/pin", Role.OPERATOR, {}),
        ("DELETE", "/v1/models/flip/pin", Role.OPERATOR, None),
        ("POST", "/v1/keys", Role.ADMIN, {"name": "x", "roles": ["viewer"]}),
    ],
)
def test_whatever_is_changed_carries_its_origin(home: Keyed, method: str, path: str, role: Role, body: Any) -> None:
    key = home.key(role, name="ada")
    if method == "DELETE":
        home.ask("PUT", path, key, json={})
    home.ask(method, path, key, json=body)
    rows = [row for row in home.audit() if row.actor == "ada"]
    assert rows
    assert all(row.origin and row.origin["key"] == key[4:12] for row in rows)


# -- keys over HTTP


def test_an_admin_makes_a_key_that_works_and_revokes_it(home: Keyed) -> None:
    admin = home.key(Role.ADMIN, name="root")
    body = {"name": "ci", "roles": ["operator", "viewer"], "expires_in": "90d", "reason": "for the pipeline"}
    answer = home.ask("POST", "/v1/keys", admin, json=body)
    made = answer.json()
    home.look()
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert home.ask("GET", "/v1/models", made["key"]).status_code == 200
    listed = home.ask("GET", "/v1/keys", admin)
    assert [key["name"] for key in listed.json()["keys"]] == ["ci", "root"]
    assert made["key"][13:] not in listed.text
    assert "digest" not in listed.text
    assert home.ask("DELETE", f"/v1/keys/{made['id']}", admin).status_code == 204
    home.look()
    assert home.ask("GET", "/v1/models", made["key"]).status_code == 401
    assert [row.action for row in home.audit()[:2]] == ["key_revoked", "key_created"]
    assert home.ask("DELETE", "/v1/keys/nobody", admin).status_code == 404


@pytest.mark.parametrize(
    "spoiled",
    [
        {"name": ""},
        {"name": " x"},
        {"name": "a\nb"},
        {"name": "x" * 65},
        {"name": "controller"},
        {"roles": []},
        {"roles": ["root"]},
        {"expires_in": "soon"},
        {"expires_in": "999999999999999d"},
        {"expires_in": "99999d"},
        {"secret": "mine"},
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(home: Keyed, spoiled: dict[str, Any]) -> None:
    admin = home.key(Role.ADMIN)
    answer = home.ask("POST", "/v1/keys", admin, json={"name": "x", "roles": ["viewer"], **spoiled})
    assert answer.status_code in {400, 422}
    assert len(home.ask("GET", "/v1/keys", admin).json()["keys"]) == 1


def test_two_valid_keys_never_have_one_name(home: Keyed) -> None:
    admin = home.key(Role.ADMIN, name="root")
    again = {"name": "root", "roles": ["viewer"]}
    assert home.ask("POST", "/v1/keys", admin, json=again).status_code == 409


# -- rates


def test_a_bucket_gives_its_rate_and_no_more() -> None:
    bucket = Bucket(10.0, 0.0)
    given = sum(bucket.take(step / 1000) == 0 for step in range(10_000))
    assert 100 + 20 - 1 <= given <= 100 + 20  # ten seconds' worth, and what it had saved
    waits = [bucket.take(10.0) for _ in range(3)]
    assert 0 < waits[-1] <= 0.1
    assert bucket.take(10.0 + waits[-1] + 1e-9) == 0


def test_a_key_over_its_rate_is_told_when_to_come_back_and_others_are_not_held_up(tmp_path: Path) -> None:
    database = migrated(tmp_path / "retrue.db")
    with keyed(tmp_path, database, rates=Rates(predict=0.01, other=0.01)) as home:
        first, second = home.key(Role.ADMIN, name="first"), home.key(Role.ADMIN, name="second")
        for method, path, body in (("GET", "/v1/models", None), ("POST", PREDICT, ROW)):
            answers = [home.ask(method, path, first, json=body) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 429, 429]
            assert code_of(answers[-1]) == "too-many-requests"
            assert 1 < int(answers[-1].headers["retry-after"]) <= 100
            assert home.ask(method, path, second, json=body).status_code == 200
        assert home.client.get("/livez").status_code == 200
    database.close()


def test_a_prediction_by_a_versions_address_has_the_rate_of_predictions(tmp_path: Path) -> None:
    database = migrated(tmp_path / "retrue.db")
    with keyed(tmp_path, database, rates=Rates(other=0.01)) as home:
        key = home.key(Role.ADMIN)
        for _ in range(3):
            assert home.ask("POST", "/v2/models/flip/versions/1/infer", key, json={}).status_code == 400
        assert [home.ask("GET", "/v1/models", key).status_code for _ in range(2)] == [200, 429]
    database.close()


def test_predictions_have_no_rate_unless_one_is_set(home: Keyed) -> None:
    key = home.key(Role.PREDICT)
    gate = Gate(home.worker.replica.keyring, rates=Rates(other=1.0), monotonic=lambda: 0.0)
    scope = {"type": "http", "headers": [(b"authorization", f"Bearer {key}".encode())], "client": None}
    for _ in range(100):
        gate.admit(scope)
        gate.caller(scope, is_predict=True)
    for _ in range(2):
        gate.caller(scope)
    with pytest.raises(TooManyRequests):
        gate.caller(scope)


# -- headers


def test_a_prediction_and_accepted_labels_are_taken_for_nothing_but_what_they_say(home: Keyed) -> None:
    key = home.key(Role.PREDICT)
    predicted = home.ask("POST", PREDICT, key, json=ROW)
    labels = {"labels": [{"id": predicted.json()["ids"][0], "label": predicted.json()["predictions"][0]}]}
    accepted = home.ask("POST", "/v1/models/flip/feedback", key, json=labels)
    assert (predicted.status_code, accepted.status_code) == (200, 202), accepted.text
    for answer in (predicted, accepted, home.ask("POST", PREDICT, key, json={})):
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/livez", "/docs", "/openapi.json", "/v1/models", "/v1/nothing", "/v1/runs/x", "/"])
def test_every_answer_carries_the_security_headers(home: Keyed, path: str) -> None:
    for key in (None, home.key(Role.VIEWER)):
        answer = home.ask("GET", path, key)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert (answer.headers.get("cache-control") == "no-store") == (path not in {"/livez", "/docs"})


def test_an_accident_carries_them_too(home: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("service.storage.models.list_all", broken)
    answer = home.ask("GET", "/v1/models")
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_rights_are_named_in_the_description(shared: tuple[Keyed, dict[Role, str]]) -> None:
    home, made = shared
    paths = home.ask("GET", "/openapi.json", made[Role.VIEWER]).json()["paths"]
    assert paths["/v1/models/{model}/champion"]["put"]["x-right"] == Right.APPROVE.value
    assert paths["/v1/models/flip/predict"]["post"]["security"] == [{"key": []}]
    assert "security" not in paths["/livez"]["get"]
