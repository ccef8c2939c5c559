"""Every error as an RFC 9457 problem: what is wrong and what to do, never a stack trace or the request's bytes."""

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from service.domain import errors
from service.domain.errors import RetrueError
from service.telemetry import Slug

__all__ = ["MEDIA_TYPE", "STATUS", "document", "install", "internal", "named", "problem", "problem_of", "status_of"]

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
AS_SAID = {"X-Content-Type-Options": "nosniff"}
"""A problem may repeat what somebody sent: no browser may take it for a page."""
NAMED = ("model", "version", "run_id", "check_id", "switch")

STATUS: dict[type[RetrueError], int] = {
    errors.UnknownModel: 404,
    errors.UnknownVersion: 404,
    errors.UnknownRun: 404,
    errors.UnknownCheck: 404,
    errors.UnknownPrediction: 404,
    errors.UnknownKey: 404,
    errors.UnknownDelivery: 404,
    errors.NoKey: 401,
    errors.MalformedKey: 401,
    errors.WrongKey: 401,
    errors.ExpiredKey: 401,
    errors.RevokedKey: 401,
    errors.NotPermitted: 403,
    errors.ForeignPage: 403,
    errors.NoToken: 403,
    errors.TooManyRequests: 429,
    errors.InvalidRequest: 400,
    errors.BodyTooLarge: 413,
    errors.InvalidRows: 422,
    errors.Conflict: 409,
    errors.RunInProgress: 409,
    errors.GenerationMismatch: 412,
    errors.OutOfDate: 412,
    errors.PreconditionMissing: 428,
    errors.NotAllowedNow: 409,
    errors.NotReady: 503,
    errors.NoChampion: 503,
    errors.Overloaded: 503,
    errors.NotRecorded: 503,
    errors.DatabaseUnavailable: 503,
    errors.LakeUnavailable: 503,
    # These name an operator's files or a process's work; met in a request they are the service's own fault.
    errors.SpecInvalid: 500,
    errors.SettingInvalid: 500,
    errors.HomeUnusable: 500,
    errors.PortInUse: 500,
    errors.KeysMissing: 500,
    errors.Broken: 500,
    errors.ArtifactInvalid: 500,
    errors.TrainingFailed: 500,
    errors.CheckFailed: 500,
    errors.LeaseLost: 500,
}
"""HTTP status of each error; one that is not listed has its parent's."""


def document(status: int, detail: str, *, code: str, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the problem document."""
    return {
        **(facts or {}),
        "type": f"urn:retrue:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }


def problem(
    status: int, detail: str, *, code: str, facts: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Return the problem document as a response."""
    content = msgspec.json.encode(document(status, detail, code=code, facts=facts), enc_hook=str)
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers={**(headers or {}), **AS_SAID})


def status_of(error: RetrueError) -> int:
    """Return the HTTP status of an error that was raised on purpose."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem_of(error: RetrueError) -> Response:
    """Return the response for an error that was raised on purpose."""
    status = status_of(error)
    headers = None
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {"WWW-Authenticate": "Bearer"}
    elif status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        headers = {"Retry-After": str(error.facts.get("retry_after_s", 1))}
    return problem(status, error.detail, code=error.code, facts=error.facts, headers=headers)


def install(app: FastAPI) -> None:
    """Make `app` answer every error with a problem."""
    app.add_exception_handler(RetrueError, _retrue)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _unexpected)


async def _retrue(_request: Request, error: Exception) -> Response:
    return problem_of(error) if isinstance(error, RetrueError) else internal()


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return internal()
    phrase = HTTPStatus(error.status_code).phrase
    words = {
        404: "there is nothing at this address; /docs lists what there is",
        405: "this address does not take that method",
    }
    # FastAPI's own detail for a body that can't be read is kept short; ours are written for people.
    detail = words.get(error.status_code, str(error.detail or phrase))
    headers = dict(error.headers) if error.headers else None
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {**(headers or {}), "Allow": ", ".join(_allowed(request))}
    return problem(error.status_code, detail, code=phrase.lower().replace(" ", "-"), headers=headers)


def _allowed(request: Request) -> list[str]:
    """Return what the address does take; the router itself names only the first of several routes at it."""
    scope = {**request.scope, "path_params": {}}
    routes = request.app.router.routes
    found = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return [*found[:1], "HEAD", *found[1:]] if "GET" in found else found


async def _validation(request: Request, error: Exception) -> Response:
    # Never the input: it may be a secret, or bytes that are no text.
    found = error.errors() if isinstance(error, RequestValidationError) else []
    listed = [
        {
            "field": ".".join(_place(part) for part in fault["loc"]),
            "code": fault["type"],
            "detail": _words(fault["msg"]),
        }
        for fault in found[:100]
    ]
    if any(fault["code"].startswith("json") for fault in listed):
        return problem(400, "the body is not JSON", code=errors.InvalidRequest.code)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if listed and listed[0]["field"] == "body" and not kind.endswith("json"):
        return problem(415, "send JSON, with the header Content-Type: application/json", code="not-json")
    detail = f"{listed[0]['field']}: {listed[0]['detail']}" if listed else "the request is not what the address takes"
    return problem(422, detail, code=errors.InvalidRequest.code, facts={"errors": listed})


def _words(text: str) -> str:
    """Return what is wrong as people say it, without Pydantic's word for who found it."""
    return text.removeprefix("Value error, ")


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error(Slug.REQUEST_FAILED, extra={"facts": {"path": _route(request), **named(request.scope)}}, exc_info=error)
    return internal()


def internal() -> Response:
    """Return the problem for an error that nobody foresaw; what it was is the log's."""
    return problem(500, "something went wrong inside; the service's log says what", code="internal")


def named(scope: Scope) -> dict[str, Any]:
    """Return what the address names, for the log: model, version, run, check."""
    found = scope.get("path_params") or {}
    return {name.removesuffix("_id"): found[name] for name in NAMED if name in found}


def _place(part: Any) -> str:
    text = str(part)
    return text if len(text) <= 64 and text.isprintable() else "?"


def _route(request: Request) -> str:
    return str(getattr(request.scope.get("route"), "path", "?"))
