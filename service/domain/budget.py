"""A false-alarm budget as people write it: ``"1 per 90d"``."""

import re
from dataclasses import dataclass
from datetime import timedelta

from service.domain.duration import format_duration, parse_duration

__all__ = ["Budget", "parse_budget"]

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s+per\s+(\S.*)")


@dataclass(frozen=True)
class Budget:
    """So many confirmed alarms on clean data in so long a time."""

    count: float
    per: timedelta

    def __str__(self) -> str:
        return f"{self.count:g} per {format_duration(self.per)}"

    def in_days(self, days: float) -> float:
        """Return how many alarms it allows in so many days."""
        return self.count * (timedelta(days=days) / self.per)


def parse_budget(text: str) -> Budget:
    """Return the budget that `text` names.

    Raises
    ------
    ValueError
        If `text` is something else, or allows no alarm at all: no test keeps such a promise.

    Examples
    --------
    >>> parse_budget("1 per 90d").in_days(180)
    2.0
    """
    match = _PATTERN.fullmatch(text.strip().lower())
    if match is None:
        msg = f"{text!r} is no budget: write a number, 'per' and a duration, such as '1 per 90d' or '2 per 52w'"
        raise ValueError(msg)
    count = float(match[1])
    if count <= 0:
        msg = f"{text!r} allows no false alarm at all, and no test can promise that: write more than 0"
        raise ValueError(msg)
    return Budget(count, parse_duration(match[2]))
