"""Alarms that drift has raised, counted from the checks: the budget's other side."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from service.domain.alarm import alarms
from service.domain.check import SCHEDULE, Verdict
from service.domain.policy import Drift
from service.storage import checks
from service.storage.models import ModelRow, policy_of

__all__ = ["realised"]

SPAN = timedelta(days=90)


def realised(conn: Connection, row: ModelRow, *, until: datetime) -> tuple[datetime, ...]:
    """Return when the model's scheduled checks of the 90 days before `until`, event time, confirmed an alarm."""
    policy = policy_of(row, Drift)
    seen = checks.verdicts(conn, row.name, actor=SCHEDULE, after=until - SPAN)
    return alarms(policy, [(at, verdict == Verdict.DRIFTED.value, generation) for at, verdict, generation in seen])
