"""The application: every route, every error a problem, the worker's life inside the server's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import FastAPI

from service.api import docs, health, openapi, predict, problems, reads, writes
from service.api.body import Door
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


def create(parts: Parts) -> FastAPI:
    """Return the application; its lifespan starts and stops the worker."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        await parts.worker.start()
        try:
            yield
        finally:
            await parts.worker.stop()

    app = FastAPI(
        title="Retrue",
        version=_version(),
        summary="Keeps served models true.",
        lifespan=life,
        docs_url=None,  # `docs` serves it from this package
        redoc_url=None,
        strict_content_type=False,  # real clients send JSON without saying so
        redirect_slashes=False,
    )
    app.router.routes[:0] = predict.routes(parts.worker)
    app.include_router(health.router(parts.worker, StateMetrics(parts.database)))
    app.include_router(reads.router(parts.database, parts.home))
    app.include_router(writes.router(parts.database))
    docs.install(app)
    problems.install(app)
    openapi.install(app, parts.worker.slots)
    limits = parts.worker.limits
    app.add_middleware(Door, telemetry=parts.telemetry, limit=limits.body_bytes, deadline_s=limits.deadline_s)
    return app


def _version() -> str:
    try:
        return version("retrue")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0"
