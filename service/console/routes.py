"""The console's addresses. Reading ones are a viewer's, changing ones an operator's; two are an approver's."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from service.console import live
from service.console.checks import check, check_list
from service.console.door import Visitor
from service.console.fleet import fleet
from service.console.model import model
from service.console.records import audit_list, settings_page
from service.console.runs import run, run_list
from service.console.site import HEADERS, Form, Shown, Site
from service.console.verbs import MODEL_VERBS, RUN_VERBS, Asked, Verb, confirm_model, confirm_run
from service.console.versions import version, version_list
from service.domain.access import Right

__all__ = ["PAGES", "router"]

ASSETS = Path(__file__).parent / "assets"
Reads = Callable[[Connection, Request], Shown]
Answers = Callable[[Request], Awaitable[Response]]

READ: dict[str, Right | None] = {"GET": Right.READ}
PAGES: dict[str, dict[str, Right | None]] = {
    **dict.fromkeys(
        (
            "/", "/models/{model}", "/runs", "/runs/{run_id}", "/runs/{run_id}/stream", "/versions/{model}",
            "/versions/{model}/{version}", "/checks", "/checks/{check_id}", "/audit", "/settings",
        ),
        READ,
    ),
    **{f"/models/{{model}}/{verb.name}": {**READ, "POST": verb.right} for verb in MODEL_VERBS.values()},
    **{f"/runs/{{run_id}}/{verb.name}": {**READ, "POST": verb.right} for verb in RUN_VERBS.values()},
    "/sign-in": {"GET": None, "POST": None},
    # Whatever else a key may: each may be left.
    "/sign-out": {"POST": Right.DESCRIBE},
    "/console/assets/{path:path}": {"GET": None},
    "/favicon.ico": {"GET": None},
}  # fmt: skip
"""Which right each of the console's addresses asks for; None: whoever reaches it."""


def router(site: Site) -> APIRouter:
    """Return the routes of the console."""
    api = APIRouter(include_in_schema=False)
    pages: dict[str, Reads] = {
        "/": fleet,
        "/models/{model}": model,
        "/runs": run_list,
        "/runs/{run_id}": run,
        "/versions/{model}": version_list,
        "/versions/{model}/{version}": version,
        "/checks": check_list,
        "/checks/{check_id}": check,
        "/audit": audit_list,
        "/settings": settings_page(site.settings),
    }
    for path, read in pages.items():
        _add(api, path, _page(site, read))
    for verb in MODEL_VERBS.values():
        _add_verb(api, site, f"/models/{{model}}/{verb.name}", verb, confirm_model(verb), "model")
    for verb in RUN_VERBS.values():
        _add_verb(api, site, f"/runs/{{run_id}}/{verb.name}", verb, confirm_run(verb), "run_id")

    async def stream(request: Request) -> Response:
        return await live.stream(site, request)

    _add(api, "/runs/{run_id}/stream", stream)
    _add_sign_in(api, site)
    _add_files(api)
    return api


def _add(api: APIRouter, path: str, answer: Answers, method: str = "GET") -> None:
    # A router's plain routes say nothing of themselves to whoever counts the answers.
    api.add_api_route(path, answer, methods=[method], response_model=None, name=f"console {method} {path}")


def _page(site: Site, read: Reads) -> Answers:
    async def answer(request: Request) -> Response:
        return await site.show(request, read)

    return answer


def _add_verb(api: APIRouter, site: Site, path: str, verb: Verb, confirm: Reads, subject: str) -> None:
    async def answer(request: Request) -> Response:
        def act(conn: Connection, visitor: Visitor, form: Form) -> str:
            return verb.act(conn, Asked(request.path_params[subject], visitor, form))

        return await site.change(request, act)

    _add(api, path, _page(site, confirm))
    _add(api, path, answer, "POST")


def _add_sign_in(api: APIRouter, site: Site) -> None:
    def page(_conn: Connection, _request: Request) -> Shown:
        return Shown("signin.html", {"title": "Sign in"})

    async def sign_in(request: Request) -> Response:
        def begin(_visitor: Visitor, form: Form) -> Response:
            headers = {**HEADERS, "Set-Cookie": site.door.begin(request, form.get("key", ""))}
            return RedirectResponse("/", status_code=303, headers=headers)

        return await site.take(request, begin)

    async def sign_out(request: Request) -> Response:
        def end(_visitor: Visitor, _form: Form) -> Response:
            headers = {**HEADERS, "Set-Cookie": site.door.end(request)}
            return RedirectResponse("/sign-in", status_code=303, headers=headers)

        return await site.take(request, end)

    _add(api, "/sign-in", _page(site, page))
    _add(api, "/sign-in", sign_in, "POST")
    _add(api, "/sign-out", sign_out, "POST")


def _add_files(api: APIRouter) -> None:
    files = StaticFiles(directory=ASSETS)

    async def asset(request: Request) -> Response:
        response = await files.get_response(request.path_params["path"], request.scope)
        response.headers.update({**HEADERS, "Cache-Control": "no-cache"})  # asked again each time, and rarely sent
        return response

    async def icon(_request: Request) -> Response:
        return FileResponse(ASSETS / "icon.svg", media_type="image/svg+xml", headers=HEADERS)

    _add(api, "/console/assets/{path:path}", asset)
    _add(api, "/favicon.ico", icon)
