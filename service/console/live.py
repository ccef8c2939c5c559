"""A run as it goes: server-sent events that say "look again", until it has ended."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.console.runs import stamp_of
from service.console.site import HEADERS, Site
from service.domain.errors import DatabaseUnavailable, RetrueError
from service.domain.run import TERMINAL
from service.storage import runs
from service.storage.runs import Run

__all__ = ["stream"]

LOOK_S = 0.5
QUIET_S = 15.0
LONG_S = 2.0
AGAIN_S = 3.0
"""A key may be revoked and a session may end while a run is watched: so often it is asked whether they have."""


async def stream(site: Site, request: Request) -> Response:
    """Answer with a run's changes; what has changed the page asks for itself."""
    run_id = request.path_params["run_id"]

    def read() -> Run:
        site.door.visitor(request)
        with site.database.read() as conn:
            return runs.get(conn, run_id)

    def look(asked: float) -> Run | None:
        return read() if asked < AGAIN_S or site.door.is_good(request) else None

    try:
        await run_in_threadpool(read)
    except RetrueError as error:
        return Response(error.detail, status_code=site.status_of(error), headers=HEADERS)
    told = _told(site, look, request.query_params.get("seen"))
    return StreamingResponse(told, media_type="text/event-stream", headers=HEADERS)


async def _told(site: Site, look: Callable[[float], Run | None], before: str | None) -> AsyncIterator[bytes]:
    quiet = asked = 0.0
    yield b"retry: 2000\n\n"
    while not site.is_leaving():
        try:
            run = await run_in_threadpool(look, asked)
        except DatabaseUnavailable:
            yield b": the database does not answer\n\n"
            await asyncio.sleep(LONG_S)
            continue
        if run is None:
            yield b"event: gone\ndata: sign in again\n\n"
            return
        stamp = stamp_of(run)
        if stamp != before:
            yield b"event: moved\ndata: %b\n\n" % stamp.encode()
            before, quiet = stamp, 0.0
        if run.state in TERMINAL:
            yield b"event: over\ndata: %b\n\n" % stamp.encode()
            return
        quiet, asked = quiet + LOOK_S, asked % AGAIN_S + LOOK_S
        if quiet >= QUIET_S:
            quiet = 0.0
            yield b": still here\n\n"
        await asyncio.sleep(LOOK_S)
