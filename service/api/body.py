"""Reading bodies: never more than the limit, never longer than the deadline, whatever the headers say."""

import asyncio
import zlib
from collections.abc import Generator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem, problem_of
from service.domain.errors import BodyTooLarge, InvalidRequest, Overloaded, RetrueError
from service.serving.limits import Limits
from service.telemetry import Telemetry

__all__ = ["ClientGone", "Door", "Intake"]

SMALL = 64 << 10
"""What the body of any other route than predict and feedback may hold: a reason and a few values."""
FAST = ("/predict", "/feedback", "/infer")
"""How the addresses end whose endpoints read their bodies themselves."""
LEAVE_S = 1.0
"""What is still coming in when the process is told to end gets so long."""
_IDENTITY = {b"", b"identity"}
_ZIPPED = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""Window bits of each encoding, in zlib's own way to name its formats."""
_RAW_DEFLATE = -15


class ClientGone(Exception):
    """The client closed the connection before its body was whole."""


class Intake:
    """What a process takes in: how much of one body, how long, and how much of all bodies at once.

    Parameters
    ----------
    limits
        Bytes and seconds.
    telemetry
        Counts what was not taken.
    """

    def __init__(self, limits: Limits, telemetry: Telemetry) -> None:
        self._limits, self._telemetry = limits, telemetry
        self._held = 0
        self._coming: set[asyncio.Timeout] = set()
        self._is_leaving = False

    def leave(self) -> None:
        """Give bodies that are still coming in a moment, then refuse them. Called in the event loop."""
        self._is_leaving = True
        at = asyncio.get_running_loop().time() + LEAVE_S
        for deadline in self._coming:
            deadline.reschedule(min(at, deadline.when() or at))

    def refused(self, reason: str) -> None:
        """Count a request that was not taken on."""
        self._telemetry.refused_requests.labels(reason).inc()

    async def read(self, scope: Scope, receive: Receive, *, limit: int | None = None) -> bytes:
        """Return the request's body, unzipped.

        Raises
        ------
        BodyTooLarge
            As soon as more than the limit is announced, has come, or comes out of what has come.
        Overloaded
            If the bodies that are coming in hold too much together.
        HTTPException
            415 for an encoding that is not known, 408 for a body that does not arrive in time.
        ClientGone
            If the connection was closed.
        """
        limit = self._limits.body_bytes if limit is None else limit
        bits = 0
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > limit:
                raise _too_large(limit)
            if name == b"content-encoding" and (encoding := value.strip().lower()) not in _IDENTITY:
                if encoding not in _ZIPPED or bits:
                    headers = {"Accept-Encoding": "gzip, deflate"}
                    raise HTTPException(415, "send the body as it is, or as gzip or deflate", headers)
                bits = _ZIPPED[encoding]
        body = await self._whole(receive, limit)
        # On a thread: eight megabytes that came as eight kilobytes would hold the event loop for 20 ms.
        return body if not bits else await asyncio.to_thread(_unzipped, body, bits, limit)

    async def _whole(self, receive: Receive, limit: int) -> bytes:
        # A small body came with its head: then no deadline is set up, which costs as much as all the rest of this.
        steps = receive().__await__()
        try:
            waits_for = next(steps)
        except StopIteration as came:
            if not came.value.get("more_body", False):
                body = _part(came.value)
                if len(body) > limit:
                    raise _too_large(limit) from None
                return body
            return await self._timely(_Came(came.value), receive, limit)
        return await self._timely(_Begun(steps, waits_for), receive, limit)

    async def _timely(self, first: "_Begun | _Came", receive: Receive, limit: int) -> bytes:
        deadline_s = LEAVE_S if self._is_leaving else self._limits.deadline_s
        try:
            async with asyncio.timeout(deadline_s) as deadline:
                self._coming.add(deadline)
                try:
                    message = await first
                    body = _part(message)
                    if not message.get("more_body", False):
                        if len(body) > limit:
                            raise _too_large(limit)
                        return body
                    return await self._rest(body, receive, limit)
                finally:
                    self._coming.discard(deadline)
        except TimeoutError:
            words = f"the body did not arrive within {self._limits.deadline_s:g} s"
            raise HTTPException(408, "the service is about to end" if self._is_leaving else words) from None

    async def _rest(self, first: bytes, receive: Receive, limit: int) -> bytes:
        parts: list[bytes] = []
        size, part, has_more = 0, first, True
        try:
            while True:
                size += len(part)
                self._held += len(part)
                if size > limit:
                    raise _too_large(limit)
                if self._held > self._limits.intake_bytes:
                    msg = "too many large bodies are coming in at once: try again in a moment"
                    raise Overloaded(msg, retry_after_s=1)
                parts.append(part)
                if not has_more:
                    return b"".join(parts)
                message = await receive()
                part, has_more = _part(message), message.get("more_body", False)
        finally:
            self._held -= size


