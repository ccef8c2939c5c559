"""An application asked in this very process: no socket, no server, its lifespan around it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

__all__ = ["Client", "serving"]


class Client:
    """Sends requests from a plain test to the application in its own event loop."""

    def __init__(self, app: FastAPI, portal: BlockingPortal) -> None:
        self._portal = portal
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Return the response to one request."""
        if isinstance(arguments.get("content"), Iterator):
            arguments["content"] = _drip(arguments["content"])
        return self._portal.call(lambda: self._http.request(method, path, **arguments))

    def forget_cookies(self) -> None:
        """Forget what earlier answers set."""
        self._http.cookies.clear()

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("POST", path, **arguments)

    def put(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("PUT", path, **arguments)

    def delete(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("DELETE", path, **arguments)


@contextmanager
def serving(app: FastAPI) -> Iterator[Client]:
    """Yield a client of `app`, whose lifespan runs meanwhile."""
    with start_blocking_portal() as portal:
        life: AbstractAsyncContextManager[Any] = app.router.lifespan_context(app)
        with portal.wrap_async_context_manager(life):
            yield Client(app, portal)


async def _drip(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
