"""Sessions: a browser reads by its cookie, and changes only with the token that its own page has."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.api.access import SIGN_IN, Warden, identify
from service.api.routes import Methods
from service.api.session import COOKIE, Sessions, cookie_of, no_cookie, token_of
from service.domain.access import Right, Role
from service.storage import sessions
from tests.asgi import Client
from tests.keyed import Keyed, keyed
from tests.migrated import migrated

PAGES: dict[str, Methods] = {
    SIGN_IN: {"GET": None, "POST": None},
    "/things/{name}": {"GET": Right.READ, "POST": Right.OPERATE},
}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Keyed]:
    database = migrated(tmp_path / "retrue.db")
    with keyed(tmp_path, database) as made:
        yield made
    database.close()


def code_of(response: httpx.Response) -> Any:
    return response.json()["code"]


def signed_in(home: Keyed, key: str) -> str:
    return home.app.warden._sessions.begin(key)


def test_a_session_reads_by_its_cookie_and_changes_only_with_its_token(home: Keyed) -> None:
    value = signed_in(home, home.key(Role.OPERATOR, name="ada"))
    cookie = {"Cookie": f"other=1; {COOKIE}={value}"}
    assert home.ask("GET", "/v1/models", headers=cookie).status_code == 200
    for token in (None, "", "x" * 64, token_of(value)[:-1], token_of("another")):
        sent = cookie | ({} if token is None else {"X-CSRF-Token": token})
        answer = home.ask("POST", "/v1/models/flip/runs", headers=sent, json={})
        assert (answer.status_code, code_of(answer)) == (403, "no-token")
    answer = home.ask("POST", "/v1/models/flip/runs", headers=cookie | {"X-CSRF-Token": token_of(value)}, json={})
    assert (answer.status_code, answer.json()["actor"]) == (202, "ada")
    assert (home.audit()[0].origin or {})["via"] == "console"
    assert home.ask("GET", "/v1/keys", headers=cookie).status_code == 403


def test_a_session_ends_with_its_key_its_time_or_its_person(home: Keyed) -> None:
    key = home.key(Role.VIEWER, name="ada")
    home.key(Role.ADMIN)
    held, short, left = (signed_in(home, key) for _ in range(3))

    def seen(value: str) -> int:
        return home.ask("GET", "/v1/models", headers={"Cookie": f"{COOKIE}={value}"}).status_code

    assert [seen(held), seen(short), seen(left)] == [200, 200, 200]
    home.app.warden._sessions.close(left)
    with home.database.write() as conn:
        over = sessions.begin(conn, key[4:12], lasts=timedelta(0))
    assert [seen(held), seen(left), seen(over), seen("made up")] == [200, 401, 401, 401]
    home.revoke("ada")
    assert [seen(held), seen(short)] == [401, 401]


def test_the_cookie_is_for_this_site_and_no_script() -> None:
    parts = {part.strip().lower() for part in cookie_of("v", is_secure=True).split(";")}
    assert {"httponly", "samesite=strict", "secure", "path=/", "max-age=43200"} <= parts
    assert "secure" not in cookie_of("v", is_secure=False).lower()
    assert "max-age=0" in no_cookie().lower()


def test_the_token_tells_nothing_of_the_cookie() -> None:
    tokens = {token_of(str(number)) for number in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 64 for token in tokens)
    assert all(first != second for first, second in pairwise(sorted(tokens)))


# -- pages for people


@pytest.fixture
def site(home: Keyed) -> Client:
    """Return a client of a site with pages, behind a warden."""

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        form = await Request(scope, receive).body()
        actor = identify(scope).actor if scope["path"] != SIGN_IN else "anybody"
        await PlainTextResponse(f"{actor} {form.decode()}")(scope, receive, send)

    found = Sessions(home.database, home.worker.replica.keyring)
    home.app.warden = Warden(page, gate=home.app.gate, sessions=found, telemetry=home.telemetry, pages=PAGES)
    return home.client


def test_who_has_no_session_is_sent_to_sign_in_and_a_program_is_told_what_is_wrong(home: Keyed, site: Client) -> None:
    key = home.key(Role.VIEWER)
    for method in ("GET", "POST"):
        for cookie in ({}, {"Cookie": f"{COOKIE}=made-up"}):
            answer = site.request(method, "/things/1", headers=cookie)
            assert (answer.status_code, answer.headers["location"]) == (303, SIGN_IN)
            assert answer.headers["cache-control"] == "no-store"
    assert site.get(SIGN_IN).text == "anybody "
    assert site.get("/v1/models").status_code == 401
    assert home.ask("GET", "/things/1", key).text == "viewer's "


def test_a_pages_form_comes_to_the_page_with_its_token_and_only_from_who_may(home: Keyed, site: Client) -> None:
    operator, viewer = home.key(Role.OPERATOR, name="ada"), home.key(Role.VIEWER, name="bob")
    values = {name: signed_in(home, key) for name, key in (("ada", operator), ("bob", viewer))}

    def send(name: str, path: str = "/things/1") -> httpx.Response:
        return site.request("POST", path, headers={"Cookie": f"{COOKIE}={values[name]}"}, content=b"token=x")

    assert send("ada").text == "ada token=x"
    refused = send("bob")
    assert (refused.status_code, refused.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "the role operator or admin may" in refused.text
    answer = send("ada", "/v1/models/flip/runs")
    assert (answer.status_code, code_of(answer)) == (403, "no-token"), "what is no page still wants it in its header"
