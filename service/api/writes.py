"""What an operator may ask for. Each route writes an intention in one transaction, with its audit row; none trains."""

import hashlib
import re
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Body, Header, Query
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import Response

from service.api.access import Asker
from service.api.asking import StateRoute
from service.api.shapes import Ask, Promote, Reason, Rollback
from service.control import orders, requests, rollback
from service.domain.errors import InvalidRequest, PreconditionMissing
from service.domain.switch import CLEARABLE, ClearName, SwitchName
from service.storage.champions import Champion, Swap
from service.storage.checks import Check
from service.storage.database import Database
from service.storage.models import Switch
from service.storage.runs import Run

__all__ = ["router"]


class SwitchConvertor(StringConvertor):
    """A switch's name in a path: whatever else stands there is another address, or none."""

    regex = "|".join(CLEARABLE)


register_url_convertor("switch", SwitchConvertor())

IfMatch = Annotated[str | None, Header(max_length=64)]
_NUMBER = re.compile(r'(?:W/)?"?(\d{1,18})"?')


def router(database: Database) -> APIRouter:
    """Return the operator's and the approver's routes."""
    api = APIRouter(prefix="/v1", route_class=StateRoute)
    _add_runs(api, database)
    _add_decisions(api, database)
    _add_champion(api, database)
    _add_switches(api, database)
    return api


def _add_runs(api: APIRouter, database: Database) -> None:
    @api.post(
        "/models/{model}/runs",
        status_code=202,
        tags=["runs"],
        summary="Ask for a run: train, judge, promote if it passes",
        description="The same Idempotency-Key with the same request gives the run that it made before. While another "
        "run is in the way the request is refused with 409, which names that run; with on_conflict=coalesce the two "
        "become one: the run in the way is returned if it does all that is asked or is under way, and a queued one "
        "that would do less (not forced, or looking no further than its check) is superseded by the new one.",
    )
    def ask_run(
        model: str,
        response: Response,
        asker: Asker,
        ask: Annotated[Ask, Body(default_factory=Ask)],
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
        on_conflict: Literal["refuse", "coalesce"] = "refuse",
    ) -> Run:
        digest = hashlib.sha256(msgspec.json.encode([model, ask.reason, ask.force])).hexdigest()
        with database.write(origin=asker.origin) as conn:
            run = requests.ask(
                conn, model, actor=asker.actor, reason=ask.reason, force=ask.force, coalesce=on_conflict == "coalesce",
                idempotency_key=idempotency_key, request_digest=digest if idempotency_key else None,
            )  # fmt: skip
        response.headers["Location"] = f"/v1/runs/{run.id}"
        return run

    @api.post(
        "/models/{model}/checks", status_code=202, tags=["checks"], summary="Ask for a check of the newest window"
    )
    def ask_check(
        model: str, response: Response, asker: Asker, why: Annotated[Reason, Body(default_factory=Reason)]
    ) -> Check:
        with database.write(origin=asker.origin) as conn:
            check = orders.check(conn, model, actor=asker.actor, reason=why.reason)
        response.headers["Location"] = f"/v1/models/{model}/checks/{check.id}"
        return check


def _add_decisions(api: APIRouter, database: Database) -> None:
    seen = "If-Match must name what you looked at: the run's ETag, or * for whatever it is now. "

    @api.post(
        "/runs/{run_id}/cancel",
        status_code=202,
        tags=["runs"],
        summary="End a run that has not committed yet",
        description="Asking twice changes nothing. Once its version is champion it is too late (409): roll back.",
    )
    def cancel(run_id: str, asker: Asker, why: Annotated[Reason, Body(default_factory=Reason)]) -> Run:
        with database.write(origin=asker.origin) as conn:
            return requests.cancel(conn, run_id, actor=asker.actor, reason=why.reason)

    @api.post(
        "/runs/{run_id}/approve",
        status_code=202,
        tags=["runs"],
        summary="Let a waiting challenger be promoted",
        description=f"{seen}412 when the run has moved since, or the champion is no longer the one that the "
        "challenger was judged against: then it is judged again.",
    )
    def approve(
        run_id: str, asker: Asker, why: Annotated[Reason, Body(default_factory=Reason)], if_match: IfMatch = None
    ) -> Run:
        revision = _revision(if_match)
        with database.write(origin=asker.origin) as conn:
            return requests.approve(conn, run_id, seen=revision, actor=asker.actor, reason=why.reason)

    @api.post(
        "/runs/{run_id}/reject",
        status_code=202,
        tags=["runs"],
        summary="Turn a waiting challenger down",
        description=f"{seen}412 when the run has moved since.",
    )
    def reject(
        run_id: str, asker: Asker, why: Annotated[Reason, Body(default_factory=Reason)], if_match: IfMatch = None
    ) -> Run:
        revision = _revision(if_match)
        with database.write(origin=asker.origin) as conn:
            return requests.reject(conn, run_id, seen=revision, actor=asker.actor, reason=why.reason)