class _Came:
    """A message that is here."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def __await__(self) -> Generator[Any, Any, Message]:
        return self._message
        yield


class _Begun:
    """A message whose awaiting has begun: goes on where it stands."""

    def __init__(self, steps: Generator[Any, Any, Message], waits_for: Any) -> None:
        self._steps, self._waits_for = steps, waits_for

    def __await__(self) -> Generator[Any, Any, Message]:
        waits_for = self._waits_for
        while True:
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001  its own affair
                try:
                    waits_for = self._steps.throw(error)
                except StopIteration as came:
                    message: Message = came.value
                    return message
            else:
                return (yield from self._steps)


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    return body


def _unzipped(body: bytes, bits: int, limit: int) -> bytes:
    try:
        return _inflated(body, bits, limit)
    except zlib.error:
        if bits == _ZIPPED[b"deflate"]:
            # Half of the world's clients leave the wrapper off, and always have.
            return _unzipped(body, _RAW_DEFLATE, limit)
        msg = "the body can't be unzipped"
        raise InvalidRequest(msg) from None


def _inflated(body: bytes, bits: int, limit: int) -> bytes:
    parts, size = [], 0
    while body:
        inflater = zlib.decompressobj(bits)
        part = inflater.decompress(body, limit - size + 1)
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        if not inflater.eof:
            msg = "the zipped body ends too early"
            raise InvalidRequest(msg)
        parts.append(part)
        body = inflater.unused_data  # gzip may be several files in a row
    return b"".join(parts)


def _too_large(limit: int) -> BodyTooLarge:
    msg = f"the body is larger than {limit} bytes"
    return BodyTooLarge(msg, limit=limit)


class Door:
    """What every request passes: bodies of the small routes are read whole here, and their answers counted."""

    def __init__(self, app: ASGIApp, *, intake: Intake, telemetry: Telemetry, limit: int) -> None:
        self._app, self._intake, self._telemetry = app, intake, telemetry
        self._limit = min(limit, SMALL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or (scope["method"] == "POST" and scope["path"].endswith(FAST)):
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(asked.get("route"), "path", "unknown")
                self._telemetry.http_responses.labels(route, str(message["status"])).inc()
            await send(message)

        # The server leaves the body of an answer to HEAD away by itself.
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        if asked["method"] in {"GET", "OPTIONS"}:
            await self._app(asked, receive, counted)
            return
        try:
            body = await self._intake.read(asked, receive, limit=self._limit)
        except ClientGone:
            return
        except RetrueError as error:
            self._intake.refused(error.code.replace("-", "_"))
            await problem_of(error)(asked, receive, counted)
            return
        except HTTPException as error:
            self._intake.refused("body_late" if error.status_code == 408 else "body_encoding")
            headers = dict(error.headers or {})
            await problem(error.status_code, str(error.detail), code="body", headers=headers)(asked, receive, counted)
            return
        await self._app(asked, _replay(body, receive), counted)


def _replay(body: bytes, receive: Receive) -> Receive:
    is_told = False

    async def again() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
