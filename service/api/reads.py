"""What a viewer may ask: models, versions, checks, runs, predictions, audit. Each reads the database on a thread."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi import Path as InPath
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from service.api.asking import SLOW, StateRoute
from service.api.reports import packed_page
from service.api.shapes import (
    Audit,
    Checks,
    CheckWords,
    DriftWords,
    Events,
    Held,
    Model,
    Models,
    ProbationWords,
    Runs,
    RunWords,
    Version,
    Versions,
    VersionWords,
)
from service.control.suggestion import open_of
from service.domain.errors import DatabaseUnavailable, LakeUnavailable, UnknownCheck, UnknownPrediction
from service.domain.policy import Probation
from service.domain.probation import watched_until
from service.domain.run import TERMINAL
from service.storage import alarms, audit, champions, checks, models, probations, replicas, runs, versions
from service.storage.checks import Check
from service.storage.database import Database
from service.storage.ids import is_id
from service.storage.models import ModelRow, policy_of
from service.storage.probations import ProbationRow
from service.storage.runs import Run, RunEvent

__all__ = ["described", "router"]

LIVE_S = 6.0
LOOKUP_S = 20.0
FOLLOW_S = 0.5
QUIET_S = 15.0
LONG_S = 2.0

Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]
Before = Annotated[str | None, Query(max_length=64, description="Only those before this id.")]
Number = Annotated[int, InPath(ge=1, le=2**31 - 1)]


def described(conn: Connection, row: ModelRow) -> Model:
    """Return a model as the API shows it."""
    check, run = checks.newest(conn, row.name), next(iter(runs.list_of(conn, row.name, limit=1)), None)
    done = checks.latest_done(conn, row.name) or check
    living = {replica.id: replica for replica in replicas.live(conn, LIVE_S)}
    fields: dict[str, Any] = {
        **(row.spec or {}),
        "name": row.name,
        "champion": champions.current(conn, row.name),
        "swap": next(iter(champions.waiting(conn, row.name)), None),
        "probation": _probation(row, probations.open_of(conn, row.name)),
        "switches": models.switches(conn, row.name),
        "suggestion": open_of(conn, done),
        "last_check": None if done is None else CheckWords(**_picked(done, CheckWords)),
        "drift_test": _drift(conn, row, done),
        "last_run": None if run is None else RunWords(**_picked(run, RunWords)),
        "serving": [
            Held(
                replica=held.replica_id, host=living[held.replica_id].host, worker=living[held.replica_id].worker,
                version=held.version, generation=held.generation, error=held.error,
            )
            for held in replicas.serving(conn, row.name)
            if held.replica_id in living
        ],
        "error": row.error,
        "file": row.file,
        "registered_at": row.registered_at,
        "updated_at": row.updated_at,
    }  # fmt: skip
    return Model(**fields)


def router(database: Database, home: Path, *, is_leaving: Callable[[], bool]) -> APIRouter:
    """Return the viewer's routes; a stream ends once the process `is_leaving`."""
    api = APIRouter(prefix="/v1", route_class=StateRoute)
    _add_models(api, database)
    _add_checks(api, database, home / "reports")
    _add_runs(api, database)
    _add_events(api, database, is_leaving)
    _add_records(api, database, home)
    return api


def _add_models(api: APIRouter, database: Database) -> None:
    @api.get("/models", tags=["models"], summary="All models, who answers, and what was seen last")
    def list_models() -> Models:
        with database.read() as conn:
            return Models(models=[described(conn, row) for row in models.list_all(conn)])

    @api.get("/models/{model}", tags=["models"], summary="One model; its ETag is the champion's generation")
    def get_model(model: str, response: Response) -> Model:
        with database.read() as conn:
            shown = described(conn, models.get(conn, model))
        response.headers["ETag"] = f'"{shown.champion.generation if shown.champion else 0}"'
        return shown

    @api.get("/models/{model}/versions", tags=["models"], summary="A model's versions, the newest first")
    def list_versions(model: str) -> Versions:
        with database.read() as conn:
            models.get(conn, model)
            listed = versions.list_of(conn, model)
        return Versions(versions=[VersionWords(**_picked(row, VersionWords)) for row in listed])

    @api.get("/models/{model}/versions/{version}", tags=["models"], summary="One version with its lineage")
    def get_version(model: str, version: Number) -> Version:
        with database.read() as conn:
            known, row = models.get(conn, model), versions.get(conn, model, version)
            probation = _probation(known, probations.latest_of_version(conn, model, version))
        return Version(
            **_picked(row, VersionWords), manifest=row.manifest, lineage=row.lineage, reference=row.reference,
            calibration=row.calibration, probation=probation,
        )  # fmt: skip


def _add_checks(api: APIRouter, database: Database, reports: Path) -> None:
    def found(conn: Connection, model: str, check_id: str) -> Check:
        models.get(conn, model)
        check = checks.get(conn, check_id)
        if check.model != model:
            msg = "no check of this model has that id"
            raise UnknownCheck(msg)
        return check

    @api.get("/models/{model}/checks", tags=["checks"], summary="A model's checks, the newest first")
    def list_checks(model: str, limit: Limit = 50, before: Before = None) -> Checks:
        with database.read() as conn:
            models.get(conn, model)
            return Checks(checks=checks.list_of(conn, model, limit=limit, before=before))

    @api.get("/models/{model}/checks/{check_id}", tags=["checks"], summary="One check")
    def get_check(model: str, check_id: str) -> Check:
        with database.read() as conn:
            return found(conn, model, check_id)

    @api.get(
        "/models/{model}/checks/{check_id}/report",
        tags=["checks"],
        summary="The check's evidence as a page",
        response_class=HTMLResponse,
        responses={200: {"content": {"text/html": {}}}},
    )
    def get_report(model: str, check_id: str, request: Request) -> Response:
        with database.read() as conn:
            check = found(conn, model, check_id)
        root = reports.resolve()
        path = (root / check.report).resolve() if check.report else root
        if not path.is_relative_to(root) or not path.is_file():
            msg = "the check has no report: it is still under way, failed, or the report was cleared away"
            raise UnknownCheck(msg, check=check_id)
        return packed_page(path, request)


