"""Who is at the console, and whether a form is the console's own: the one place that knows of cookies and tokens.

A page of another site can make a browser send the cookie; it can read neither the cookie nor the token in a form.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from starlette.requests import Request

from service.domain.access import Right
from service.domain.errors import NotAllowedNow, NoToken

__all__ = ["COOKIE", "FIELD", "Door", "KeyedDoor", "OpenDoor", "Signing", "Visitor", "refuse_forged", "token_of"]

COOKIE = "retrue_console"
FIELD = "token"
"""Name of the form field that carries the token."""


@dataclass(frozen=True)
class Visitor:
    """Who looks."""

    actor: str
    """The name that stands in runs, swaps and the audit."""
    secret: str
    """Only this browser's cookie has it; the token of its forms follows from it."""
    set_cookie: str | None = None
    """Header that gives the browser its cookie, where it came without."""
    origin: Mapping[str, Any] | None = None
    """From where, for the audit."""
    rights: frozenset[Right] = frozenset(Right)
    """What the visitor may: pages offer nothing else."""


class Door(Protocol):
    """Lets visitors in."""

    @property
    def is_open(self) -> bool:
        """Whether nobody has to sign in."""

    def visitor(self, request: Request) -> Visitor:
        """Return who sent the request."""

    def is_good(self, request: Request) -> bool:
        """Return whether who was let in with the request would be let in now."""

    def begin(self, request: Request, key: str) -> str:
        """Return the Set-Cookie header of a new session; raises what is wrong with the key."""

    def end(self, request: Request) -> str:
        """End the request's session and return the Set-Cookie header that forgets it."""


class OpenDoor:
    """Everybody who reaches the address: right for one person at one machine."""

    is_open = True

    def visitor(self, request: Request) -> Visitor:
        """Return the visitor; a browser that comes for the first time gets a cookie of its own."""
        secret = request.cookies.get(COOKIE, "")
        if len(secret) == 64 and secret.isalnum():
            return Visitor("console", secret)
        secret = secrets.token_hex(32)
        return Visitor("console", secret, f"{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Strict")

    def is_good(self, request: Request) -> bool:  # noqa: ARG002  there is nothing that could end
        """Return that it is."""
        return True

    def begin(self, request: Request, key: str) -> str:  # noqa: ARG002  no key was ever made
        """Refuse: there is nothing to sign in with."""
        msg = "no key is asked for here, so there is nothing to sign in with"
        raise NotAllowedNow(msg)

    def end(self, request: Request) -> str:  # noqa: ARG002  there is no session
        """Forget the cookie."""
        return f"{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"


class Signing(Protocol):
    """Who knows keys and sessions."""

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""

    def caller(self, request: Request) -> tuple[str, Mapping[str, Any], frozenset[Right]] | None:
        """Return the actor of a request that was let in, from where it came and what it may; None: anybody's page."""

    def is_good(self, request: Request) -> bool:
        """Return whether a request that was let in would be let in now."""

    def session(self, request: Request) -> str:
        """Return the value of its session's cookie, or nothing."""

    def begin(self, request: Request, key: str) -> str:
        """Return the Set-Cookie header of a new session; raises what is wrong with the key."""

    def end(self, request: Request) -> str:
        """End the request's session and return the Set-Cookie header that forgets it."""


class KeyedDoor:
    """Whoever has signed in with a key, and everybody as long as no key is asked for.

    A form's token follows from the session's secret just as the one that the API asks for.
    """

    def __init__(self, signing: Signing) -> None:
        self._signing, self._anybody = signing, OpenDoor()

    @property
    def is_open(self) -> bool:
        """Whether nobody has to sign in."""
        return self._signing.is_open

    def visitor(self, request: Request) -> Visitor:
        """Return who sent the request; before the sign-in, somebody without a name."""
        found = self._signing.caller(request)
        if self.is_open:
            origin = None if found is None else {**found[1], "via": "console"}
            return replace(self._anybody.visitor(request), origin=origin)
        session = self._signing.session(request)
        if found is None or not session:
            actor, rights = ("", frozenset[Right]()) if found is None else (found[0], found[2])
            return replace(self._anybody.visitor(request), actor=actor, rights=rights)
        return Visitor(found[0], session, origin=found[1], rights=found[2])

    def is_good(self, request: Request) -> bool:
        """Return whether who was let in with the request would be let in now."""
        return self._signing.is_good(request)

    def begin(self, request: Request, key: str) -> str:
        """Return the Set-Cookie header of a new session; raises what is wrong with the key."""
        return self._anybody.begin(request, key) if self.is_open else self._signing.begin(request, key)

    def end(self, request: Request) -> str:
        """End the request's session and return the Set-Cookie header that forgets it."""
        return self._signing.end(request)


def token_of(visitor: Visitor) -> str:
    """Return what each form of the visitor must carry."""
    return hmac.new(visitor.secret.encode(), b"csrf", hashlib.sha256).hexdigest()


def refuse_forged(visitor: Visitor, request: Request, form: Mapping[str, str]) -> None:
    """Raise `NoToken` unless the form is one that this visitor was given.

    Its token stands in the form, or in the header ``X-CSRF-Token`` where a script sent it.
    """
    given = form.get(FIELD) or request.headers.get("x-csrf-token") or ""
    if visitor.set_cookie is not None or not hmac.compare_digest(token_of(visitor).encode(), given.encode()):
        msg = "the form did not come from this console, or your session is over: open the page again and repeat it"
        raise NoToken(msg)
