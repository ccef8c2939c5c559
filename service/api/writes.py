"""What an operator may ask for. Each route writes an intention in one transaction, with its audit row; none trains."""

import hashlib
import re
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, Header, Query
from sqlalchemy import Connection
from starlette.responses import Response

from service.api.access import Asker
from service.api.shapes import Ask, ClearName, Promote, Reason, Rollback, SwitchName
from service.domain.errors import InvalidRequest, NotAllowedNow, PreconditionMissing
from service.domain.run import RunState, Trigger
from service.domain.version import VersionState
from service.storage import audit, champions, checks, models, runs, versions
from service.storage.champions import Champion, Swap
from service.storage.checks import Check
from service.storage.database import Database
from service.storage.models import Switch
from service.storage.runs import Run

__all__ = ["router"]

S = RunState
AT_ONCE = {S.QUEUED, S.AWAITING_LABELS, S.AWAITING_APPROVAL}
"""States in which no process works on the run: a cancel ends it there and then."""
AT_WORK = {S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING}
_GENERATION = re.compile(r'(?:W/)?"?(\d{1,18})"?')


def router(database: Database) -> APIRouter:
    """Return the operator's and the approver's routes."""
    api = APIRouter(prefix="/v1")
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
        description="The same Idempotency-Key with the same request gives the run that it made before.",
    )
    def ask_run(
        model: str,
        response: Response,
        asker: Asker,
        ask: Annotated[Ask, Body(default_factory=Ask)],
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
    ) -> Run:
        digest = hashlib.sha256(msgspec.json.encode([model, ask.reason, ask.force])).hexdigest()
        with database.write() as conn:
            models.get(conn, model)
            at = database.now(conn)
            before = next(iter(runs.list_of(conn, model, limit=1)), None)
            _refuse_switched(conn, model, "freeze", what="trains nothing")
            run = runs.create(
                conn, model, trigger=Trigger.MANUAL, actor=asker.actor, reason=ask.reason, at=at, force=ask.force,
                idempotency_key=idempotency_key, request_digest=digest if idempotency_key else None,
            )  # fmt: skip
            if run.requested_at == at and (before is None or before.id != run.id):
                audit.append(
                    conn, actor=asker.actor, action="run_asked", model=model, subject=run.id, reason=ask.reason, at=at,
                    facts={"force": ask.force},
                )  # fmt: skip
        response.headers["Location"] = f"/v1/runs/{run.id}"
        return run

    @api.post(
        "/models/{model}/checks", status_code=202, tags=["checks"], summary="Ask for a check of the newest window"
    )
    def ask_check(
        model: str, response: Response, asker: Asker, _why: Annotated[Reason, Body(default_factory=Reason)]
    ) -> Check:
        with database.write() as conn:
            models.get(conn, model)
            if champions.current(conn, model) is None:
                msg = "the model has no champion yet, so there is nothing to compare with"
                raise NotAllowedNow(msg, model=model)
            check = checks.create(conn, model, actor=asker.actor, at=database.now(conn))
        response.headers["Location"] = f"/v1/models/{model}/checks/{check.id}"
        return check


def _add_decisions(api: APIRouter, database: Database) -> None:
    def move(run_id: str, asker: Asker, reason: str, action: str) -> Run:
        with database.write() as conn:
            run, at = runs.get(conn, run_id), database.now(conn)
            after, columns = _AFTER[action](run)
            if action == "approve":
                _refuse_switched(conn, run.model, "freeze", "pin", what="promotes nothing")
            moved = runs.transition(conn, run_id, after, actor=asker.actor, reason=reason, at=at, **columns)
            audit.append(
                conn, actor=asker.actor, action=f"run_{action}", model=run.model, subject=run_id, reason=reason, at=at,
                facts={"before": run.state.value, "after": after.value},
            )  # fmt: skip
            return moved

    @api.post("/runs/{run_id}/cancel", status_code=202, tags=["runs"], summary="End a run that has not committed yet")
    def cancel(run_id: str, asker: Asker, why: Annotated[Reason, Body(default_factory=Reason)]) -> Run:
        return move(run_id, asker, why.reason, "cancel")

    @api.post("/runs/{run_id}/approve", status_code=202, tags=["runs"], summary="Let a waiting challenger be promoted")
    def approve(run_id: str, asker: Asker, why: Annotated[Reason, Body(default_factory=Reason)]) -> Run:
        return move(run_id, asker, why.reason, "approve")

    @api.post("/runs/{run_id}/reject", status_code=202, tags=["runs"], summary="Turn a waiting challenger down")
    def reject(run_id: str, asker: Asker, why: Annotated[Reason, Body(default_factory=Reason)]) -> Run:
        return move(run_id, asker, why.reason, "reject")


def _cancelled(run: Run) -> tuple[RunState, dict[str, Any]]:
    if run.state in AT_ONCE:
        return S.CANCELLED, {"code": "cancelled_by_person"}
    if run.state in AT_WORK:
        return S.CANCELLING, {}
    msg = f"the run is {run.state.value}: it can't be cancelled any more"
    raise NotAllowedNow(msg, run=run.id, state=run.state.value)


def _settled(after: RunState, **columns: Any) -> Any:
    def of(run: Run) -> tuple[RunState, dict[str, Any]]:
        if run.state is not S.AWAITING_APPROVAL:
            msg = f"the run is {run.state.value}; only one that awaits approval can be decided"
            raise NotAllowedNow(msg, run=run.id, state=run.state.value)
        return after, columns

    return of


