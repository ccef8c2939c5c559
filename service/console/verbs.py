"""What an operator may press: each with a page that says what will happen, and the change by the control's verbs.

A form names what its reader saw: a generation, a revision, a key of its own. Pressed twice it does one thing, and
pressed after somebody else has changed what was seen, none.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request

from service.console import consequences, words
from service.console.consequences import Consequence
from service.console.door import Visitor
from service.console.look import Look, look
from service.console.site import Form, Shown, address
from service.control import orders, requests, rollback, suggestion
from service.domain.access import Right, roles_with
from service.domain.errors import GenerationMismatch, InvalidRequest, NotAllowedNow
from service.storage import champions, runs, versions

__all__ = ["MODEL_VERBS", "RUN_VERBS", "Asked", "Verb", "confirm_model", "confirm_run"]

SILENT = "asked in the console"
"""Stands in the audit where nothing was written."""
LONGEST = 2000


@dataclass(frozen=True)
class Asked:
    """A form that came in."""

    subject: str
    """Name of the model, or id of the run."""
    visitor: Visitor
    form: Form

    @property
    def reason(self) -> str:
        """The comment."""
        # A database takes no NUL in a text.
        return self.form.get("comment", "").replace("\x00", "").strip()[:LONGEST] or SILENT

    def number(self, name: str) -> int:
        """Return a number that the form carries."""
        text = self.form.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            msg = f"the form lacks its {name}: open the page again"
            raise InvalidRequest(msg)
        return int(text)


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One button."""

    name: str
    title: str
    button: str
    act: Callable[[Connection, Asked], str]
    """Makes the change and returns the page that shows it."""
    consequence: Callable[[Look], Consequence] = lambda _: Consequence(summary="")
    right: Right = Right.OPERATE
    """What a key must have to press it."""
    is_grave: bool = False
    """Whether it changes at once what serves."""
    facts: Callable[[Connection, Look], Mapping[str, Any]] = lambda _conn, _look: {}
    """Further things to choose from."""

    @property
    def roles(self) -> str:
        """Who may press it, in words."""
        return " or ".join(roles_with(self.right))


def confirm_model(verb: Verb) -> Callable[[Connection, Request], Shown]:
    """Return the page that says what the verb would do to a model."""

    def page(conn: Connection, request: Request) -> Shown:
        found = look(conn, request.path_params["model"])
        facts = {
            "title": verb.title, "verb": verb, "look": found, "run": None, "consequence": verb.consequence(found),
            "back": address("models", found.name), "seen": found.champion.generation if found.champion else 0,
            "key": secrets.token_hex(16), "options": [], "may_force": False, "hidden": {},
        }  # fmt: skip
        if verb.name == "rollback":
            facts |= _rollback_facts(conn, found, request.query_params.get("to", ""))
        if verb.name == "promote":
            facts |= _promotion(conn, found, request.query_params.get("version", ""))
        return Shown("confirm.html", facts | dict(verb.facts(conn, found)))

    return page


def confirm_run(verb: Verb) -> Callable[[Connection, Request], Shown]:
    """Return the page that says what the verb would do to a run."""

    def page(conn: Connection, request: Request) -> Shown:
        run = runs.get(conn, request.path_params["run_id"])
        found = look(conn, run.model)
        told = (
            consequences.of_cancel()
            if verb.name == "cancel"
            else consequences.of_approve(found, run.version, is_approved=verb.name == "approve")
        )
        facts = {
            "title": verb.title, "verb": verb, "look": found, "run": run, "consequence": told,
            "back": address("runs", run.id), "seen": runs.revision(conn, run.id), "key": "", "options": [],
            "may_force": False, "hidden": {},
        }  # fmt: skip
        return Shown("confirm.html", facts)

    return page


def _promotion(conn: Connection, found: Look, given: str) -> Mapping[str, Any]:
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        msg = "which version? Promote one from its own page"
        raise InvalidRequest(msg)
    row = versions.get(conn, found.name, int(given))
    return {
        "title": f"Promote version {row.version}",
        "consequence": consequences.of_promote(found, row),
        "hidden": {"version": row.version},
        "back": address("versions", found.name, row.version),
    }


def _rollback_facts(conn: Connection, found: Look, given: str) -> Mapping[str, Any]:
    named = next((number for number in found.targets if str(number) == given), None)
    aim = named or next(iter(found.targets), None)
    # Links, and no field: what stands above the button is what happens, whichever version is chosen.
    options = [
        {"value": number, "words": f"version {number}{_of_target(found, number)}"}
        for number in found.targets
        if number != aim
    ]
    target = None if aim is None else versions.find(conn, found.name, aim)
    told = consequences.of_rollback(found, to=aim, target=target)
    return {"options": options, "consequence": told, "hidden": {} if aim is None else {"to": aim}}


def _of_target(found: Look, version: int) -> str:
    taken = found.taken.get(version)
    return "" if taken is None else f", taken back on {words.day(taken.ended_at)} by {taken.actor}"


def _retrain(conn: Connection, asked: Asked) -> str:
    is_forced = asked.form.get("force") == "yes"
    key = asked.form.get("key", "")[:64] or None
    digest = hashlib.sha256(repr((asked.subject, is_forced)).encode()).hexdigest()
    run = requests.ask(
        conn, asked.subject, actor=asked.visitor.actor, reason=asked.reason, force=is_forced, idempotency_key=key,
        request_digest=digest if key else None,
    )  # fmt: skip
    return address("runs", run.id)