def _add_champion(api: APIRouter, database: Database) -> None:
    @api.put(
        "/models/{model}/champion",
        status_code=202,
        tags=["models"],
        summary="Ask that a version become champion, once every worker has loaded it",
        description="If-Match must name the champion's generation: the model's ETag, 0 while there is none.",
    )
    def promote(
        model: str,
        wanted: Promote,
        response: Response,
        asker: Asker,
        if_match: IfMatch = None,
    ) -> Swap:
        expected = _generation(if_match)
        with database.write(origin=asker.origin) as conn:
            swap = orders.promote(
                conn, model, version=wanted.version, expected=expected, actor=asker.actor, reason=wanted.reason
            )
        response.headers["Location"] = f"/v1/models/{model}"
        return swap

    @api.post(
        "/models/{model}/rollback",
        tags=["models"],
        summary="Take the champion back at once",
        description="Goes to the last version that was kept after its probation (or is the model's first), or to the "
        "one named; never to one that is quarantined or whose artifact is gone. A champion that is taken back while "
        "on probation is quarantined; one that had been kept is retired. Holds automatic promotion until the switch "
        "`hold` is cleared: runs that it held go on then, judged again if the champion has changed.",
    )
    def roll_back(model: str, asker: Asker, wanted: Annotated[Rollback, Body(default_factory=Rollback)]) -> Champion:
        with database.write(origin=asker.origin) as conn:
            return rollback.roll_back(conn, model, to=wanted.to, actor=asker.actor, reason=wanted.reason)


def _add_switches(api: APIRouter, database: Database) -> None:
    @api.put(
        "/models/{model}/{switch:switch}",
        tags=["switches"],
        summary="Set a switch",
        description="pause: no scheduled runs; freeze: no training and no promotion; pin: the champion is fixed; "
        "hold: no automatic promotion.",
    )
    def set_switch(
        model: str, switch: SwitchName, asker: Asker, why: Annotated[Reason, Body(default_factory=Reason)]
    ) -> Switch:
        with database.write(origin=asker.origin) as conn:
            return orders.set_switch(conn, model, switch, actor=asker.actor, reason=why.reason)

    @api.delete(
        "/models/{model}/{switch:switch}",
        tags=["switches"],
        summary="Clear a switch",
        description="Clearing quarantine accepts the present data as the new normal; clearing breaker says that what "
        "broke the last runs is mended.",
        status_code=204,
    )
    def clear_switch(
        model: str,
        switch: ClearName,
        asker: Asker,
        reason: Annotated[str, Query(min_length=1, max_length=2000)] = "asked over HTTP",
    ) -> None:
        with database.write(origin=asker.origin) as conn:
            orders.clear_switch(conn, model, switch, actor=asker.actor, reason=reason)


def _generation(if_match: str | None) -> int:
    if if_match is None:
        msg = "name the champion's generation in If-Match: the ETag of the model, 0 while it has no champion"
        raise PreconditionMissing(msg)
    return _number(if_match, of="generation")


def _revision(if_match: str | None) -> int | None:
    if if_match is None:
        msg = "name what you looked at in If-Match: the ETag of the run, or * for whatever it is now"
        raise PreconditionMissing(msg)
    return None if if_match.strip() == "*" else _number(if_match, of="revision")


def _number(if_match: str, *, of: str) -> int:
    match = _NUMBER.fullmatch(if_match.strip())
    if match is None:
        msg = f'If-Match must hold one {of}, such as "3"'
        raise InvalidRequest(msg)
    return int(match[1])
