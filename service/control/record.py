"""What a trainer writes of its run: steps, progress, signs of life, each under the token of the leader it works for."""

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from service.control.leader import Term
from service.control.processes import Exit
from service.control.setbacks import set_back
from service.domain.errors import DatabaseUnavailable, LeaseLost, RetrueError
from service.domain.retry import Setback
from service.domain.run import RunState
from service.journal import facts
from service.storage import runs
from service.storage.database import Database
from service.storage.runs import Run

__all__ = ["ACTOR", "Record"]

log = logging.getLogger(__name__)

ACTOR = "trainer"
HEARTBEAT_S = 2.0
PATIENCE_S = 30.0
"""A step that the database does not take is tried again for so long: a fit of minutes is worth more than that."""


class Record:
    """One run's record, as its trainer writes it.

    Parameters
    ----------
    database
        Where the run stands.
    run_id
        Which one.
    token
        Of the leader that started the trainer.
    first_pause
        See `set_back`.
    """

    def __init__(self, database: Database, run_id: str, *, token: int, first_pause: timedelta) -> None:
        self.database = database
        self.run_id = run_id
        self.state = RunState.PREPARING
        """Where the run stood after the last step that was written."""
        self._term = Term(database, token)
        self._first_pause = first_pause
        self._rests = threading.Event()

    def beat(self) -> None:
        """Say every two seconds that the run is worked on; leave at once when another leader works on it."""
        while not self._rests.wait(HEARTBEAT_S):
            try:
                with self._term.write() as conn:
                    runs.heartbeat(conn, self.run_id, at=self.database.now(conn), token=self._term.token)
            except LeaseLost:
                os._exit(Exit.LEASE_LOST)
            except RetrueError as error:
                log.warning("heartbeat_failed", extra=facts(run=self.run_id, code=error.code))

    def rest(self) -> None:
        """Give no more signs of life: the run is no longer worked on."""
        self._rests.set()

    def progress(self, **words: Any) -> None:
        """Write how far the run is; what cannot be written now is not worth a word later."""
        try:
            with self._term.write() as conn:
                runs.progress(conn, self.run_id, at=self.database.now(conn), token=self._term.token, **words)
        except DatabaseUnavailable as error:
            log.warning("progress_not_written", extra=facts(run=self.run_id, why=error.detail))

    def step(self, after: RunState, reason: str, **columns: Any) -> Run:
        """Move the run on, in a transaction of its own."""
        return self.write(
            lambda conn: self.move(conn, after, reason, **columns), is_done=lambda run: run.state is after
        )

    def write(self, what: Callable[[Connection], Run], *, is_done: Callable[[Run], bool]) -> Run:
        """Do `what` in one transaction; one that the database did not take is tried again.

        Parameters
        ----------
        what
            Moves the run, and writes what belongs to the move; returns the run.
        is_done
            Whether the run shows that `what` was committed: the answer to a commit may be lost on its way.

        Raises
        ------
        LeaseLost, NotAllowedNow
            If another leader works on the run, or somebody has ended it.
        DatabaseUnavailable
            If the database did not answer for `PATIENCE_S`.
        """
        ends, pause, tries = time.monotonic() + PATIENCE_S, 0.2, 0
        while True:
            try:
                with self._term.write() as conn:
                    found = runs.get(conn, self.run_id)
                    run = found if tries and is_done(found) else what(conn)
            except DatabaseUnavailable as error:
                if time.monotonic() > ends:
                    raise
                log.warning("step_not_written", extra=facts(run=self.run_id, why=error.detail))
                time.sleep(pause)
                pause, tries = min(pause * 2, 5.0), tries + 1
            else:
                self.state = run.state
                return run

    def move(self, conn: Connection, after: RunState, reason: str, **columns: Any) -> Run:
        """Move the run on in the caller's transaction."""
        run = runs.transition(
            conn,
            self.run_id,
            after,
            actor=ACTOR,
            reason=reason,
            at=self.database.now(conn),
            token=self._term.token,
            **columns,
        )
        log.info("run_moved", extra=facts(run=run.id, model=run.model, state=after.value, why=reason))
        return run

    def supersede(self, conn: Connection, other: Run) -> None:
        """End another run of the model that waits for a decision: this one passed later."""
        runs.transition(
            conn,
            other.id,
            RunState.SUPERSEDED,
            actor=ACTOR,
            code="superseded",
            reason=f"run {self.run_id} passed later",
            at=self.database.now(conn),
            token=self._term.token,
        )

    def set_back(self, conn: Connection, setback: Setback, why: str, **columns: Any) -> Run:
        """Queue the run again or end it, in the caller's transaction."""
        run = set_back(
            conn,
            runs.get(conn, self.run_id),
            setback,
            why=why,
            actor=ACTOR,
            at=self.database.now(conn),
            token=self._term.token,
            first_pause=self._first_pause,
            **columns,
        )
        log.warning("run_set_back", extra=facts(run=run.id, model=run.model, code=setback.value, why=why))
        return run
