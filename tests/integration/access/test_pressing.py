"""Two people at once, old looks, and repeated requests, with keys, on either database."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.domain.access import Role
from service.domain.errors import DatabaseUnavailable
from service.storage import audit, versions
from service.storage.database import Database
from tests.keyed import Keyed, keyed
from tests.served import FLIP, flip, instance, pack


@pytest.fixture
def home(database_url: str, tmp_path: Path) -> Iterator[Keyed]:
    database = Database(database_url)
    database.migrate()
    with keyed(tmp_path, database) as made:
        yield made
    with database.read() as conn:
        assert audit.verify(conn) is None
    database.close()


def at_once(*asks: Callable[[], httpx.Response]) -> list[httpx.Response]:
    together, answers = threading.Barrier(len(asks)), []

    def ask(one: Callable[[], httpx.Response]) -> None:
        together.wait(30)
        answers.append(one())

    threads = [threading.Thread(target=ask, args=(one,)) for one in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return sorted(answers, key=lambda answer: answer.status_code)


def test_of_two_operators_who_press_retrain_at_once_one_run_bears_the_firsts_name(home: Keyed) -> None:
    ada, bob = home.key(Role.OPERATOR, name="ada"), home.key(Role.OPERATOR, name="bob")
    path = "/v1/models/flip/runs"
    first, second = at_once(
        lambda: home.ask("POST", path, ada, json={"reason": "ada's"}),
        lambda: home.ask("POST", path, bob, json={"reason": "bob's"}),
    )
    assert (first.status_code, second.status_code) == (202, 409)
    assert second.json()["run"] == first.json()["id"]
    asked = [row for row in home.audit() if row.action == "run_asked"]
    assert [row.actor for row in asked] == [first.json()["actor"]]
    assert first.json()["reason"] == f"{first.json()['actor']}'s"


def test_of_two_approvers_who_promote_at_once_one_is_told_that_the_other_was_first(home: Keyed) -> None:
    for number in (2, 3):
        with home.database.write() as conn:
            versions.insert(conn, pack(home.store, FLIP, flip(number), number=number))
    made = {2: home.key(Role.APPROVER, name="ada"), 3: home.key(Role.APPROVER, name="bob")}

    def promote(number: int) -> httpx.Response:
        body = {"version": number, "reason": "better"}
        return home.ask("PUT", "/v1/models/flip/champion", made[number], json=body, headers={"If-Match": '"1"'})

    first, second = at_once(lambda: promote(2), lambda: promote(3))
    assert first.status_code == 202
    assert second.status_code in {409, 412}
    asked = [row for row in home.audit() if row.action == "promotion_asked"]
    assert [row.actor for row in asked] == [first.json()["actor"]]


def test_a_stale_look_promotes_nothing(home: Keyed) -> None:
    key = home.key(Role.APPROVER)
    body = {"version": 1, "reason": "again"}
    answer = home.ask("PUT", "/v1/models/flip/champion", key, json=body, headers={"If-Match": '"0"'})
    assert (answer.status_code, answer.json()["code"]) == (412, "generation-mismatch")
    assert home.ask("PUT", "/v1/models/flip/champion", key, json=body).status_code == 428


def test_a_repeated_request_is_one_and_the_same_idempotency_key_with_another_body_is_refused(home: Keyed) -> None:
    key, path = home.key(Role.OPERATOR, name="ada"), "/v1/models/flip/runs"
    sent = {"Idempotency-Key": "k"}
    first = home.ask("POST", path, key, json={"reason": "why"}, headers=sent)
    again = home.ask("POST", path, key, json={"reason": "why"}, headers=sent)
    other = home.ask("POST", path, key, json={"reason": "else"}, headers=sent)
    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 409)
    assert first.json()["id"] == again.json()["id"]
    assert [row.action for row in home.audit()].count("run_asked") == 1


def test_an_admin_who_revokes_beside_a_change_of_that_key_leaves_one_order(home: Keyed) -> None:
    admin, ada = home.key(Role.ADMIN, name="root"), home.key(Role.OPERATOR, name="ada")
    answers = at_once(
        lambda: home.ask("DELETE", f"/v1/keys/{ada[4:12]}", admin),
        lambda: home.ask("PUT", "/v1/models/flip/pause", ada, json={}),
    )
    assert {answer.status_code for answer in answers} <= {200, 204, 401}
    home.look()
    assert home.ask("GET", "/v1/models", ada).json()["code"] == "revoked-key"


def test_while_the_database_is_away_known_keys_go_on_and_unknown_ones_do_not_come_in(
    home: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = home.key(Role.PREDICT)

    def away(*_: Any, **__: Any) -> Any:
        msg = "gone"
        raise DatabaseUnavailable(msg)

    monkeypatch.setattr(home.database, "read", away)
    monkeypatch.setattr(home.database, "write", away)
    path, body = "/v1/models/flip/predict", {"instances": [instance()]}
    assert home.ask("POST", path, key, json=body).status_code == 200
    assert home.ask("POST", path, key[:-1] + ("a" if key[-1] != "a" else "b"), json=body).status_code == 401
    cookie = {"Cookie": "retrue_session=x"}
    assert home.ask("GET", "/v1/models", headers=cookie).status_code == 503
