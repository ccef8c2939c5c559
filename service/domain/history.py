"""How much of the past a candidate learns from, as people write it: ``"56d"``, ``"all"``, ``"all, half-life 112d"``."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.duration import format_duration, parse_duration

__all__ = ["History", "parse_history"]

_HALF_LIFE = re.compile(r"half-?\s?life\s+(.+)")


@dataclass(frozen=True, kw_only=True)
class History:
    """A stretch of the past that ends at the newest row, and how fast its older rows lose weight."""

    length: timedelta | None = None
    """None: everything that is known."""
    half_life: timedelta | None = None
    """A row so much older than another weighs half as much; None: all weigh the same."""

    def start(self, end: datetime) -> datetime | None:
        """Return the moment, exclusive, with which the stretch that ends at `end` begins; None for all rows."""
        return None if self.length is None else end - self.length

    def __str__(self) -> str:
        length = "all" if self.length is None else format_duration(self.length)
        return length if self.half_life is None else f"{length}, half-life {format_duration(self.half_life)}"


def parse_history(text: str) -> History:
    """Return the history that `text` names.

    Parameters
    ----------
    text
        ``all`` or a duration, and after a comma, if older rows shall weigh less, ``half-life`` with a duration.

    Raises
    ------
    ValueError
        If `text` is something else; says which part of it.

    Examples
    --------
    >>> parse_history("all, half-life 112d").half_life
    datetime.timedelta(days=112)
    """
    first, comma, rest = (part.strip() for part in text.lower().partition(","))
    if not first or (comma and not rest):
        msg = f"{text!r} is no history: write 'all' or a duration, such as '56d', or 'all, half-life 112d'"
        raise ValueError(msg)
    length = None if first == "all" else _duration(first, text, "is neither 'all' nor a duration such as '56d'")
    if not comma:
        return History(length=length)
    named = _HALF_LIFE.fullmatch(rest)
    if named is None:
        msg = f"{rest!r} in {text!r} is no weighting: write 'half-life' and a duration, as in 'all, half-life 112d'"
        raise ValueError(msg)
    half_life = _duration(named[1], text, "is no half-life: write a duration such as '112d'")
    return History(length=length, half_life=half_life)


def _duration(part: str, text: str, otherwise: str) -> timedelta:
    try:
        return parse_duration(part)
    except ValueError as error:
        msg = f"{part!r} in {text!r} {otherwise}"
        raise ValueError(msg) from error
