"""Durations and windows as people write them: ``"7d"``, ``"36h"``, ``"500 rows"``."""

import re
from dataclasses import dataclass
from datetime import timedelta

__all__ = ["Window", "format_duration", "parse_duration", "parse_window"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")


def parse_duration(text: str | timedelta) -> timedelta:
    """Return the duration that `text` names.

    Parameters
    ----------
    text
        One or more numbers with a unit out of s, m, h, d, w: ``"90m"``, ``"1d12h"``.

    Raises
    ------
    ValueError
        If `text` is something else, or not longer than zero.

    Examples
    --------
    >>> parse_duration("1d12h")
    datetime.timedelta(days=1, seconds=43200)
    """
    if isinstance(text, timedelta):
        return text
    compact = text.strip().lower()
    parts = _PATTERN.findall(compact)
    if not parts or _PATTERN.sub("", compact).strip():
        msg = f"{text!r} is not a duration: write a number with s, m, h, d or w, such as '7d' or '90m'"
        raise ValueError(msg)
    duration = timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    if duration <= timedelta(0):
        msg = f"{text!r} is not longer than zero"
        raise ValueError(msg)
    return duration


def format_duration(duration: timedelta) -> str:
    """Return `duration` in its largest two units.

    Examples
    --------
    >>> format_duration(timedelta(days=7))
    '7d'
    >>> format_duration(timedelta(hours=36))
    '1d12h'
    """
    left = round(duration.total_seconds())
    words = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, _UNITS[unit])
        if count:
            words.append(f"{count}{unit}")
    return "".join(words[:2]) or "0s"


@dataclass(frozen=True)
class Window:
    """How much of the newest data one check looks at: either a duration of event time, or a number of rows."""

    duration: timedelta | None = None
    rows: int | None = None

    def __str__(self) -> str:
        return f"{self.rows} rows" if self.duration is None else format_duration(self.duration)


def parse_window(text: str) -> Window:
    """Return the window that `text` names: ``"7d"`` of event time or ``"500 rows"``.

    Raises
    ------
    ValueError
        If `text` is neither.

    Examples
    --------
    >>> parse_window("500 rows").rows
    500
    """
    match = re.fullmatch(r"\s*(\d+)\s*rows?\s*", text)
    if match:
        if int(match[1]) < 1:
            msg = "a window needs at least one row"
            raise ValueError(msg)
        return Window(rows=int(match[1]))
    return Window(duration=parse_duration(text))
