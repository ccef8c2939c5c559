"""A cancel that meets the commit: one of the two happens, whole, on both databases, and neither waits for ever."""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from service.control import requests
from service.control.leader import Leader, Term
from service.control.promotion import advance, propose
from service.domain.errors import NotAllowedNow, RetrueError
from service.domain.run import RunState, Trigger
from service.domain.version import VersionState
from service.storage import champions, models, runs, versions
from service.storage.champions import Swap
from service.storage.database import Database
from service.storage.runs import Run
from tests.unit.control.conftest import AT, a_version, spec_json

S = RunState
ROUNDS = 12


def promoting(term: Term, model: str) -> Run:
    """Make a model with a champion and a run whose version waits to take its place."""
    spec = spec_json()
    spec["policies"]["probation"]["duration"] = None
    with term.write() as conn:
        at: datetime = term.database.now(conn)
        models.register(conn, model, spec_json=spec, file=f"models/{model}.py", at=AT)
        versions.insert(conn, a_version(1, model=model))
        champions.swap(
            conn, model, version=1, expected_generation=0, actor="t", reason="t", kind="promote", run_id=None,
            event_time=AT, at=at,
        )  # fmt: skip
        run = runs.create(conn, model, trigger=Trigger.MANUAL, actor="t", reason="t", at=at)
        versions.insert(conn, a_version(2, model=model, parent=1, run_id=run.id))
        for state in (S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING):
            runs.transition(conn, run.id, state, actor="t", reason="t", at=at, token=term.token)
        run = runs.transition(
            conn, run.id, S.PROMOTING, actor="t", reason="t", at=at, token=term.token, version=2, code="gate_pass"
        )
    propose(term, run)
    return run


def at_once(*deeds: Callable[[], Any]) -> list[Any]:
    """Do all of them at the same time; return what each gave or raised."""
    together = threading.Barrier(len(deeds))
    said: list[Any] = [None] * len(deeds)

    def do(place: int) -> None:
        together.wait(10)
        try:
            said[place] = deeds[place]()
        except RetrueError as error:
            said[place] = error

    threads = [threading.Thread(target=do, args=(place,)) for place in range(len(deeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return said


def test_a_cancel_and_a_commit_at_once_leave_one_of_the_two(database_url: str) -> None:
    database = Database(database_url)
    database.migrate()
    term = Leader(database, owner="this one").step()
    assert term is not None
    for number in range(ROUNDS):
        model = f"shop{number}"
        run = promoting(term, model)
        with database.read() as conn:
            (swap,) = champions.waiting(conn, model)

        def cancel(run_id: str = run.id) -> Run:
            with database.write() as conn:
                return requests.cancel(conn, run_id, actor="ada", reason="no")

        def commit(one: Swap = swap) -> str | None:
            return advance(term, one)

        committed, cancelled = at_once(commit, cancel)
        with database.read() as conn:
            champion, ended = champions.current(conn, model), runs.get(conn, run.id)
            waiting, state = champions.waiting(conn, model), versions.get(conn, model, 2).state
        assert champion is not None
        assert waiting == []
        if committed == "committed":
            assert isinstance(cancelled, NotAllowedNow)
            assert "rollback" in cancelled.detail
            assert (champion.generation, ended.state, state) == (2, S.SUCCEEDED, VersionState.CHAMPION)
        else:
            assert isinstance(committed, NotAllowedNow)
            assert isinstance(cancelled, Run)
            assert (champion.generation, ended.state, state) == (1, S.CANCELLED, VersionState.REJECTED)
    database.close()
