"""Who is asking, and whether they may: the one place where a request gets its actor.

Predict and feedback come through `Gate.admit` alone, which is a look-up in memory; every other request passes the
`Warden`, which stands before all else, so that nothing of a stranger's request is read.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem, problem_of, status_of
from service.api.rates import Bucket, Rates
from service.api.routes import ROUTES, Methods, Table
from service.api.session import COOKIE, TOKEN_HEADER, Sessions, is_token_of
from service.api.strangers import Strangers
from service.domain.access import Right, roles_with
from service.domain.errors import (
    ForeignPage,
    InvalidRequest,
    MalformedKey,
    NoKey,
    NoToken,
    NotPermitted,
    RetrueError,
    TooManyRequests,
    WrongKey,
)
from service.serving.keyring import Keyring, Known
from service.telemetry import Slug, Telemetry

__all__ = ["CALLER", "Asker", "Caller", "Gate", "Warden", "identify"]

log = logging.getLogger(__name__)

CALLER = "retrue.caller"
"""Key in a request's scope."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
}
FRAMES = b"frame-ancestors 'none'"
SIGN_IN = "/sign-in"
"""Where people without a session are sent."""
STYLE = "/console/assets/console.css"
"""What a refusal looks like to people."""


@dataclass(frozen=True)
class Caller:
    """Who asks: the name that stands in runs, swaps and the audit, what it may do, and from where it comes."""

    actor: str
    rights: frozenset[Right] = frozenset(Right)
    origin: dict[str, Any] = field(default_factory=dict)


def identify(scope: Scope) -> Caller:
    """Return who sent the request, as the gate found."""
    caller: Caller = scope[CALLER]
    return caller


async def _asker(request: Request) -> Caller:
    return identify(request.scope)


Asker = Annotated[Caller, Depends(_asker)]
"""What a route takes to know who asks."""