def _add_runs(api: APIRouter, database: Database) -> None:
    @api.get("/runs", tags=["runs"], summary="Runs, the newest first")
    def list_runs(
        model: Annotated[str | None, Query(max_length=63)] = None, limit: Limit = 50, before: Before = None
    ) -> Runs:
        with database.read() as conn:
            if model is not None:
                models.get(conn, model)
            return Runs(runs=runs.list_of(conn, model, limit=limit, before=before))

    @api.get("/runs/{run_id}", tags=["runs"], summary="One run; its ETag changes with every transition")
    def get_run(run_id: str, response: Response) -> Run:
        with database.read() as conn:
            found, revision = runs.get(conn, run_id), runs.revision(conn, run_id)
        response.headers["ETag"] = f'"{revision}"'
        return found


def _add_events(api: APIRouter, database: Database, is_leaving: Callable[[], bool]) -> None:
    def read_events(run_id: str) -> tuple[Run, list[RunEvent]]:
        with database.read() as conn:
            return runs.get(conn, run_id), runs.events(conn, run_id)

    @api.get(
        "/runs/{run_id}/events",
        tags=["runs"],
        summary="A run's transitions; with follow=1 as server-sent events until it ends",
        response_model=Events,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def list_events(run_id: str, follow: Annotated[bool, Query()] = False) -> Any:  # noqa: FBT002
        _, events = await run_in_threadpool(read_events, run_id)
        if not follow:
            return Events(events=events)

        async def told() -> AsyncIterator[bytes]:
            seen, quiet = 0, 0.0
            while not is_leaving():
                try:
                    run, known = await run_in_threadpool(read_events, run_id)
                except DatabaseUnavailable:
                    yield b": the database does not answer\n\n"
                    await asyncio.sleep(LONG_S)
                    continue
                for event in known[seen:]:
                    yield b"event: transition\nid: %d\ndata: %b\n\n" % (event.seq, msgspec.json.encode(event))
                quiet = 0.0 if len(known) > seen else quiet + FOLLOW_S
                seen = len(known)
                if run.state in TERMINAL:
                    return
                if quiet >= QUIET_S:
                    quiet = 0.0
                    yield b": still here\n\n"
                await asyncio.sleep(FOLLOW_S)

        return StreamingResponse(told(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _add_records(api: APIRouter, database: Database, home: Path) -> None:
    @api.get(
        "/predictions/{prediction_id}",
        tags=["predictions"],
        summary="One recorded prediction with its label",
        openapi_extra={f"x-{SLOW}": True},  # it asks the lake too
    )
    async def get_prediction(
        prediction_id: str,
        model: Annotated[str | None, Query(max_length=63, description="Where known; else all are searched.")] = None,
    ) -> dict[str, Any]:
        if not is_id(prediction_id):
            msg = "that is no prediction's id"
            raise UnknownPrediction(msg)

        def names() -> list[str]:
            with database.read() as conn:
                return [row.name for row in models.list_all(conn)] if model is None else [models.get(conn, model).name]

        for name in await run_in_threadpool(names):
            found = await run_in_threadpool(_look_up, home, name, prediction_id)
            if found is not None:
                return found
        msg = "no recorded prediction has that id"
        raise UnknownPrediction(msg)

    @api.get("/audit", tags=["audit"], summary="Who changed what and why, the newest first")
    def list_audit(
        model: Annotated[str | None, Query(max_length=63)] = None,
        limit: Limit = 50,
        before: Annotated[int | None, Query(ge=1)] = None,
    ) -> Audit:
        with database.read() as conn:
            return Audit(audit=audit.list_of(conn, model, limit=limit, before=before))


def _look_up(home: Path, model: str, prediction_id: str) -> dict[str, Any] | None:
    # Another process: a worker that imported the lake's library would never give its memory back.
    command = [sys.executable, "-m", "service.storage.lookup", str(home), model, prediction_id]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LOOKUP_S, check=False)  # noqa: S603  no shell
    except subprocess.TimeoutExpired:
        msg = "the lake did not answer in time"
        raise LakeUnavailable(msg, retry_after_s=5) from None
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    if done.returncode == 1:
        return None
    msg = "the lake can't be read now"
    raise LakeUnavailable(msg, retry_after_s=5)


def _drift(conn: Connection, row: ModelRow, check: Check | None) -> DriftWords | None:
    tested = ((check.examination if check else None) or {}).get("drift")
    if check is None or check.window_until is None or not tested:
        return None
    return DriftWords(**tested, realised_alarms=len(alarms.realised(conn, row, until=check.window_until)))


def _probation(model: ModelRow, row: ProbationRow | None) -> ProbationWords | None:
    if row is None:
        return None
    policy = policy_of(model, Probation)
    plain = {name: getattr(row, name) for name in ProbationWords.model_fields if name not in {"until", "state"}}
    until = watched_until(policy, row.began_event_time, row.extended)
    return ProbationWords(**plain, state=row.state.value, until=until)


def _picked(row: Any, shape: Any) -> dict[str, Any]:
    plain = {name: getattr(row, name) for name in shape.model_fields}
    return {name: value.value if hasattr(value, "value") else value for name, value in plain.items()}
