"""Budgets as people write them: ``"1 per 90d"``, ``"2 per week"``. So many in any stretch of event time that long."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.duration import format_duration, parse_duration

__all__ = ["Budget", "parse_budget"]

_PATTERN = re.compile(r"(\d{1,4}(?:\.\d+)?)\s*(?:per|/)\s*(\S.*)")
_NAMES = {"hour": "1h", "day": "1d", "week": "7d", "month": "30d"}
MOST = 100
"""No budget counts further: so many of a model's runs are remembered with each decision."""


@dataclass(frozen=True)
class Budget:
    """At most `count` in any stretch of `per`."""

    count: float
    per: timedelta

    def __str__(self) -> str:
        return f"{self.count:g} per {format_duration(self.per)}"

    def spent(self, started: Iterable[datetime], *, now: datetime) -> int:
        """Return how many of `started` lie in the stretch that ends at `now`; its beginning is exclusive."""
        return sum(now - self.per < at <= now for at in started)

    def in_days(self, days: float) -> float:
        """Return how many it allows in so many days."""
        return self.count * (timedelta(days=days) / self.per)


def parse_budget(text: str, *, whole: bool = False) -> Budget:
    """Return the budget that `text` names.

    Parameters
    ----------
    text
        A number above 0 and up to 100, ``per``, and a duration or one of hour, day, week, month (30 days).
    whole
        Whether only whole numbers make sense: half a run is none.

    Raises
    ------
    ValueError
        If `text` is something else.

    Examples
    --------
    >>> str(parse_budget("2 per week"))
    '2 per 7d'
    >>> parse_budget("1 per 90d").in_days(180)
    2.0
    """
    match = _PATTERN.fullmatch(text.strip().lower())
    if match is None or not 0 < float(match[1]) <= MOST or (whole and not float(match[1]).is_integer()):
        number = f"a whole number from 1 to {MOST}" if whole else f"a number above 0 and up to {MOST}"
        msg = f"{text!r} is no budget: write {number}, per, and a duration, such as '1 per 7d'"
        raise ValueError(msg)
    length = match[2]
    try:
        per = parse_duration(_NAMES.get(length, length))
    except ValueError as error:
        msg = f"{text!r} is no budget: {error}"
        raise ValueError(msg) from None
    return Budget(count=float(match[1]), per=per)
