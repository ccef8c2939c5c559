"""Routes that ask the database: none of them waits for one that does not answer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import override

from service.domain.errors import DatabaseUnavailable

__all__ = ["SLOW", "StateRoute"]

PATIENCE_S = 1.5
RETRY_S = 2
SLOW = "slow"
"""Key in a route's ``openapi_extra`` that marks one which asks more than the database."""


class StateRoute(APIRoute):
    """Answers 503 at once while the database is known to be away, and soon when it only now stops to answer."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        is_read = (self.methods or set()) <= {"GET", "HEAD"} and not (self.openapi_extra or {}).get(f"x-{SLOW}")

        async def patient(request: Request) -> Response:
            if request.app.state.is_degraded():
                msg = "the database does not answer; predictions go on"
                raise DatabaseUnavailable(msg, retry_after_s=RETRY_S)
            if not is_read:
                return await handler(request)  # what is written must be known to be written, or not
            asked = asyncio.ensure_future(handler(request))
            done, _ = await asyncio.wait({asked}, timeout=PATIENCE_S)
            if not done:
                # Its thread can't be interrupted; the database's own patience ends it a little later.
                asked.add_done_callback(lambda late: late.cancelled() or late.exception())
                msg = f"the database did not answer within {PATIENCE_S:g} s"
                raise DatabaseUnavailable(msg, retry_after_s=RETRY_S)
            return asked.result()

        return patient
