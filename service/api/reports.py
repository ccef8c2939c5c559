"""Pages for people: a version's card, drawn from its row as it is asked for, and a run's data summary from its file."""

import gzip
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as InPath
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from service.api.asking import StateRoute
from service.api.card import card
from service.domain.errors import UnknownRun
from service.storage import champions, models, probations, runs, versions
from service.storage.database import Database

__all__ = ["packed_page", "router"]

Number = Annotated[int, InPath(ge=1, le=2**31 - 1)]
STILL = "default-src 'none'; style-src 'unsafe-inline'; sandbox allow-top-navigation-by-user-activation"
"""A card needs no script: whatever a name in it might be, none runs."""


def router(database: Database, reports: Path) -> APIRouter:
    """Return the routes."""
    api = APIRouter(prefix="/v1", route_class=StateRoute)

    @api.get(
        "/models/{model}/versions/{version}/card",
        tags=["models"],
        summary="A version's model card as a page",
        response_class=HTMLResponse,
        responses={200: {"content": {"text/html": {}}}},
    )
    def get_card(model: str, version: Number) -> Response:
        with database.read() as conn:
            models.get(conn, model)
            row = versions.get(conn, model, version)
            now = champions.current(conn, model)
            probation = probations.latest_of_version(conn, model, version)
        headers = {"Content-Security-Policy": STILL, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(card(row, champion=now, probation=probation), headers=headers)

    @api.get(
        "/runs/{run_id}/data-summary",
        tags=["runs"],
        summary="What a run could learn from, as a page",
        response_class=HTMLResponse,
        responses={200: {"content": {"text/html": {}}}},
    )
    def get_data_summary(run_id: str, request: Request) -> Response:
        with database.read() as conn:
            run = runs.get(conn, run_id)
        root = reports.resolve()
        path = (root / run.model / f"data-{run.id}.html.gz").resolve()
        if not path.is_relative_to(root) or not path.is_file():
            msg = "the run has no data summary: it came to no data, the drawing failed, or it was cleared away"
            raise UnknownRun(msg, run=run_id)
        return packed_page(path, request)

    return api


def packed_page(path: Path, request: Request) -> Response:
    """Return a stored page, packed as it lies if the client takes that.

    It is made from data that clients sent: it may not run as part of this site.
    """
    headers = {"Content-Security-Policy": "sandbox allow-scripts", "X-Content-Type-Options": "nosniff"}
    packed = path.read_bytes()
    if "gzip" in request.headers.get("accept-encoding", ""):
        return HTMLResponse(packed, headers={**headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
    return HTMLResponse(gzip.decompress(packed), headers={**headers, "Vary": "Accept-Encoding"})
