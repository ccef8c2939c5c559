"""Budgets as people write them: ``"1 per day"``, ``"2 per 7d"``. So many in any stretch of event time that long."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.duration import format_duration, parse_duration

__all__ = ["Budget", "parse_budget"]

_PATTERN = re.compile(r"\s*(\d{1,4})\s*(?:per|/)\s*(\S.*?)\s*", flags=re.IGNORECASE)
_NAMES = {"hour": "1h", "day": "1d", "week": "7d", "month": "30d"}
MOST = 100
"""No budget counts further: so many of a model's runs are remembered with each decision."""


@dataclass(frozen=True)
class Budget:
    """At most `count` in any stretch of `per`."""

    count: int
    per: timedelta

    def __str__(self) -> str:
        return f"{self.count} per {format_duration(self.per)}"

    def spent(self, started: Iterable[datetime], *, now: datetime) -> int:
        """Return how many of `started` lie in the stretch that ends at `now`; its beginning is exclusive."""
        return sum(now - self.per < at <= now for at in started)


def parse_budget(text: str) -> Budget:
    """Return the budget that `text` names.

    Parameters
    ----------
    text
        A number from 1 to 100, ``per``, and a duration or one of hour, day, week, month (30 days).

    Raises
    ------
    ValueError
        If `text` is something else.

    Examples
    --------
    >>> str(parse_budget("2 per week"))
    '2 per 7d'
    """
    match = _PATTERN.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= MOST:
        msg = f"{text!r} is no budget: write a number from 1 to {MOST}, per, and a duration, such as '1 per day'"
        raise ValueError(msg)
    length = match[2].lower()
    try:
        per = parse_duration(_NAMES.get(length, length))
    except ValueError as error:
        msg = f"{text!r} is no budget: {error}"
        raise ValueError(msg) from None
    return Budget(count=int(match[1]), per=per)
