"""How requests travel: one connection pool, one time-out, and a second try only where it can do no harm."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from service.client.refusals import Refused, TooSlow, Unreachable, refusal
from service.client.results import Json

__all__ = ["Transport", "segment"]

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
"""Longer than this a retry never waits, whatever the service asks for: the caller decides then."""
AGAIN = frozenset({429, 502, 503, 504})
"""Answers after which a safe request is sent again."""


class Transport:
    """Sends requests to one service.

    Parameters
    ----------
    url
        Address of the service.
    key
        API key, sent as a bearer token.
    timeout_s
        Seconds that one try may take.
    retries
        How many further tries a safe request gets.
    http
        Instead of the network: a test's own way to an application.
    sleep
        Waits for so many seconds.

    Raises
    ------
    ValueError
        If `url` is no address, or `key` can't stand in a header.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        timeout_s: float,
        retries: int,
        http: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        address = _address(url)
        self.url = _without_secrets(address)
        """For people."""
        self.changes = 0
        """How many requests were sent that ask for a change."""
        self._timeout_s, self._retries, self._sleep = timeout_s, retries, sleep
        try:
            self._http = httpx.Client(
                base_url=address, headers=_headers(key), timeout=timeout_s, trust_env=False, transport=http
            )
        except httpx.InvalidURL:
            raise _no_address(self.url) from None

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def read(self, path: str, *, method: str = "GET", **arguments: Any) -> Json:
        """Return what `path` answers to a question that changes nothing; asked again if the first try fails."""
        return self._send(method, path, tries=1 + self._retries, **arguments)

    def change(self, method: str, path: str, *, is_safe: bool = False, **arguments: Any) -> Json:
        """Ask for a change and return the answer.

        Parameters
        ----------
        is_safe
            Whether the same request may arrive twice without doing more than once: only then it is sent again.
        """
        self.changes += 1
        return self._send(method, path, tries=1 + self._retries if is_safe else 1, **arguments)

    def status(self, path: str) -> int | None:
        """Return the status that `path` answers with, at the first try; None while nobody listens."""
        try:
            return self._http.get(path).status_code
        except httpx.HTTPError:
            return None

    def _send(self, method: str, path: str, *, tries: int, **arguments: Any) -> Json:
        pause = FIRST_PAUSE_S
        for left in range(tries - 1, -1, -1):
            try:
                return self._once(method, path, **arguments)
            except (Unreachable, Refused) as error:
                wait_s = max(pause, getattr(error, "retry_after_s", None) or 0.0)
                if not left or wait_s > LONGEST_PAUSE_S or (isinstance(error, Refused) and error.status not in AGAIN):
                    raise
                self._sleep(wait_s)
                pause *= 2
        raise AssertionError  # pragma: no cover  the last try returns or raises

    def _once(self, method: str, path: str, **arguments: Any) -> Json:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TimeoutException as error:
            msg = f"the service at {self.url} did not answer within {self._timeout_s:g} s: its log says why"
            raise TooSlow(msg) from error
        except (httpx.TransportError, httpx.DecodingError, httpx.TooManyRedirects) as error:
            msg = f"no Retrue service answers at {self.url}: start one with `retrue serve`, or name another with --url"
            raise Unreachable(msg) from error
        if response.status_code == httpx.codes.NO_CONTENT:
            return {}
        document = _document(response)
        if response.is_success and document is not None:
            return document
        # A problem always is an object with a status; anything else was written by another program.
        if response.is_success or response.is_redirect or (document is None and "html" in _kind(response)):
            msg = f"what answers at {self.url} is no Retrue service: name the right address with --url"
            raise Unreachable(msg)
        raise refusal(
            response.status_code,
            document or {"title": response.reason_phrase},
            retry_after_s=_seconds(response.headers.get("Retry-After")),
        )


def segment(name: object) -> str:
    """Return `name` as one part of a path.

    Raises
    ------
    ValueError
        If it could lead to another address than the one that is meant.
    """
    text = str(name)
    if not text.strip(".") or "/" in text or "\\" in text:
        msg = f"{text!r} is no name or id"
        raise ValueError(msg)
    return quote(text, safe="")


def _address(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        is_one = is_one and not parts.query and not parts.fragment
    except ValueError:
        is_one = False
    if not is_one:
        raise _no_address(url)
    return url.strip().rstrip("/")


def _no_address(url: str) -> ValueError:
    return ValueError(f"{url!r} is no address of a service: write one such as http://127.0.0.1:8080")


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return url if parts.username is None else urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _headers(key: str | None) -> dict[str, str]:
    if not key:
        return {}
    if not key.isascii() or not key.isprintable() or key != key.strip():
        msg = "the API key holds characters that no key has"  # never the key itself
        raise ValueError(msg)
    return {"Authorization": f"Bearer {key}"}


def _document(response: httpx.Response) -> Json | None:
    try:
        found = response.json()
    except (ValueError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _kind(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).lower()


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(float(text), 0.0)
    except ValueError:
        return None  # a date: rare, and no reason to fail
