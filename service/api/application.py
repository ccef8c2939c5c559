"""The application: every route, every error a problem, the worker's life inside the server's."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from service.api import (
    decisions,
    docs,
    health,
    infer,
    inference,
    keys,
    openapi,
    predict,
    problems,
    reads,
    reports,
    webhooks,
    writes,
)
from service.api.access import Gate, Warden
from service.api.body import Door, Intake
from service.api.metrics import StateMetrics
from service.api.problems import problem_of
from service.api.protocol import in_protocol
from service.api.rates import Rates
from service.api.routes import Methods
from service.api.session import Sessions
from service.api.trail import Trails
from service.domain.errors import RetrueError
from service.serving.worker import Worker
from service.storage.database import Database
from service.telemetry import Telemetry
from service.traces import Traces

__all__ = ["Application", "Parts", "create"]


@dataclass(frozen=True)
class Parts:
    """All that the application needs."""

    worker: Worker
    database: Database
    telemetry: Telemetry
    home: Path
    """Holds reports/, and what a prediction's look-up reads."""
    may_be_open: bool = True
    """Whether anybody may do everything while there is no key: only where nobody else reaches the address."""
    rates: Rates = field(default_factory=Rates)
    """How often one key may ask."""
    rooms: Sequence[APIRouter] = ()
    """Routes of other rooms: the console's."""
    pages: Mapping[str, Methods] = field(default_factory=dict)
    """Addresses for people, with the right that each method asks for."""
    traces: Traces | None = None
    """Where spans go; None: nowhere."""
    intake: Intake = field(init=False)
    """Bodies that come in; made here."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "intake", Intake(self.worker.limits, self.telemetry))


class Application(FastAPI):
    """FastAPI, but that the fast routes, which stand in its list like all others, are reached past its middleware.

    Nothing of it is for them, and it costs as much as the rest of a small prediction.
    """

    fast: predict.Short
    gate: Gate
    warden: Warden
    intake: Intake
    trails: Trails

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.fast.way(scope)
        if endpoint is None:
            await self.trails.follow(scope, receive, send, self._ordinary)
        elif self.trails.wants(scope):
            await self.trails.follow(scope, receive, send, partial(self._fast, endpoint), is_fast=True)
        else:
            await self._fast(endpoint, scope, receive, send)

    async def _ordinary(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.warden(scope, receive, in_protocol(scope, send))

    async def _fast(self, endpoint: predict.Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        send = in_protocol(scope, send)
        try:
            self.gate.admit(scope)
        except RetrueError as error:
            self.intake.refused(error.code.replace("-", "_"))
            self.gate.strangers.note(error, scope)
            await problem_of(error)(scope, receive, send)
            return
        await endpoint(scope, receive, send)

    async def behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that passed the warden."""
        await super().__call__(scope, receive, send)


def create(parts: Parts) -> Application:
    """Return the application; its lifespan starts and stops the worker."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        await parts.worker.start()
        if parts.worker.index == 0:
            app.gate.announce()
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
    routes = [*predict.routes(parts.worker, parts.intake), *infer.routes(parts.worker, parts.intake)]
    app.router.routes[:0] = routes
    app.fast, app.intake, app.trails = predict.Short(routes), parts.intake, Trails(parts.traces)
    keyring = parts.worker.replica.keyring
    app.gate = Gate(keyring, may_be_open=parts.may_be_open, rates=parts.rates)
    app.warden = Warden(
        app.behind,
        gate=app.gate,
        sessions=Sessions(parts.database, keyring),
        telemetry=parts.telemetry,
        pages=parts.pages,
    )
    app.include_router(health.router(parts.worker, StateMetrics(parts.database)))
    app.include_router(inference.router(parts.worker, app))
    app.include_router(reads.router(parts.database, parts.home, is_leaving=lambda: parts.worker.is_leaving))
    app.include_router(reports.router(parts.database, parts.home / "reports"))
    app.include_router(writes.router(parts.database))
    app.include_router(decisions.router(parts.database))
    app.include_router(keys.router(parts.database))
    app.include_router(webhooks.router(parts.database))
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
