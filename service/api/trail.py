"""A request's trail: its W3C trace context and its id, in the answer, in each log line, and as a span where wanted.

Predictions and labels go this way only if their sender gave one of the two, or if they are to be traced.
"""

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from service.api.access import CALLER
from service.api.problems import named
from service.journal import bound
from service.telemetry import Slug
from service.traces import Parent, Span, Traces

__all__ = ["Trail", "Trails", "trail_of"]

log = logging.getLogger(__name__)

PARENT, REQUEST_ID = b"traceparent", b"x-request-id"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_ID = re.compile(rb"[!-~]{1,128}")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16


@dataclass(frozen=True)
class Trail:
    """Where a request comes from."""

    trace: str
    """Id of the trace: the sender's, or a new one."""
    span: str
    """This request's own id in it."""
    request_id: str
    """What its sender calls it; the trace's id where it says nothing."""
    parent: Parent | None
    """The sender's span."""

    @property
    def traceparent(self) -> str:
        """What the answer says."""
        flags = "01" if self.parent is not None and self.parent.is_sampled else "00"
        return f"00-{self.trace}-{self.span}-{flags}"


def trail_of(scope: Scope) -> Trail:
    """Return the trail that a request came on; what it says that is no such thing is as if it had said nothing."""
    parent = request_id = None
    for name, value in scope["headers"]:
        if name == PARENT:
            parent = _parent(value)
        elif name == REQUEST_ID and _ID.fullmatch(value):
            request_id = value.decode("ascii")
    trace = secrets.token_hex(16) if parent is None else parent.trace
    return Trail(trace, secrets.token_hex(8), request_id or trace, parent)


def _parent(value: bytes) -> Parent | None:
    match = _PARENT.fullmatch(value.strip())
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    # Version 00 ends there; a later one may say more.
    if version == b"ff" or (version == b"00" and more) or trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return Parent(trace.decode(), span.decode(), is_sampled=bool(int(flags, 16) & 1))


class Trails:
    """Follows requests.

    Parameters
    ----------
    traces
        Where spans go; None: nowhere.
    """

    def __init__(self, traces: Traces | None) -> None:
        self._traces = traces

    def wants(self, scope: Scope) -> bool:
        """Return whether a prediction, or labels, are to be followed."""
        for name, _ in scope["headers"]:
            if name in (PARENT, REQUEST_ID):
                return True
        return self._traces is not None and self._traces.takes_prediction()

    async def follow(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        is_fast: bool = False,
    ) -> None:
        """Answer a request through `app`, with its trail in the answer and in the log."""
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        trail, started, status = trail_of(scope), time.perf_counter(), 0
        span = None if self._traces is None else self._traces.request(trail.parent, trail.trace)
        if span is not None:
            trail = Trail(trail.trace, span.id, trail.request_id, Parent(trail.trace, span.id, span.is_sampled))

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                told = [(PARENT, trail.traceparent.encode()), (REQUEST_ID, trail.request_id.encode())]
                message = {**message, "headers": [*(message.get("headers") or []), *told]}
            await send(message)

        with bound(request=trail.request_id, trace=trail.trace):
            try:
                await app(scope, receive, answered)
            finally:
                route = getattr(scope.get("route"), "path", "unknown")
                if not is_fast:
                    _tell(scope, route, status, time.perf_counter() - started)
                if span is not None:
                    _end(span, scope, route, status)


def _tell(scope: Scope, route: str, status: int, seconds: float) -> None:
    # Each change, and what went wrong; the rest is for those who look into it.
    level = logging.DEBUG if scope["method"] in SAFE and status < 500 else logging.INFO
    if not log.isEnabledFor(level):
        return
    caller = scope.get(CALLER)
    told: dict[str, Any] = {
        "method": scope["method"],
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
        **({} if caller is None else {"actor": caller.actor}),
        **named(scope),
    }
    log.log(level, Slug.REQUEST_DONE, extra={"facts": told})


def _end(span: Span, scope: Scope, route: str, status: int) -> None:
    path = route
    if path == "unknown" and "model" in scope.get("path_params", {}):
        path = f"{scope['path'].partition('/models/')[0]}/models/{{model}}/{scope['path'].rpartition('/')[2]}"
    told = {"http.request.method": scope["method"], "http.route": path, "http.response.status_code": status}
    about = {f"retrue.{name}": str(value) for name, value in named(scope).items()}
    span.end(f"{scope['method']} {path}", {**told, **about}, is_error=status >= 500 or not status)