def _check(conn: Connection, asked: Asked) -> str:
    found = orders.check(conn, asked.subject, actor=asked.visitor.actor, reason=asked.reason)
    return address("checks", found.id)


def _roll_back(conn: Connection, asked: Asked) -> str:
    seen, to = asked.number("seen"), asked.number("to")
    now = champions.current(conn, asked.subject)
    if now is not None and now.generation != seen:
        msg = (
            f"the champion has changed since you looked: version {now.version} serves now (generation "
            f"{now.generation}). Look again before you take it back"
        )
        raise GenerationMismatch(msg, model=asked.subject, generation=now.generation)
    rollback.roll_back(conn, asked.subject, to=to, actor=asked.visitor.actor, reason=asked.reason)
    return address("models", asked.subject, said="rolled-back")


def _promote(conn: Connection, asked: Asked) -> str:
    orders.promote(
        conn, asked.subject, version=asked.number("version"), expected=asked.number("seen"),
        actor=asked.visitor.actor, reason=asked.reason,
    )  # fmt: skip
    return address("models", asked.subject, said="promotion-asked")


def _accept(conn: Connection, asked: Asked) -> str:
    check = asked.form.get("check") or None
    run = suggestion.accept(conn, asked.subject, check=check, actor=asked.visitor.actor, reason=asked.reason)
    return address("runs", run.id)


def _accept_facts(_conn: Connection, found: Look) -> Mapping[str, Any]:
    return {} if found.suggestion is None else {"hidden": {"check": found.suggestion.check}}


def _accepted(found: Look) -> Consequence:
    told = consequences.of_retrain(found)
    if found.suggestion is None:
        return Consequence(summary="Nothing would be started.", forbidden="nothing is suggested now")
    return told


def _set(switch: str) -> Callable[[Connection, Asked], str]:
    def act(conn: Connection, asked: Asked) -> str:
        orders.set_switch(conn, asked.subject, switch, actor=asked.visitor.actor, reason=asked.reason)
        return address("models", asked.subject, said=f"{switch}-set")

    return act


def _clear(switch: str) -> Callable[[Connection, Asked], str]:
    def act(conn: Connection, asked: Asked) -> str:
        if not orders.clear_switch(conn, asked.subject, switch, actor=asked.visitor.actor, reason=asked.reason):
            msg = f"the switch {switch} is not on any more: somebody else was faster"
            raise NotAllowedNow(msg, model=asked.subject, switch=switch)
        return address("models", asked.subject, said=f"{switch}-cleared")

    return act


def _switch_verbs() -> list[Verb]:
    titles = {"pause": "Pause the schedule", "freeze": "Freeze", "pin": "Pin the champion", "hold": "Hold promotion"}
    clears = {
        "pause": "Resume the schedule", "freeze": "Unfreeze", "pin": "Unpin the champion", "hold": "Release the hold",
        "quarantine": "End the quarantine", "breaker": "Reset the breaker",
    }  # fmt: skip
    found = [
        Verb(
            name=switch, title=title, button=title, act=_set(switch),
            consequence=partial(consequences.of_switch, switch=switch, is_set=True),
        )
        for switch, title in titles.items()
    ]  # fmt: skip
    return found + [
        Verb(
            name=f"clear-{switch}", title=title, button=title, act=_clear(switch),
            consequence=partial(consequences.of_switch, switch=switch, is_set=False),
        )
        for switch, title in clears.items()
    ]  # fmt: skip


def _on_run(
    name: str, title: str, change: Callable[..., Any], *, right: Right, is_seen: bool, is_grave: bool = False
) -> Verb:
    def act(conn: Connection, asked: Asked) -> str:
        seen = {"seen": asked.number("seen")} if is_seen else {}
        run = change(conn, asked.subject, actor=asked.visitor.actor, reason=asked.reason, **seen)
        return address("runs", run.id)

    return Verb(name=name, title=title, button=title, act=act, right=right, is_grave=is_grave)


MODEL_VERBS = {
    verb.name: verb
    for verb in (
        Verb(name="check", title="Check now", button="Check now", act=_check, consequence=consequences.of_check),
        Verb(
            name="retrain", title="Retrain", button="Retrain", act=_retrain, consequence=consequences.of_retrain,
            facts=lambda _conn, _look: {"may_force": True},
        ),
        Verb(
            name="rollback", title="Roll back", button="Roll back", act=_roll_back, right=Right.ROLL_BACK,
            is_grave=True,
        ),
        Verb(name="promote", title="Promote", button="Promote", act=_promote, right=Right.APPROVE, is_grave=True),
        Verb(
            name="accept", title="Start the suggested run", button="Start the run", act=_accept,
            consequence=_accepted, facts=_accept_facts,
        ),
        *_switch_verbs(),
    )
}  # fmt: skip
RUN_VERBS = {
    verb.name: verb
    for verb in (
        _on_run("cancel", "Cancel the run", requests.cancel, right=Right.OPERATE, is_seen=False),
        _on_run("approve", "Approve", requests.approve, right=Right.APPROVE, is_seen=True, is_grave=True),
        _on_run("reject", "Reject", requests.reject, right=Right.APPROVE, is_seen=True),
    )
}
