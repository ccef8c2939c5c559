"""Decisions and their reasons: one explained, a changed policy tried on those that were made, a suggestion accepted."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import TypeAdapter
from starlette.responses import Response

from service.api.access import Asker
from service.api.asking import StateRoute
from service.api.shapes import Accept, DryRunAsk, Explained
from service.control import replay, suggestion
from service.control.replay import DryRun
from service.storage.database import Database
from service.storage.runs import Run

__all__ = ["router"]


def router(database: Database) -> APIRouter:
    """Return the routes."""
    api = APIRouter(prefix="/v1", route_class=StateRoute)

    @api.get(
        "/checks/{check_id}/explanation",
        tags=["checks"],
        summary="Why a check ended as it did",
        description="Step by step in the order of the decision, each rule with whether it was met and its figures. "
        "The recorded situation is decided anew: `same` is false, and a warning says so, if this release decides "
        "otherwise.",
    )
    def get_explanation(check_id: str) -> Explained:
        with database.read() as conn:
            check, found = replay.explained(conn, check_id)
        return Explained(
            check=check.id, model=check.model, version=check.version, window_from=check.window_from,
            window_until=check.window_until, run=check.run_id, **found.to_json(),
        )  # fmt: skip

    @api.post(
        "/models/{model}/policy:dry-run",
        tags=["models"],
        summary="Try a changed retrain policy on the last checks",
        description="Decides the recorded situations of the last checks anew; nothing is written. `policy` holds the "
        "fields that change, the model's own policy the others. Pauses, budget and new labels after a run that only "
        "one of the two policies makes are derived; `limits` says what can't be known.",
    )
    def try_policy(model: str, ask: DryRunAsk) -> dict[str, Any]:
        with database.read() as conn:
            policy = replay.changed_policy(conn, model, ask.policy)
            found = replay.dry_run(conn, model, policy, last=ask.last, assume=ask.assume)
        plain: dict[str, Any] = TypeAdapter(DryRun).dump_python(found, mode="json")
        return plain

    @api.post(
        "/models/{model}/suggestion/accept",
        status_code=202,
        tags=["runs"],
        summary="Start the run that the newest check suggests",
        description="409 when nothing is suggested, 412 when `check` is named and another check has looked since.",
    )
    def accept(
        model: str, response: Response, asker: Asker, why: Annotated[Accept, Body(default_factory=Accept)]
    ) -> Run:
        with database.write(origin=asker.origin) as conn:
            run = suggestion.accept(conn, model, check=why.check, actor=asker.actor, reason=why.reason)
        response.headers["Location"] = f"/v1/runs/{run.id}"
        return run

    return api
