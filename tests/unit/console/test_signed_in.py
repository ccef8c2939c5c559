"""The console of a whole fleet with keys: what a viewer sees, what a watched run does when its key ends, bad input."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import monotonic
from urllib.parse import quote

import pytest
from starlette.requests import Request
from typing_extensions import override

from service.api.access import Warden
from service.api.problems import status_of
from service.api.session import COOKIE, Sessions
from service.api.signing import Signing
from service.console.door import KeyedDoor, Visitor
from service.console.routes import PAGES, router
from service.console.site import Site
from service.domain.access import Role
from service.storage import audit, champions, models
from tests.asgi import serving
from tests.fleet import EVIL, LONG, Fleet, fleet
from tests.forms import Operator
from tests.keyed import Keyed
from tests.migrated import migrated

MODEL = Fleet.model
GONE_S = 15.0
"""A stream must have noticed by then."""


class Door(KeyedDoor):
    """Says when a stream has let its visitor in."""

    def __init__(self, signing: Signing) -> None:
        super().__init__(signing)
        self.streams = Event()

    @override
    def visitor(self, request: Request) -> Visitor:
        if request.url.path.endswith("/stream"):
            self.streams.set()
        return super().visitor(request)


class Home(Keyed):
    """Keys over a fleet."""

    made: Fleet
    door: Door
    leaving = False

    def signed_in(self, *roles: Role, name: str = "") -> Operator:
        """Return a browser that has signed in."""
        operator, key = Operator(self.client), self.key(*roles, name=name or roles[0].value)
        ends = monotonic() + 30  # the worker's own look, begun before the key was made, may end after it
        while (answer := operator.press("/sign-in", key=key)).status_code != 303 and monotonic() < ends:
            self.look()
        assert answer.status_code == 303, answer.text
        return operator

    def newest(self) -> int:
        """Return the number of the audit's newest row."""
        with self.database.read() as conn:
            return audit.list_of(conn, limit=1)[0].seq


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    database = migrated(tmp_path / "retrue.db")
    made = Home(tmp_path, database)
    made.made = fleet(database)
    found = Sessions(database, made.worker.replica.keyring)
    made.door = Door(Signing(found, is_open=lambda: made.app.gate.is_open))
    made.app.include_router(
        router(Site(database, status_of=status_of, door=made.door, patience_s=60, is_leaving=lambda: made.leaving))
    )
    made.app.warden = Warden(made.app.behind, gate=made.app.gate, sessions=found, telemetry=made.telemetry, pages=PAGES)
    made.worker.replica.look()
    with serving(made.app) as made.client:
        yield made
    database.close()


def told(home: Home, operator: Operator, *, then: Callable[[], object]) -> list[str]:
    """Return the events of a run that goes on, watched until its stream ends; `then` happens meanwhile."""
    home.door.streams.clear()
    home.leaving = False
    cookie = "; ".join(f"{name}={value}" for name, value in operator.cookies.items())
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit(home.client.get, f"/runs/{home.made.waiting}/stream", headers={"Cookie": cookie})
        try:
            assert home.door.streams.wait(60)
            then()
            began = monotonic()
            lines = text.result(60).text.splitlines()
        finally:
            home.leaving = True  # a stream that never ends fails its test, and holds up no other
    assert monotonic() - began < GONE_S
    return [line for line in lines if line.startswith("event")]


def test_a_stream_ends_when_its_key_is_revoked(home: Home) -> None:
    eve = home.signed_in(Role.VIEWER, name="eve")
    assert told(home, eve, then=lambda: home.revoke("eve")) == ["event: moved", "event: gone"]


def test_a_stream_ends_when_its_key_expires(home: Home) -> None:
    eve = home.signed_in(Role.VIEWER, name="eve")
    assert told(home, eve, then=lambda: home.expire("eve")) == ["event: moved", "event: gone"]


def test_a_stream_ends_when_somebody_signs_out_and_no_other_sessions_does(home: Home) -> None:
    eve, ada = home.signed_in(Role.VIEWER, name="eve"), home.signed_in(Role.OPERATOR, name="ada")
    token = eve.open("/").fields["token"]
    watched = Operator(home.client)
    watched.cookies = dict(eve.cookies)
    assert told(home, watched, then=lambda: eve.send("/sign-out", token=token)) == ["event: moved", "event: gone"]
    cancelled = told(home, ada, then=lambda: ada.press(f"/runs/{home.made.waiting}/cancel"))
    assert cancelled[-1] == "event: over"


def test_a_stream_that_began_while_everybody_could_come_in_ends_with_the_first_key(home: Home) -> None:
    anybody = Operator(home.client)
    assert told(home, anybody, then=lambda: home.key(Role.ADMIN)) == ["event: moved", "event: gone"]


def test_a_viewer_sees_what_would_happen_and_no_button(home: Home) -> None:
    bob = home.signed_in(Role.VIEWER, name="bob")
    page = bob.open(f"/models/{MODEL}")
    assert "Version 1 answers again at once" in page.said
    assert "Your key bob may look" in page.said
    for path in (f"/models/{MODEL}", "/models/bikes", f"/versions/{MODEL}/1", f"/runs/{home.made.waiting}", "/"):
        assert not [given for tag, given in bob.open(path).elements if tag == "a" and "data-ask" in given], path


def test_who_opens_a_buttons_page_without_its_right_is_told_which_role_has_it(home: Home) -> None:
    bob, eve = home.signed_in(Role.VIEWER, name="bob"), home.signed_in(Role.APPROVER, name="eve")
    page = bob.open(f"/models/{MODEL}/retrain")
    assert "Your key bob may look, not do this: the role operator or admin may." in page.said
    assert [given for tag, given in page.elements if tag == "button" and "disabled" in given]
    assert "not do this: the role approver or admin may." in bob.open(f"/runs/{home.made.waiting}/approve").said
    back = eve.open(f"/models/{MODEL}/rollback")
    assert "Your key" not in back.said
    assert not [given for tag, given in back.elements if tag == "button" and "disabled" in given]


