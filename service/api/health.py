"""Whether the process lives, whether it answers, and its figures."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service.api.metrics import StateMetrics
from service.api.problems import problem_of
from service.domain.errors import NotReady
from service.serving.worker import Worker
from service.telemetry import exposition

__all__ = ["router"]


def router(worker: Worker, states: StateMetrics) -> APIRouter:
    """Return the routes that anyone may ask."""
    api = APIRouter(tags=["health"])

    @api.get("/livez", summary="Whether the process lives")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @api.get(
        "/readyz",
        summary="Whether predictions are answered: asks each model for one through the live path",
        response_model=None,
        responses={503: {"description": "No model answers."}},
    )
    async def readyz() -> Response | dict[str, object]:
        try:
            models = await worker.probe()
        except NotReady as error:
            return problem_of(error)
        return {"status": "ready", "degraded": worker.replica.is_degraded, "models": models}

    @api.get("/metrics", summary="Figures for Prometheus, of all workers", response_class=Response)
    async def metrics() -> Response:
        content = exposition(worker.telemetry) + await states.exposition()
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    return api
