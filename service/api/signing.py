"""Signing in and out by a browser: what the console is told of keys and sessions, and no more."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request

from service.api.access import CALLER
from service.api.session import COOKIE, Sessions, cookie_of, no_cookie
from service.api.strangers import Strangers
from service.domain.access import Right
from service.domain.errors import NoAccess

__all__ = ["Signing"]


class Signing:
    """Answers the console's questions. What asks the database runs on a thread there.

    Parameters
    ----------
    sessions
        Who has signed in.
    is_open
        Whether no key is asked for.
    """

    def __init__(self, sessions: Sessions, *, is_open: Callable[[], bool]) -> None:
        self._sessions, self._is_open = sessions, is_open
        self._strangers = Strangers()

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return self._is_open()

    def caller(self, request: Request) -> tuple[str, Mapping[str, Any], frozenset[Right]] | None:
        """Return the actor of a request that was let in, from where it came and what it may; None: anybody's page."""
        caller = request.scope.get(CALLER)
        return None if caller is None else (caller.actor, caller.origin, caller.rights)

    def is_good(self, request: Request) -> bool:
        """Return whether a request that was let in would be let in now: an answer may go on for longer than a key."""
        if self._is_open():
            return True
        caller = request.scope.get(CALLER)
        origin: Mapping[str, Any] = {} if caller is None else caller.origin
        if "key" not in origin:
            return False  # it came while everybody could
        return self._sessions.is_good(origin["key"], self.session(request) if origin["via"] == "console" else None)

    def session(self, request: Request) -> str:
        """Return the value of its session's cookie, or nothing."""
        return request.cookies.get(COOKIE, "")

    def begin(self, request: Request, key: str) -> str:
        """Return the Set-Cookie header of a new session; raises what is wrong with the key."""
        try:
            value = self._sessions.begin(key)
        except NoAccess as error:
            self._strangers.note(error, request.scope)
            raise
        return cookie_of(value, is_secure=request.url.scheme == "https")

    def end(self, request: Request) -> str:
        """End the request's session and return the Set-Cookie header that forgets it."""
        self._sessions.close(self.session(request))
        return no_cookie()
