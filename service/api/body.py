"""Reading bodies: never more than the limit, never longer than the deadline, whatever the headers say."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem, problem_of
from service.domain.errors import BodyTooLarge, RetrueError
from service.telemetry import Telemetry

__all__ = ["Door", "read_body"]

SMALL = 64 << 10
"""What the body of any other route than predict and feedback may hold: a reason and a few values."""
_IDENTITY = {b"", b"identity"}


class ClientGone(Exception):
    """The client closed the connection before its body was whole."""


async def read_body(scope: Scope, receive: Receive, *, limit: int, deadline_s: float) -> bytes:
    """Return the request's body.

    Raises
    ------
    BodyTooLarge
        As soon as more than `limit` bytes are announced or have come.
    HTTPException
        415 for a compressed body, 408 for one that does not arrive in time.
    ClientGone
        If the connection was closed.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
        if name == b"content-encoding" and value.strip().lower() not in _IDENTITY:
            raise HTTPException(415, "send the body uncompressed")
    try:
        async with asyncio.timeout(deadline_s):
            message = await receive()
            body = _part(message)
            if not message.get("more_body", False):
                if len(body) > limit:
                    raise _too_large(limit)
                return body
            return await _rest(body, receive, limit)
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {deadline_s:g} s") from None


async def _rest(first: bytes, receive: Receive, limit: int) -> bytes:
    parts, size, has_more = [first], len(first), True
    while has_more:
        message = await receive()
        part = _part(message)
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        has_more = message.get("more_body", False)
    return b"".join(parts)


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    return body


def _too_large(limit: int) -> BodyTooLarge:
    msg = f"the body is larger than {limit} bytes"
    return BodyTooLarge(msg, limit=limit)


class Door:
    """What every request passes: bodies of the small routes are read whole here, and their answers counted."""

    def __init__(self, app: ASGIApp, *, telemetry: Telemetry, limit: int, deadline_s: float) -> None:
        self._app, self._telemetry = app, telemetry
        self._limit, self._deadline_s = min(limit, SMALL), deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"].endswith(("/predict", "/feedback")):
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unknown")
                self._telemetry.http_responses.labels(route, str(message["status"])).inc()
            await send(message)

        if scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self._app(scope, receive, counted)
            return
        try:
            body = await read_body(scope, receive, limit=self._limit, deadline_s=self._deadline_s)
        except ClientGone:
            return
        except RetrueError as error:
            await problem_of(error)(scope, receive, counted)
            return
        except HTTPException as error:
            await problem(error.status_code, str(error.detail), code="body")(scope, receive, counted)
            return
        await self._app(scope, _replay(body, receive), counted)


def _replay(body: bytes, receive: Receive) -> Receive:
    is_told = False

    async def again() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
