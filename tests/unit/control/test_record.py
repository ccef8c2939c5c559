"""What a trainer writes outlives a database that is away for a moment, and is written once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from service.control import record as module
from service.control.leader import Term
from service.control.record import Record
from service.domain.errors import DatabaseUnavailable, NotAllowedNow
from service.domain.run import RunState
from service.storage import runs
from service.storage.champions import Champion
from service.storage.database import Database
from service.storage.runs import Run
from tests.unit.control.test_retrain import Bench

S = RunState


class Flaky(Database):
    """A database that is away for the next few writes, before them or just after their commit."""

    before = after = 0

    @contextmanager
    def write(self, *, origin: Mapping[str, Any] | None = None) -> Iterator[Connection]:
        if self.before:
            self.before -= 1
            raise DatabaseUnavailable("away")
        with super().write(origin=origin) as conn:
            yield conn
        if self.after:
            self.after -= 1
            raise DatabaseUnavailable("the answer was lost")


@pytest.fixture
def begun(term: Term, champion: Champion, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Run, Record, Flaky]:
    assert champion.generation == 1
    monkeypatch.setattr("service.control.record.time.sleep", lambda _s: None)
    bench = Bench(term)
    run = bench.run()
    bench.look()
    flaky = Flaky(str(term.database.engine.url))
    return bench, run, Record(flaky, run.id, token=term.token, first_pause=timedelta()), flaky


def test_a_step_is_written_when_the_database_is_back(begun: tuple[Bench, Run, Record, Flaky]) -> None:
    bench, run, record, flaky = begun
    flaky.before = 5
    assert record.step(S.VALIDATING, "rows").state is S.VALIDATING
    assert (bench.get(run).state, record.state) == (S.VALIDATING, S.VALIDATING)


def test_a_step_whose_answer_was_lost_is_not_written_twice(begun: tuple[Bench, Run, Record, Flaky]) -> None:
    bench, run, record, flaky = begun
    flaky.after = 1
    record.step(S.VALIDATING, "rows")
    with bench.term.database.read() as conn:
        assert [event.after for event in runs.events(conn, run.id)] == [S.QUEUED, S.PREPARING, S.VALIDATING]


def test_a_step_that_somebody_forestalled_is_refused(begun: tuple[Bench, Run, Record, Flaky]) -> None:
    bench, run, record, flaky = begun
    flaky.before = 1
    bench.move(run, S.CANCELLING)
    with pytest.raises(NotAllowedNow):
        record.step(S.VALIDATING, "rows")


def test_patience_has_an_end(begun: tuple[Bench, Run, Record, Flaky], monkeypatch: pytest.MonkeyPatch) -> None:
    bench, run, record, flaky = begun
    monkeypatch.setattr(module, "PATIENCE_S", -1.0)
    flaky.before = 9
    with pytest.raises(DatabaseUnavailable):
        record.step(S.VALIDATING, "rows")
    flaky.before = 9
    record.progress(step="fit", done=1, of=2, words="not worth a failure")
    assert bench.get(run).state is S.PREPARING
