"""The server: uvicorn with our connections, which hears at once when the process is told to end."""

import asyncio
import resource
import socket
from types import FrameType

import uvicorn
from typing_extensions import override

from service.api.application import Parts, create
from service.api.connection import connections

__all__ = ["run"]

SPARE = 256
"""File descriptors beside the connections: spool, database, lake look-ups, metrics."""
AFTER_S = 4.0
"""Of the time to leave so much is kept for the worker's own end, and for the committer after it."""


class Server(uvicorn.Server):
    """uvicorn's server; what would hold its end up is told to give way."""

    def __init__(self, config: uvicorn.Config, parts: Parts) -> None:
        super().__init__(config)
        self._parts = parts
        self._loop: asyncio.AbstractEventLoop | None = None

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._parts.worker.is_leaving = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._parts.intake.leave)
        super().handle_exit(sig, frame)


def run(parts: Parts, listener: socket.socket, *, shutdown_s: float) -> None:
    """Answer on `listener` until SIGTERM or SIGINT."""
    _allow_files(parts.worker.limits.connections)
    config = uvicorn.Config(
        create(parts),
        loop="uvloop",
        http=connections(parts.worker.limits, parts.telemetry),
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=max(int(shutdown_s - AFTER_S), 1),
    )
    Server(config, parts).run(sockets=[listener])


def _allow_files(connections: int) -> None:
    """Allow so many connections, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
