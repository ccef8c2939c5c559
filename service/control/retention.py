"""How long the lake's rows are kept: what the models' policies say, as the database last said it."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from service.domain.duration import parse_duration
from service.domain.errors import RetrueError
from service.domain.policy import Retention
from service.journal import facts
from service.storage import models
from service.storage.database import Database
from service.storage.lake import Lake

__all__ = ["Keeping"]

log = logging.getLogger(__name__)

LOOK_S = 30.0
"""The database is asked so often."""
SLACK = 20
"""Rows go when they are older than the policy says by a 20th of it: each time, the files at the border are written
anew, and a row's age would otherwise make that happen every minute."""


class Keeping:
    """What each model keeps. While the database is away, what it said last; before its first word, everything.

    Parameters
    ----------
    database
        Only read.
    monotonic
        Seconds that only grow.
    """

    def __init__(self, database: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database, self._monotonic = database, monotonic
        self._policies: dict[str, Retention] = {}
        self._asked_at: float | None = None

    def forget(self, lake: Lake, model: str) -> dict[str, int]:
        """Remove the model's rows that are too old, counted back from its watermark; return how many, by kind.

        Raises
        ------
        LakeUnavailable
            If a table can't be read or written.
        """
        policy = self._policy(model)
        predictions, labels = _age(policy.predictions), _age(policy.labels)
        watermark = None if predictions is labels is None else lake.watermark(model)
        gone: dict[str, int] = {}
        if watermark is None:
            return gone
        if predictions is not None:
            gone["predictions"] = lake.forget(
                model, "predictions", before=watermark - predictions, slack=predictions / SLACK
            )
        if labels is not None:
            gone["labels"] = lake.forget(model, "labels", before=watermark - labels, slack=labels / SLACK)
        return gone

    def _policy(self, model: str) -> Retention:
        now = self._monotonic()
        if self._asked_at is None or now - self._asked_at >= LOOK_S:
            self._asked_at = now
            self._ask()
        return self._policies.get(model, Retention())

    def _ask(self) -> None:
        try:
            with self._database.read() as conn:
                rows = models.list_all(conn)
        except (RetrueError, SQLAlchemyError) as error:
            log.warning("retention_unknown", extra=facts(why=getattr(error, "detail", type(error).__name__)))
            return
        for row in rows:
            try:
                self._policies[row.name] = models.policy_of(row, Retention)
            except ValueError:  # a newer release wrote it: what can't be understood forgets nothing
                self._policies.pop(row.name, None)


def _age(text: str) -> timedelta | None:
    return None if text == "all" else parse_duration(text)
