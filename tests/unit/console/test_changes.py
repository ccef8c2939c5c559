"""What an operator may press: each does what its page said, once, and only from a form of the console's own."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.requests import Request

from service.console.door import OpenDoor
from service.control import requests
from service.domain.errors import NotAllowedNow
from service.domain.run import RunState
from service.storage import audit, champions, checks, models, probations, runs, versions
from tests.fleet import EVIL
from tests.forms import Page
from tests.unit.console.conftest import Console, opened

MODEL = "electricity"


def test_retrain_makes_one_run_however_often_its_form_is_sent(console: Console) -> None:
    operator = console.operator
    with console.database.write() as conn:
        requests.reject(conn, console.made.waiting, seen=None, actor="ada", reason="no")
    fields = operator.open(f"/models/{MODEL}/retrain").fields
    first, second = (operator.send(f"/models/{MODEL}/retrain", **fields, comment=EVIL) for _ in range(2))
    assert first.status_code == second.status_code == 303
    assert first.headers["location"] == second.headers["location"]
    with console.database.read() as conn:
        run = runs.get(conn, first.headers["location"].removeprefix("/runs/"))
        told = [row for row in audit.list_of(conn, MODEL) if row.subject == run.id]
    assert (run.actor, run.reason, run.trigger.value) == ("console", EVIL, "manual")
    assert [row.action for row in told] == ["run_asked"]
    assert EVIL in operator.open(f"/runs/{run.id}").words


def test_a_second_operators_retrain_is_refused_and_says_why(console: Console) -> None:
    assert console.operator.press(f"/models/{MODEL}/retrain").status_code == 303
    other = console.operator.press(f"/models/{MODEL}/retrain")
    assert other.status_code == 409
    assert "Not done" in Page(other.text).said
    assert "refused now: a run is under way" in console.operator.open(f"/models/{MODEL}/retrain").said


def test_a_rollback_goes_where_its_page_said_and_holds_promotion(console: Console) -> None:
    with console.database.write() as conn:
        models.clear_switch(conn, MODEL, "hold")
    page = console.operator.open(f"/models/{MODEL}/rollback")
    assert "Version 1 answers again at once, in place of version 2." in page.said
    assert page.fields["to"] == "1"
    done = console.operator.press(f"/models/{MODEL}/rollback", comment="it was better")
    assert done.headers["location"] == f"/models/{MODEL}?said=rolled-back"
    with console.database.read() as conn:
        now, held = champions.current(conn, MODEL), models.switches(conn, MODEL)
    assert now is not None
    assert (now.version, now.changed_by, now.reason) == (1, "console", "it was better")
    assert "hold" in held
    assert "Rolled back. Automatic promotion is held" in console.operator.open(done.headers["location"]).said


def test_what_was_taken_back_is_not_offered_first_and_says_that_it_was(console: Console) -> None:
    """Whoever rolls back twice goes further back, and not to and fro."""
    page = console.operator.open(f"/models/{MODEL}/rollback")
    assert "Version 1 answers again" in page.said
    assert "Back to another version instead: version 3, taken back on 25 May 2026 by ada Comment" in page.said
    back = console.operator.open(f"/models/{MODEL}/rollback?to=3")
    assert "Undoes a rollback: version 3 answers again at once, in place of version 2." in back.said
    assert "ada took version 3 back on 25 May 2026: customers complained" in back.said


def test_where_only_what_was_taken_back_is_left_the_button_says_what_it_undoes(console: Console) -> None:
    assert console.operator.press(f"/models/{MODEL}/rollback").status_code == 303
    assert "Undoes a rollback: version 2 answers again at once, in place of version 1." in (
        console.operator.open(f"/models/{MODEL}").said
    )


def test_a_versions_own_page_leads_back_to_that_version(console: Console) -> None:
    back = next(link for link in console.operator.open(f"/versions/{MODEL}/1").links if "rollback" in link)
    page = console.operator.open(back)
    assert "Version 1 answers again at once, in place of version 2." in page.said
    assert console.operator.press(back).status_code == 303
    with console.database.read() as conn:
        now = champions.current(conn, MODEL)
    assert now is not None
    assert now.version == 1


def test_of_two_operators_who_roll_back_at_once_the_second_changes_nothing(console: Console) -> None:
    first, second = console.operator, console.operator
    seen = [(one, one.open(f"/models/{MODEL}/rollback").fields) for one in (first, second)]
    answers = [one.send(f"/models/{MODEL}/rollback", **fields) for one, fields in seen]
    assert [answer.status_code for answer in answers] == [303, 412]
    assert "has changed since you looked" in Page(answers[1].text).said
    with console.database.read() as conn:
        assert len(champions.history(conn, MODEL)) == 5


@pytest.mark.parametrize("switch", ["pin", "freeze", "pause", "hold"])
def test_each_switch_is_set_and_cleared_with_its_audit(console: Console, switch: str) -> None:
    operator = console.operator
    if switch != "hold":
        assert operator.press(f"/models/{MODEL}/{switch}", comment="quiet week").status_code == 303
        with console.database.read() as conn:
            assert models.switches(conn, MODEL)[switch].reason == "quiet week"
    assert operator.press(f"/models/{MODEL}/clear-{switch}").status_code == 303
    with console.database.read() as conn:
        assert switch not in models.switches(conn, MODEL)
        newest = audit.list_of(conn, MODEL, limit=1)[0]
    assert (newest.action, newest.subject, newest.actor) == ("switch_cleared", switch, "console")
    assert newest.reason == "asked in the console"
    assert operator.press(f"/models/{MODEL}/clear-{switch}").status_code == 409


def test_check_now_queues_one_check_and_shows_it(console: Console) -> None:
    where = [console.operator.press(f"/models/{MODEL}/check").headers["location"] for _ in range(2)]
    assert where[0] == where[1]
    with console.database.read() as conn:
        assert checks.get(conn, where[0].removeprefix("/checks/")).actor == "console"
        newest = audit.list_of(conn, MODEL, limit=1)[0]
    assert (newest.action, newest.actor) == ("check_asked", "console")
    assert "It is queued." in console.operator.open(where[0]).said


def test_promoting_by_hand_asks_the_workers_and_waits(console: Console) -> None:
    page = console.operator.open(f"/models/{MODEL}/promote?version=1")
    assert "Version 1 becomes champion, in place of version 2, whatever its gate said." in page.said
    done = console.operator.press(f"/models/{MODEL}/promote?version=1")
    assert done.status_code == 303
    with console.database.read() as conn:
        assert [swap.version for swap in champions.waiting(conn, MODEL)] == [1]
    assert "as soon as every worker has loaded it" in console.operator.open(f"/models/{MODEL}").said


def test_an_approval_is_of_the_run_as_it_was_seen(console: Console) -> None:
    run = console.made.waiting
    fields = console.operator.open(f"/runs/{run}/reject").fields
    stale = console.operator.press(f"/runs/{run}/reject", seen=int(fields["seen"]) - 1)
    assert stale.status_code == 412
    assert console.operator.press(f"/runs/{run}/reject", comment="not this week").status_code == 303
    with console.database.read() as conn:
        found = runs.get(conn, run)
        assert versions.get(conn, MODEL, 4).state.value == "rejected"
    assert (found.state, found.detail) == (RunState.REJECTED, "not this week")


def test_a_run_can_be_cancelled_from_its_page(console: Console) -> None:
    where = console.operator.press(f"/models/{MODEL}/retrain").headers["location"]
    assert console.operator.press(f"{where}/cancel").headers["location"] == where
    with console.database.read() as conn:
        assert runs.get(conn, where.removeprefix("/runs/")).state is RunState.CANCELLED


@pytest.mark.parametrize(
    "path",
    [f"/models/{MODEL}/{name}" for name in ("retrain", "rollback", "pin", "check", "promote", "clear-hold")],
)
@pytest.mark.parametrize("forged", ["no token", "another browser's", "no cookie"])
def test_a_form_that_is_not_the_consoles_own_changes_nothing(console: Console, path: str, forged: str) -> None:
    operator = console.operator
    fields = {**operator.open(f"/models/{MODEL}/rollback").fields, "version": "3", "to": "1"}
    if forged == "no token":
        fields.pop("token")
    elif forged == "another browser's":
        fields["token"] = console.operator.open("/models/electricity/pin").fields["token"]
    else:
        operator.cookies.clear()
    with console.database.read() as conn:
        before = audit.list_of(conn, limit=1)[0].seq
    response = operator.send(path, **fields)
    assert response.status_code == 403
    with console.database.read() as conn:
        assert audit.list_of(conn, limit=1)[0].seq == before


def test_the_cookie_is_for_this_site_and_no_script(console: Console) -> None:
    cookie = console.client.get("/").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Domain" not in cookie


@pytest.mark.parametrize("comment", ["a\x00b", "x" * 5000, "  ", "ünï\u2028code"])
def test_a_comment_is_kept_as_text_whatever_stands_in_it(console: Console, comment: str) -> None:
    assert console.operator.press(f"/models/{MODEL}/pause", comment=comment).status_code == 303
    with console.database.read() as conn:
        reason = models.switches(conn, MODEL)["pause"].reason
    assert "\x00" not in reason
    assert 0 < len(reason) <= 2000


@pytest.mark.parametrize("body", [b"\xff\xfe=1", b"a=1&" * 100, b"seen=-1&to=x", b""])
def test_a_broken_form_is_the_callers_fault(console: Console, body: bytes) -> None:
    response = console.client.post(f"/models/{MODEL}/rollback", content=body)
    assert response.status_code in {400, 403}


def test_a_verb_that_is_none_has_no_page(console: Console) -> None:
    assert console.client.get(f"/models/{MODEL}/delete").status_code == 404
    assert console.client.post(f"/models/{MODEL}/delete").status_code == 404


def test_an_operator_on_probation_is_told_that_the_champion_would_be_quarantined(console: Console) -> None:
    with console.database.write() as conn:
        now = champions.current(conn, MODEL)
        assert now is not None
        probations.begin(
            conn, MODEL, generation=now.generation, version=now.version, previous_version=1, run_id=None,
            at=datetime.now(UTC), event_time=datetime(2026, 6, 1, tzinfo=UTC), actor="ada",
        )  # fmt: skip
    assert "Version 2 is on probation: it is quarantined" in console.operator.open(f"/models/{MODEL}/rollback").said
    assert console.operator.press(f"/models/{MODEL}/rollback").status_code == 303
    with console.database.read() as conn:
        assert versions.get(conn, MODEL, 2).state.value == "quarantined"


class Locked(OpenDoor):
    """A door with one key."""

    is_open = False

    def begin(self, request: Request, key: str) -> str:  # noqa: ARG002
        if key != "rtr_right":
            msg = "that key is not known"
            raise NotAllowedNow(msg)
        return "retrue_session=1; Path=/; HttpOnly; SameSite=Strict"

    def end(self, request: Request) -> str:  # noqa: ARG002
        return "retrue_session=; Path=/; Max-Age=0"


def test_signing_in_takes_a_key_and_gives_a_cookie(tmp_path: Path) -> None:
    with opened(tmp_path, door=Locked()) as console:
        operator = console.operator
        assert "Sign out" in operator.open("/sign-in").said
        wrong = operator.press("/sign-in", key="rtr_wrong")
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (409, False)
        done = operator.press("/sign-in", key="rtr_right")
        assert (done.status_code, done.headers["location"]) == (303, "/")
        assert "retrue_session=1" in done.headers["set-cookie"]
        token = operator.open("/").fields["token"]
        gone = operator.send("/sign-out", token=token)
        assert gone.headers["location"] == "/sign-in"
        assert "Max-Age=0" in gone.headers["set-cookie"]


def test_where_no_key_is_asked_for_the_sign_in_page_says_so(console: Console) -> None:
    assert "Nobody has to sign in here" in console.operator.open("/sign-in").said
    assert console.operator.press("/sign-in", key="any").status_code == 403
