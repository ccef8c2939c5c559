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

    try:
        await run_in_threadpool(read)
    except RetrueError as error:
        return Response(error.detail, status_code=site.status_of(error), headers=HEADERS)

    return StreamingResponse(_told(site, request, read), media_type="text/event-stream", headers=HEADERS)


async def _told(site: Site, request: Request, read: Callable[[], Run]) -> AsyncIterator[bytes]:
    before, quiet, asked = request.query_params.get("seen"), 0.0, 0.0
    yield b"retry: 2000\n\n"
    while not site.is_leaving():
        try:
            if asked >= AGAIN_S:
                asked = 0.0
                if not await run_in_threadpool(site.door.is_good, request):
                    yield b"event: gone\ndata: sign in again\n\n"
                    return
            run = await run_in_threadpool(read)
        except DatabaseUnavailable:
            yield b": the database does not answer\n\n"
            await asyncio.sleep(LONG_S)
            continue
        stamp = stamp_of(run)
        if stamp != before:
            yield b"event: moved\ndata: %b\n\n" % stamp.encode()
            before, quiet = stamp, 0.0
        if run.state in TERMINAL:
            yield b"event: over\ndata: %b\n\n" % stamp.encode()
            return
        quiet, asked = quiet + LOOK_S, asked + LOOK_S
        if quiet >= QUIET_S:
            quiet = 0.0
            yield b": still here\n\n"
        await asyncio.sleep(LOOK_S)