_AFTER: dict[str, Any] = {
    "cancel": _cancelled,
    "approve": _settled(S.PROMOTING),
    "reject": _settled(S.REJECTED, code="rejected_by_person"),
}


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
        if_match: Annotated[str | None, Header(max_length=64)] = None,
    ) -> Swap:
        expected = _generation(if_match)
        with database.write() as conn:
            models.get(conn, model)
            row, at = versions.get(conn, model, wanted.version), database.now(conn)
            _refuse_switched(conn, model, "freeze", "pin", what="changes no champion")
            current = champions.current(conn, model)
            if row.state is VersionState.QUARANTINED:
                msg = f"version {wanted.version} is quarantined: it did not load, or disappointed"
                raise NotAllowedNow(msg, model=model, version=wanted.version)
            if current is not None and current.version == wanted.version and current.generation == expected:
                msg = f"version {wanted.version} is the champion already"
                raise NotAllowedNow(msg, model=model, version=wanted.version)
            swap_id = champions.request_swap(
                conn, model, version=wanted.version, expected_generation=expected, actor=asker.actor,
                reason=wanted.reason, kind="promote", run_id=None, event_time=None, at=at,
            )  # fmt: skip
            audit.append(
                conn, actor=asker.actor, action="promotion_asked", model=model, subject=swap_id, reason=wanted.reason,
                at=at, facts={"version": wanted.version, "expected_generation": expected},
            )  # fmt: skip
            swap = champions.find_swap(conn, swap_id)
        if swap is None:
            msg = "the promotion was asked for and is gone"
            raise NotAllowedNow(msg, swap=swap_id)
        response.headers["Location"] = f"/v1/models/{model}"
        return swap

    @api.post(
        "/models/{model}/rollback",
        tags=["models"],
        summary="Take the champion back at once",
        description="Goes to the champion before this one, or to the version named; holds automatic promotion until "
        "the switch `hold` is cleared.",
    )
    def roll_back(model: str, asker: Asker, wanted: Annotated[Rollback, Body(default_factory=Rollback)]) -> Champion:
        with database.write() as conn:
            models.get(conn, model)
            at = database.now(conn)
            _refuse_switched(conn, model, "pin", what="changes no champion")
            current, target = _rollback_target(conn, model, wanted.to)
            champion = champions.swap(
                conn, model, version=target, expected_generation=current.generation, actor=asker.actor,
                reason=wanted.reason, kind="rollback", run_id=None, event_time=None, at=at,
            )  # fmt: skip
            models.set_switch(
                conn, model, "hold", value=True, actor=asker.actor, at=at,
                reason=f"rolled back from version {current.version}: {wanted.reason}",
            )  # fmt: skip
        return champion


def _add_switches(api: APIRouter, database: Database) -> None:
    @api.put(
        "/models/{model}/{switch}",
        tags=["switches"],
        summary="Set a switch",
        description="pause: no scheduled runs; freeze: no training and no promotion; pin: the champion is fixed; "
        "hold: no automatic promotion.",
    )
    def set_switch(
        model: str, switch: SwitchName, asker: Asker, why: Annotated[Reason, Body(default_factory=Reason)]
    ) -> Switch:
        with database.write() as conn:
            at = database.now(conn)
            done = models.set_switch(conn, model, switch, value=True, actor=asker.actor, reason=why.reason, at=at)
            audit.append(
                conn, actor=asker.actor, action="switch_set", model=model, subject=switch, reason=why.reason, at=at
            )
            return done

    @api.delete(
        "/models/{model}/{switch}",
        tags=["switches"],
        summary="Clear a switch",
        description="Clearing quarantine accepts the present data as the new normal.",
        status_code=204,
    )
    def clear_switch(
        model: str,
        switch: ClearName,
        asker: Asker,
        reason: Annotated[str, Query(min_length=1, max_length=2000)] = "asked over HTTP",
    ) -> None:
        with database.write() as conn:
            models.get(conn, model)
            if models.clear_switch(conn, model, switch):
                audit.append(
                    conn, actor=asker.actor, action="switch_cleared", model=model, subject=switch, reason=reason,
                    at=database.now(conn),
                )  # fmt: skip


def _generation(if_match: str | None) -> int:
    if if_match is None:
        msg = "name the champion's generation in If-Match: the ETag of the model, 0 while it has no champion"
        raise PreconditionMissing(msg)
    match = _GENERATION.fullmatch(if_match.strip())
    if match is None:
        msg = 'If-Match must hold one generation, such as "3"'
        raise InvalidRequest(msg)
    return int(match[1])


def _rollback_target(conn: Connection, model: str, to: int | None) -> tuple[Champion, int]:
    current = champions.current(conn, model)
    if current is None:
        msg = "the model has no champion that could be taken back"
        raise NotAllowedNow(msg, model=model)
    target = current.previous_version if to is None else versions.get(conn, model, to).version
    if target is None:
        msg = "there was no champion before this one"
        raise NotAllowedNow(msg, model=model)
    if target == current.version:
        msg = f"version {target} is the champion already"
        raise NotAllowedNow(msg, model=model, version=target)
    if versions.get(conn, model, target).state is VersionState.QUARANTINED:
        msg = f"version {target} is quarantined: name another one"
        raise NotAllowedNow(msg, model=model, version=target)
    if target not in {swap.version for swap in champions.history(conn, model)}:
        msg = f"version {target} was never champion: promote it instead"
        raise NotAllowedNow(msg, model=model, version=target)
    return current, target


def _refuse_switched(conn: Connection, model: str, *names: str, what: str) -> None:
    found = models.switches(conn, model)
    for name in names:
        if name in found:
            msg = f"the switch {name} is set, so the model {what}: {found[name].reason}"
            raise NotAllowedNow(msg, model=model, switch=name)
