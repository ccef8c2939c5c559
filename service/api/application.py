"""The application: every route, every error a problem, the worker's life inside the server's."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from service.api import decisions, docs, health, openapi, predict, problems, reads, reports, writes
from service.api.body import Door, Intake
from service.api.metrics import StateMetrics
from service.serving.worker import Worker
from service.storage.database import Database
from service.telemetry import Telemetry

__all__ = ["Parts", "create"]


@dataclass(frozen=True)
class Parts:
    """All that the application needs."""

    worker: Worker
    database: Database
    telemetry: Telemetry
    home: Path
    """Holds reports/, and what a prediction's look-up reads."""
    rooms: Sequence[APIRouter] = ()
    """Routes of other rooms: the console's."""
    intake: Intake = field(init=False)
    """Bodies that come in; made here."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "intake", Intake(self.worker.limits, self.telemetry))


class Application(FastAPI):
    """FastAPI, but that the fast routes, which stand in its list like all others, are reached past its middleware.

    Nothing of it is for them, and it costs as much as the rest of a small prediction.
    """

    fast: predict.Short

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.fast.way(scope)
        if endpoint is None:
            await super().__call__(scope, receive, send)
        else:
            await endpoint(scope, receive, send)


def create(parts: Parts) -> FastAPI:
    """Return the application; its lifespan starts and stops the worker."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        await parts.worker.start()
        try:
            yield
        finally:
            await parts.worker.stop()

    app = Application(
        title="Retrue",
        version=_version(),
        summary="Keeps served models true.",
        lifespan=life,
        docs_url=None,  # `docs` serves it from this package
        redoc_url=None,
        strict_content_type=False,  # real clients send JSON without saying so
        redirect_slashes=False,
    )
    limits = parts.worker.limits
    app.state.is_degraded = lambda: parts.worker.replica.is_degraded
    routes = predict.routes(parts.worker, parts.intake)
    app.router.routes[:0] = routes
    app.fast = predict.Short(routes)
    app.include_router(health.router(parts.worker, StateMetrics(parts.database)))
    app.include_router(reads.router(parts.database, parts.home, is_leaving=lambda: parts.worker.is_leaving))
    app.include_router(reports.router(parts.database, parts.home / "reports"))
    app.include_router(writes.router(parts.database))
    app.include_router(decisions.router(parts.database))
    for room in parts.rooms:
        app.include_router(room)
    docs.install(app)
    problems.install(app)
    openapi.install(app, parts.worker.slots)
    app.add_middleware(Door, intake=parts.intake, telemetry=parts.telemetry, limit=limits.body_bytes)
    return app


def _version() -> str:
    try:
        return version("retrue")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0"
