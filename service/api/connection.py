"""A connection: what uvicorn leaves open, closed. Slow or endless heads, clients that never read, half-closed ones."""

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.problems import MEDIA_TYPE, document
from service.serving.limits import Limits
from service.telemetry import Telemetry

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["Connection", "connections"]

LINGER_S = 2.0
"""A client that still sends a body which was refused gets so long to read why."""
UNREAD_TIMES = 2
"""What was sent must be taken within so many deadlines, or the system closes the connection."""
PIPELINED = 1000
"""Requests that one client may send ahead."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection with deadlines; `connections` makes the class for one worker."""

    limits: Limits
    telemetry: Telemetry

    def __init__(
        self,
        config: "Config",
        server_state: "ServerState",
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._is_in_head = False
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        line = transport.get_extra_info("socket")
        with suppress(OSError, AttributeError):  # not TCP, or not Linux
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            line.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_TIMES * 1000 * self.limits.deadline_s)
            )
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "overloaded", "too many connections are open: try again in a moment", reason="crowded")
            return
        self._timer = self.loop.call_later(self.limits.deadline_s, self._is_late)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                words = f"the request's head is larger than {self.limits.head_bytes} bytes"
                self._refuse(431, "head-too-large", words, reason="head_too_large")
                return
        elif len(self.pipeline) > PIPELINED:
            self._count("pipelined")
            self.transport.abort()
            return
        asked = self._asked
        if self._timer is None and (self._is_in_head or asked is None or asked.response_complete):
            # Not only once a head has begun: empty lines before it end uvicorn's own time-out and begin nothing.
            self._timer = self.loop.call_later(self.limits.deadline_s, self._is_late)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_timer()
        super().on_headers_complete()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        asked = self._asked
        if asked is not None and asked.response_complete and asked.more_body and self._timer is None:
            # Closing at once would reset the connection, and take the answer from a client that is still sending.
            self._timer = self.loop.call_later(LINGER_S, self.transport.abort)

    @override
    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes a word on whether to keep it open
        """Answer a client that has sent all it wants to send, and closed its side."""
        asked = self._asked
        if asked is None or asked.response_complete or asked.more_body or self._is_in_head:
            return False
        asked.keep_alive = False
        return True

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid-request", "the request is not HTTP/1.1", reason="not_http")

    @property
    def _asked(self) -> RequestResponseCycle | None:
        """The newest request; uvicorn has none before the first, whatever its types say."""
        return self.cycle

    def _is_late(self) -> None:
        self._timer = None
        if self._is_in_head:
            self._refuse(408, "head-late", "the request's head did not arrive in time", reason="head_late")
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, code: str, detail: str, *, reason: str) -> None:
        self._count(reason)
        asked = self._asked
        if asked is not None and not asked.response_complete:
            self.transport.close()  # an answer is under way: another one in the middle of it would be nonsense
            return
        content = msgspec.json.encode(document(status, detail, code=code))
        head = [
            *(name + b": " + value for name, value in self.server_state.default_headers),
            b"content-type: " + MEDIA_TYPE.encode(),
            b"content-length: %d" % len(content),
            b"connection: close",
            *([b"retry-after: 1"] if status == 503 else []),
        ]
        self.transport.write(STATUS_LINE[status] + b"\r\n".join(head) + b"\r\n\r\n" + content)
        self.transport.close()

    def _count(self, reason: str) -> None:
        self.telemetry.refused_requests.labels(reason).inc()


def connections(limits: Limits, telemetry: Telemetry) -> type[Connection]:
    """Return the class of a worker's connections."""
    return type("WorkerConnection", (Connection,), {"limits": limits, "telemetry": telemetry})