def test_each_role_is_offered_what_it_may_and_nothing_else(home: Home) -> None:
    offered = {}
    for role in (Role.OPERATOR, Role.APPROVER, Role.ADMIN):
        who = home.signed_in(role, name=f"{role}-1")
        pages = [who.open(path) for path in (f"/models/{MODEL}", f"/versions/{MODEL}/3", f"/runs/{home.made.waiting}")]
        asked = [given for page in pages for tag, given in page.elements if tag == "a" and "data-ask" in given]
        offered[role] = {given["href"].rpartition("/")[2].partition("?")[0] for given in asked}
    assert offered[Role.APPROVER] == {"rollback", "promote", "approve", "reject"}
    assert {"retrain", "check", "rollback", "pin", "clear-hold", "cancel"} <= offered[Role.OPERATOR]
    assert not offered[Role.OPERATOR] & {"promote", "approve", "reject"}
    assert offered[Role.ADMIN] == offered[Role.OPERATOR] | offered[Role.APPROVER]


def changes(home: Home) -> list[str]:
    """Return every address of the console that changes something."""
    paths = [path for path, methods in PAGES.items() if "POST" in methods and not path.startswith("/sign")]
    return [path.replace("{model}", MODEL).replace("{run_id}", home.made.waiting) for path in paths]


def test_a_sessions_cookie_without_its_token_changes_nothing_anywhere(home: Home) -> None:
    """A page of another site makes the browser send the cookie; it can't know the token."""
    admin = home.signed_in(Role.ADMIN, name="root")
    before, paths = home.newest(), changes(home)
    assert len(paths) >= 18
    for path in paths:
        for fields in ({}, {"token": ""}, {"token": "0" * 64}):
            filled = {"seen": "4", "to": "1", "version": "1", "comment": "forged", **fields}
            assert admin.send(path, **filled).status_code == 403, path
    assert home.newest() == before
    assert admin.open("/").said.count("root") == 1  # and the session goes on


def test_a_token_in_the_address_is_none(home: Home) -> None:
    admin = home.signed_in(Role.ADMIN, name="root")
    token = admin.open("/").fields["token"]
    assert admin.send(f"/models/{MODEL}/pause?token={token}").status_code == 403


def test_html_in_features_reasons_and_comments_is_text_on_every_page_behind_the_door(home: Home) -> None:
    ada, seen = home.signed_in(Role.OPERATOR, name="ada"), 0
    assert ada.press(f"/models/{MODEL}/pause", comment=EVIL).status_code == 303
    paths = (
        "/", "/runs", "/checks", "/audit", f"/models/{MODEL}", "/models/bikes", "/models/fresh",
        f"/models/{MODEL}/clear-pause", f"/models/{MODEL}/rollback?to=3", f"/versions/{MODEL}/3",
        f"/runs/{home.made.run}", f"/checks/{home.made.check}", f"/checks/{home.made.broken}",
    )  # fmt: skip
    for path in paths:
        page = ada.open(path)
        tags = [tag for tag, _ in page.elements]
        assert (tags.count("script"), tags.count("img")) == (2, 0), path
        assert not [given for _, given in page.elements if any(name.startswith("on") for name in given)], path
        seen += EVIL in page.words
    assert seen >= 9
    assert f"by ada: {EVIL}" in ada.open(f"/models/{MODEL}").words


@pytest.mark.parametrize("name", [LONG, "a" * 200, "../../etc/passwd", "%2e%2e", "..;", "a\r\nset-cookie: b=c"])
def test_a_name_that_no_model_has_leads_nowhere_and_changes_nothing(home: Home, name: str) -> None:
    ada, told_ = home.signed_in(Role.OPERATOR, name="ada"), quote(name, safe="")
    before, token = home.newest(), ada.open("/").fields["token"]
    for path in (f"/models/{told_}", f"/models/{told_}/pause", f"/versions/{told_}", f"/versions/{told_}/1"):
        assert home.client.get(path).status_code in {303, 401}, path  # without a session nobody learns even that
        answer = home.client.get(path, headers={"Cookie": f"{COOKIE}={ada.cookies[COOKIE]}"})
        assert answer.status_code == 404, (path, answer.text)
        assert "set-cookie" not in answer.headers
    assert ada.send(f"/models/{told_}/pause", token=token).status_code in {403, 404}  # no page of ours, or no model
    assert home.newest() == before


def test_an_address_holds_no_nul(home: Home) -> None:
    ada = home.signed_in(Role.OPERATOR, name="ada")
    for path in ("/models/a%00b", "/runs?model=a%00b", "/audit?before=%00"):
        assert home.client.get(path, headers={"Cookie": f"{COOKIE}={ada.cookies[COOKIE]}"}).status_code == 400, path


def test_two_operators_at_once_change_the_champion_once(home: Home) -> None:
    ada, bob = home.signed_in(Role.OPERATOR, name="ada"), home.signed_in(Role.OPERATOR, name="bob")
    seen = [(one, one.open(f"/models/{MODEL}/rollback").fields) for one in (ada, bob)]
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(one.send, f"/models/{MODEL}/rollback", **fields) for one, fields in seen]
        codes = sorted(one.result(60).status_code for one in sent)
    assert codes == [303, 412]
    with home.database.read() as conn:
        assert len(champions.history(conn, MODEL)) == 5
        assert "hold" in models.switches(conn, MODEL)
