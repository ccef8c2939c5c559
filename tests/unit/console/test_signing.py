"""The console with keys: who signs in may what the key may, by name; who does not sees the door."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.access import Warden
from service.api.problems import status_of
from service.api.session import COOKIE, Sessions
from service.api.signing import Signing
from service.console.door import KeyedDoor
from service.console.routes import PAGES, router
from service.console.site import Site
from service.domain.access import Role
from tests.asgi import serving
from tests.forms import Operator
from tests.keyed import Keyed
from tests.migrated import migrated


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Keyed]:
    database = migrated(tmp_path / "retrue.db")
    made = Keyed(tmp_path, database)
    found = Sessions(database, made.worker.replica.keyring)
    door = KeyedDoor(Signing(found, is_open=lambda: made.app.gate.is_open))
    made.app.include_router(router(Site(database, status_of=status_of, door=door)))
    made.app.warden = Warden(made.app.behind, gate=made.app.gate, sessions=found, telemetry=made.telemetry, pages=PAGES)
    made.worker.replica.look()
    with serving(made.app) as made.client:
        yield made
    database.close()


def signed_in(home: Keyed, key: str) -> Operator:
    """Return a browser that has signed in."""
    operator = Operator(home.client)
    answer = operator.press("/sign-in", key=key)
    assert (answer.status_code, answer.headers["location"]) == (303, "/"), answer.text
    assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().split("; "))
    return operator


def test_every_address_of_the_console_has_a_declared_right(home: Keyed) -> None:
    found = router(Site(home.database)).routes
    there = {(route.path, method) for route in found for method in route.methods}  # type: ignore[attr-defined]
    assert there == {(path, method) for path, methods in PAGES.items() for method in methods}


def test_who_has_not_signed_in_sees_the_door_alone(home: Keyed) -> None:
    home.key(Role.ADMIN)
    for path, methods in PAGES.items():
        for method, right in methods.items():
            filled = path.replace("{model}", "flip").replace("{path:path}", "console.css")
            answer = home.client.request(method, filled.replace("{", "").replace("}", ""))
            if right is not None:
                assert (answer.status_code, answer.headers.get("location")) == (303, "/sign-in"), path
    assert home.client.get("/sign-in").status_code == 200


def test_who_signs_in_changes_under_the_keys_name_and_no_more_than_it_may(home: Keyed) -> None:
    key = home.key(Role.OPERATOR, name="ada")
    ada, bob = signed_in(home, key), signed_in(home, home.key(Role.VIEWER, name="bob"))
    assert "ada" in ada.open("/").said
    assert ada.press("/models/flip/pause", comment="holidays").status_code == 303
    row = home.audit()[0]
    assert (row.actor, row.action, row.reason) == ("ada", "switch_set", "holidays")
    assert (row.origin or {})["via"] == "console"
    assert (row.origin or {})["key"] == key[4:12]
    refused = bob.press("/models/flip/freeze", comment="why not")
    assert (refused.status_code, "the role operator or admin may" in refused.text) == (403, True)
    approver = signed_in(home, home.key(Role.APPROVER, name="eve"))
    assert approver.press("/models/flip/freeze").status_code == 403
    assert [row.subject for row in home.audit() if row.action == "switch_set"] == ["pause"]


def test_a_key_that_opens_nothing_at_the_door_is_logged_with_the_address_and_without_the_key(
    home: Keyed, caplog: pytest.LogCaptureFixture
) -> None:
    key = home.key(Role.ADMIN, name="ada")
    home.revoke("ada")
    assert Operator(home.client).press("/sign-in", key=key).status_code == 401
    found = [record.facts for record in caplog.records if record.getMessage() == "access_refused"]  # type: ignore[attr-defined]
    assert found == [{"why": "revoked-key", "address": "127.0.0.1", "key": key[4:12]}]
    assert key[13:50] not in " ".join(str(record.__dict__) for record in caplog.records)


def test_a_form_of_another_session_or_none_changes_nothing(home: Keyed) -> None:
    ada, bob = (signed_in(home, home.key(Role.OPERATOR, name=name)) for name in ("ada", "bob"))
    before = len(home.audit())
    token = ada.open("/models/flip/pause").fields["token"]
    for given in (token, "", "x" * 64):
        assert bob.send("/models/flip/pause", token=given, comment="forged").status_code == 403
    assert len(home.audit()) == before


def test_a_session_ends_by_signing_out_and_with_its_key(home: Keyed) -> None:
    ada, bob = (signed_in(home, home.key(Role.OPERATOR, name=name)) for name in ("ada", "bob"))
    kept = dict(ada.cookies)
    answer = ada.send("/sign-out", token=ada.open("/").fields["token"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    ada.cookies = kept
    assert home.client.get("/", headers={"Cookie": f"{COOKIE}={kept[COOKIE]}"}).status_code == 303
    home.revoke("bob")
    assert home.client.get("/", headers={"Cookie": f"{COOKIE}={bob.cookies[COOKIE]}"}).status_code == 303


def test_a_wrong_key_is_told_and_stands_nowhere(home: Keyed) -> None:
    key = home.key(Role.ADMIN)
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    operator = Operator(home.client)
    for given in ("", "rtr_made_up", wrong, "<script>alert(1)</script>"):
        answer = operator.press("/sign-in", key=given)
        assert answer.status_code == 401
        assert COOKIE not in operator.cookies
        assert not given or given not in answer.text
