"""Sign-in for browsers: a session's cookie, and the token that each of its changes must carry.

The cookie's value is 256 random bits, which only the browser has; the database has their digest. The token follows
from the value, and stands in the console's pages: a page of another site can make the browser send the cookie, and can
read neither.
"""

import hashlib
import hmac
from datetime import timedelta
from http.cookies import SimpleCookie

from service.domain.errors import NoAccess
from service.serving.keyring import Keyring
from service.storage import sessions
from service.storage.database import Database

__all__ = ["COOKIE", "TOKEN_HEADER", "Sessions", "cookie_of", "is_token_of", "no_cookie", "token_of"]

COOKIE = "retrue_session"
TOKEN_HEADER = b"x-csrf-token"


class Sessions:
    """Begins, finds and ends sessions. Each call asks the database: from the event loop, call it on a thread.

    Parameters
    ----------
    database
        Where they are.
    keyring
        What they are begun with.
    """

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database, self._keyring = database, keyring

    def begin(self, key: str, *, lasts: timedelta = sessions.LASTS) -> str:
        """Return the value of a new session's cookie; raises what the keyring says of a bad key."""
        known = self._keyring.find(key.strip().encode())
        with self._database.write() as conn:
            return sessions.begin(conn, known.id, lasts=lasts)

    def find(self, value: str) -> str | None:
        """Return the id of the key whose session it is; None if it is over."""
        with self._database.read() as conn:
            return sessions.find(conn, value)

    def is_good(self, key_id: str, value: str | None = None) -> bool:
        """Return whether the key may still come in and, where `value` is given, its session is not over."""
        try:
            self._keyring.by_id(key_id)
        except NoAccess:
            return False
        return value is None or self.find(value) == key_id

    def close(self, value: str) -> None:
        """End a session."""
        with self._database.write() as conn:
            sessions.close(conn, value)


def cookie_of(value: str, *, is_secure: bool, lasts: timedelta = sessions.LASTS) -> str:
    """Return the Set-Cookie header that begins a session; `is_secure` where the browser came by HTTPS."""
    return _cookie(value, is_secure=is_secure, seconds=int(lasts.total_seconds()))


def no_cookie() -> str:
    """Return the Set-Cookie header that ends it."""
    return _cookie("", is_secure=False, seconds=0)


def token_of(value: str) -> str:
    """Return what each change of the session must carry."""
    return hmac.new(value.encode(), b"csrf", hashlib.sha256).hexdigest()


def is_token_of(value: str, given: bytes | None) -> bool:
    """Return whether `given` is the session's token; compared in constant time."""
    return given is not None and hmac.compare_digest(token_of(value).encode(), given)


def _cookie(value: str, *, is_secure: bool, seconds: int) -> str:
    jar: SimpleCookie = SimpleCookie()
    jar[COOKIE] = value
    jar[COOKIE]["path"] = "/"
    jar[COOKIE]["max-age"] = seconds
    jar[COOKIE]["httponly"] = True
    jar[COOKIE]["samesite"] = "Strict"
    if is_secure:
        jar[COOKIE]["secure"] = True
    return jar[COOKIE].OutputString()