class Gate:
    """Lets requests in.

    Parameters
    ----------
    keyring
        The keys.
    may_be_open
        Whether anybody may do everything as long as no key was ever made: only where nobody else reaches the address.
    rates
        How often one key may ask this worker.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        may_be_open: bool = True,
        rates: Rates | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keyring, self._may_be_open, self._rates = keyring, may_be_open, rates or Rates()
        self._monotonic = monotonic
        self._buckets: dict[tuple[str, bool], Bucket] = {}
        self.strangers = Strangers()
        """Writes down who was refused."""

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return self._may_be_open and not self._keyring.has_any

    def announce(self) -> None:
        """Say at start who may come in."""
        if self.is_open:
            words = (
                "no key was made yet: open for one person at one machine; `retrue keys create` makes the first, and "
                "from then on every request needs one"
            )
            log.warning(Slug.ACCESS_OPEN, extra={"facts": {"why": words}})
        else:
            log.info(Slug.ACCESS_BY_KEY, extra={"facts": {}})

    def admit(self, scope: Scope) -> None:
        """Let a request for a prediction, or with labels, in; raises what it lacks."""
        if self.is_open:
            _refuse_foreign(scope)
            return
        given = _header(scope, b"authorization")
        known = self._keyring.find(_bearer(given))
        if Right.PREDICT not in known.rights:
            raise _lacks(known, Right.PREDICT)
        if self._rates.predict:
            self._spend(known, self._rates.predict, is_predict=True)

    def caller(self, scope: Scope, *, session_key: str | None = None, is_predict: bool = False) -> Caller:
        """Return who sent the request; raises what it lacks.

        Parameters
        ----------
        session_key
            Id of the key that its session was begun with, if it came with one.
        is_predict
            Whether it asks for a prediction by an address that the short way does not know, such as a version's.
        """
        client = scope.get("client")
        origin: dict[str, Any] = {"via": "http"} | ({"address": client[0]} if client else {})
        if self.is_open:
            _refuse_foreign(scope)
            return Caller("operator", origin=origin)
        if session_key is None:
            known = self._keyring.find(_bearer(_header(scope, b"authorization")))
        else:
            known, origin["via"] = self._keyring.by_id(session_key), "console"
        if rate := self._rates.predict if is_predict else self._rates.other:
            self._spend(known, rate, is_predict=is_predict)
        return Caller(known.name, known.rights, {**origin, "key": known.id})

    def _spend(self, known: Known, rate: float, *, is_predict: bool) -> None:
        at = self._monotonic()
        bucket = self._buckets.get((known.id, is_predict))
        if bucket is None:
            bucket = self._buckets[known.id, is_predict] = Bucket(rate, at)
        if wait_s := bucket.take(at):
            msg = f"the key {known.id} has used up its {rate:g} requests a second: wait"
            raise TooManyRequests(msg, retry_after_s=math.ceil(wait_s))


class Warden:
    """What every request but the fast ones passes first: who asks, whether they may, and the answer's own headers.

    Parameters
    ----------
    app
        What answers a request that may go on.
    gate, sessions
        Who knows keys, and who knows browsers.
    telemetry
        Counts what is refused.
    pages
        Addresses for people, with what they ask for. Who has no session there is sent to sign in, and the token of a
        change stands in its form, where the page itself looks for it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        gate: Gate,
        sessions: Sessions,
        telemetry: Telemetry,
        pages: Mapping[str, Methods] = MappingProxyType({}),
    ) -> None:
        self._app, self._gate, self._sessions, self._telemetry = app, gate, sessions, telemetry
        self._table, self._pages = Table(ROUTES), Table(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        pages = self._pages.at(scope["path"])
        asked = pages or self._table.at(scope["path"])
        is_public = method in asked and asked[method] is None
        send = _with_headers(send, is_kept=is_public)
        try:
            _refuse_nul(scope)
            answer: Response | None = None
            if not is_public:
                caller = scope[CALLER] = await self._caller(scope, asked.get(method), is_page=bool(pages))
                answer = _refused(caller, asked, method)
        except RetrueError as error:
            self._telemetry.refused_requests.labels(error.code.replace("-", "_")).inc()
            known = scope.get(CALLER)
            self._gate.strangers.note(error, scope, actor=known and known.actor)
            answer = _to_people(error) if pages else problem_of(error)
        await (self._app if answer is None else answer)(scope, receive, send)

    async def _caller(self, scope: Scope, needed: Right | None, *, is_page: bool) -> Caller:
        is_predict = needed is Right.PREDICT
        token = None if self._gate.is_open or _header(scope, b"authorization") else _cookie(scope)
        if token is None:
            return self._gate.caller(scope, is_predict=is_predict)
        key_id = await run_in_threadpool(self._sessions.find, token)
        if key_id is None:
            msg = "the session is over: sign in again"
            raise WrongKey(msg)
        is_change = scope["method"] not in SAFE and not is_page
        if is_change and not is_token_of(token, _header(scope, TOKEN_HEADER)):
            # A browser adds the cookie to whatever any page sends; the token only the console's own page knows.
            msg = f"a change that comes with a session needs its token in the header {TOKEN_HEADER.decode()}"
            raise NoToken(msg)
        return self._gate.caller(scope, session_key=key_id, is_predict=is_predict)


def _refused(caller: Caller, asked: dict[str, Right | None], method: str) -> Response | None:
    """Return the answer to a caller who may not go on; None: may."""
    if Right.ADMINISTER in caller.rights:
        return None  # the router answers for what is not there
    if not asked:
        return problem(404, "there is nothing at this address; /docs lists what there is", code="not-found")
    if method not in asked:
        allowed = [one for name in asked for one in ((name, "HEAD") if name == "GET" else (name,))]
        headers = {"Allow": ", ".join(allowed)}
        return problem(405, "this address does not take that method", code="method-not-allowed", headers=headers)
    needed = asked[method]
    if needed is not None and needed not in caller.rights:
        raise _lack(caller.actor, needed)
    return None


def _to_people(error: RetrueError) -> Response:
    status = status_of(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    words = f"<h1>Not done</h1><p>{escape(error.detail)}</p><p><a href='/'>Go to the fleet</a></p>"
    head = f"<meta charset='utf-8'><title>Not done</title><link rel='stylesheet' href='{STYLE}'>"
    page = f"<!doctype html><html lang='en'>{head}<main>{words}</main></html>"
    return HTMLResponse(page, status, headers={"Content-Security-Policy": "default-src 'none'; style-src 'self'"})


def _refuse_nul(scope: Scope) -> None:
    # PostgreSQL takes no text with it, so it would be an accident in whatever route it got to.
    if "\0" in scope["path"] or b"%00" in scope.get("query_string", b""):
        msg = "an address holds no NUL character"
        raise InvalidRequest(msg)


def _with_headers(send: Send, *, is_kept: bool) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers") or [])
            fresh = [(name, value) for name, value in HEADERS.items() if name not in headers]
            if not is_kept and b"cache-control" not in headers:
                fresh.append((b"cache-control", b"no-store"))
            policy = headers.get(b"content-security-policy")
            rest = [pair for pair in message.get("headers") or [] if pair[0] != b"content-security-policy"]
            if policy is None or b"frame-ancestors" not in policy:
                policy = FRAMES if policy is None else policy + b"; " + FRAMES
            message = {**message, "headers": [*rest, *fresh, (b"content-security-policy", policy)]}
        await send(message)

    return guarded


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)


def _cookie(scope: Scope) -> str | None:
    raw = _header(scope, b"cookie")
    if raw is None:
        return None
    try:
        found = SimpleCookie(raw.decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


def _bearer(given: bytes | None) -> bytes:
    if given is None:
        msg = "send a key: Authorization: Bearer rtr_…; an admin makes one with `retrue keys create`"
        raise NoKey(msg)
    scheme, _, key = given.partition(b" ")
    if scheme.lower() != b"bearer":
        msg = "send the key as Authorization: Bearer rtr_…"
        raise MalformedKey(msg)
    return key


def _lacks(known: Known, needed: Right) -> NotPermitted:
    return _lack(known.name, needed)


def _lack(actor: str, needed: Right) -> NotPermitted:
    roles = roles_with(needed)
    msg = f"the key {actor} may not do that; the role {' or '.join(roles)} may"
    return NotPermitted(msg, needs=needed.value, roles=[role.value for role in roles])


def _refuse_foreign(scope: Scope) -> None:
    # Without keys, any page in this machine's browser could ask for a rollback, or send labels. By a name of its own
    # that leads here it could read as well: it may not.
    for name, value in scope["headers"]:
        if name == b"origin" and not _is_local(value.decode("latin-1")):
            msg = "a page of another site sent this; without keys only pages of this machine may"
            raise ForeignPage(msg)
        if name == b"host" and not _is_local(f"//{value.decode('latin-1')}"):
            msg = "without keys this answers by this machine's own names alone, such as localhost and 127.0.0.1"
            raise ForeignPage(msg)


@lru_cache(maxsize=256)
def _is_local(address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
