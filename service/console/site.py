"""What every page has: its reading or writing of the database on a thread, its errors as pages, its headers."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from service.console import words
from service.console.door import Door, OpenDoor, Visitor, refuse_forged, token_of
from service.domain.errors import CallerError, DatabaseUnavailable, InvalidRequest, RetrueError
from service.storage.database import Database

__all__ = ["HEADERS", "Form", "Shown", "Site", "address"]

PATIENCE_S = 8.0
"""A page asks more than a route of the API does, and whoever opened it rather waits than reads an error."""
FOLDER = Path(__file__).parent / "templates"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Whatever a name or a comment might be, no script and no style stands in a page, and nothing comes from elsewhere."""

Form = Mapping[str, str]


@dataclass(frozen=True)
class Shown:
    """A page, or what a change leads to."""

    template: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    stamp: str | None = None
    """Of a page that looks again by itself: as long as it stays, nothing has changed."""


class Site:
    """Shows pages.

    Parameters
    ----------
    database
        Where everything stands.
    settings
        Each setting with ``variable``, ``value`` and ``origin``.
    status_of
        HTTP status of an error.
    is_leaving
        Whether the process is about to end: streams end then.
    door
        Who may come in.
    patience_s
        Longest that a reader waits for a page.
    """

    def __init__(
        self,
        database: Database,
        *,
        settings: Sequence[Mapping[str, str]] = (),
        status_of: Callable[[RetrueError], int] = lambda _: 500,
        is_leaving: Callable[[], bool] = lambda: False,
        door: Door | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.database, self.settings, self.is_leaving = database, settings, is_leaving
        self.door: Door = door or OpenDoor()
        self._status_of, self._patience_s = status_of, patience_s
        self._pages = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._pages.filters.update(
            number=words.number, share=words.share, moment=words.moment, day=words.day, duration=words.duration,
            short=words.short, kind=words.kind_of, plain=words.plain, outcome=words.outcome, brief=words.brief,
            iso=_iso,
        )  # fmt: skip
        self._pages.globals.update(address=address)

    async def show(self, request: Request, read: Callable[[Connection, Request], Shown]) -> Response:
        """Answer with a page that only reads."""

        def made() -> Response:
            visitor = self.door.visitor(request)
            with self.database.read() as conn:
                shown = read(conn, request)
            if shown.stamp is not None and request.query_params.get("seen") == shown.stamp:
                return Response(status_code=204, headers=HEADERS)
            return self._page(request, visitor, shown)

        return await self._answered(request, made)

    async def change(self, request: Request, write: Callable[[Connection, Visitor, Form], str]) -> Response:
        """Answer a form: write in one transaction, and go to the page that shows it."""

        def act(visitor: Visitor, form: Form) -> Response:
            with self.database.write(origin=visitor.origin) as conn:
                where = write(conn, visitor, form)
            return RedirectResponse(where, status_code=303, headers=HEADERS)

        return await self.take(request, act)

    async def take(self, request: Request, act: Callable[[Visitor, Form], Response]) -> Response:
        """Answer a form that is the console's own."""
        body = await request.body()

        def made() -> Response:
            form = _form(body)
            visitor = self.door.visitor(request)
            refuse_forged(visitor, request, form)
            return act(visitor, form)

        return await self._answered(request, made, is_read=False)

    def status_of(self, error: RetrueError) -> int:
        """Return the HTTP status of an error."""
        return self._status_of(error)

    async def _answered(self, request: Request, made: Callable[[], Response], *, is_read: bool = True) -> Response:
        try:
            if getattr(request.app.state, "is_degraded", lambda: False)():
                msg = "the database does not answer; predictions go on"
                raise DatabaseUnavailable(msg, retry_after_s=2)
            asked = asyncio.ensure_future(run_in_threadpool(made))
            # What is written must be known to be written, or not.
            done, _ = await asyncio.wait({asked}, timeout=self._patience_s if is_read else None)
            if not done:
                asked.add_done_callback(lambda late: late.cancelled() or late.exception())
                msg = f"the database did not answer within {self._patience_s:g} s"
                raise DatabaseUnavailable(msg, retry_after_s=2)
            return asked.result()
        except RetrueError as error:
            return await run_in_threadpool(self._wrong, request, error)

    def _wrong(self, request: Request, error: RetrueError) -> Response:
        status = self._status_of(error)
        facts = {"error": error, "is_callers": isinstance(error, CallerError), "status": status}
        if status == 503 and request.method == "GET":
            facts["again"] = _again(request, "")  # it comes back by itself, once the database does
        shown = Shown("error.html", {"title": "Not found" if status == 404 else "Not done", **facts}, status=status)
        response = self._page(request, self.door.visitor(request), shown)
        if "retry_after_s" in error.facts:
            response.headers["Retry-After"] = str(error.facts["retry_after_s"])
        return response

    def _page(self, request: Request, visitor: Visitor, shown: Shown) -> Response:
        now = datetime.now(UTC)
        common = {
            "path": request.url.path,
            "visitor": visitor,
            "token": token_of(visitor),
            "may": visitor.rights.__contains__,
            "is_open": self.door.is_open,
            "now": now,
            "ago": lambda value: words.ago(value, now),
            "again": None if shown.stamp is None else _again(request, shown.stamp),
            "said": request.query_params.get("said", ""),
        }
        text = self._pages.get_template(shown.template).render({**common, **shown.facts})
        response = HTMLResponse(text, status_code=shown.status, headers=HEADERS)
        if visitor.set_cookie is not None:
            response.headers["Set-Cookie"] = visitor.set_cookie
        return response


def address(*parts: Any, **query: Any) -> str:
    """Return an address of this site out of its parts, whatever stands in them."""
    path = "/" + "/".join(quote(str(part), safe="") for part in parts)
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _again(request: Request, stamp: str) -> str:
    given = {name: value for name, value in request.query_params.items() if name not in {"said", "seen"}}
    return f"{quote(request.url.path)}?{urlencode({**given, 'seen': stamp})}"


def _form(body: bytes) -> Form:
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=50))
    except ValueError:
        msg = "that is no form"
        raise InvalidRequest(msg) from None


def _iso(value: Any) -> str:
    at = words.as_moment(value)
    return "" if at is None else at.isoformat(timespec="seconds")
