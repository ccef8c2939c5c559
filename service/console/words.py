"""How the console says things: numbers, moments, durations, and one colour and sign for each kind of state."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = [
    "KINDS",
    "ago",
    "as_moment",
    "brief",
    "day",
    "duration",
    "kind_of",
    "moment",
    "number",
    "outcome",
    "plain",
    "share",
    "short",
]

KINDS: Mapping[str, str] = {
    # verdicts and readings
    "clean": "good",
    "healthy": "good",
    "drifted": "wait",
    "benign_shift": "info",
    "harmful_shift": "bad",
    "concept_drift": "bad",
    "unknown_region": "wait",
    "pipe_suspected": "bad",
    "broken_pipe": "bad",
    "quarantined": "bad",
    "insufficient": "idle",
    # runs
    "queued": "info",
    "preparing": "info",
    "validating": "info",
    "training": "info",
    "packaging": "info",
    "evaluating": "info",
    "promoting": "info",
    "cancelling": "info",
    "running": "info",
    "awaiting_labels": "wait",
    "awaiting_approval": "wait",
    "probation": "wait",
    "watching": "wait",
    "succeeded": "good",
    "kept": "good",
    "rejected": "idle",
    "skipped": "idle",
    "superseded": "idle",
    "cancelled": "idle",
    "expired": "idle",
    "failed": "bad",
    "timed_out": "bad",
    "blocked_data": "bad",
    "rolled_back": "bad",
    "done": "good",
    # versions
    "champion": "good",
    "approved": "good",
    "candidate": "info",
    "retired": "idle",
    "archived": "idle",
    "ended": "idle",
    # gate clauses
    "pass": "good",
    "fail": "bad",
    "inconclusive": "wait",
    # steps of an explanation
    "ok": "good",
    "not worse": "good",
    "worse": "bad",
    "broken": "bad",
    # decisions
    "none": "idle",
    "retrain": "info",
    "suggest": "wait",
    # swaps
    "committed": "good",
    "waiting": "info",
    # switches
    "pause": "wait",
    "freeze": "wait",
    "pin": "wait",
    "hold": "wait",
    "quarantine": "bad",
    "breaker": "bad",
}
"""Colour of each state's name; whatever is not listed is neutral."""

_BRACKETS = re.compile(r"\s*\([^()]*\)")
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def kind_of(word: Any) -> str:
    """Return good, bad, wait, info or idle."""
    return KINDS.get(str(word), "idle")


def plain(word: Any) -> str:
    """Return a state's or a column's name as words: ``awaiting_labels`` is "awaiting labels"."""
    return "–" if word is None else str(word).replace("_", " ")


def number(value: Any, digits: int = 4) -> str:
    """Return a number in so many digits, with thin separators where it is large; a dash for none.

    Examples
    --------
    >>> number(0.81237), number(12000), number(None), number(float("nan"))
    ('0.8124', '12,000', '–', '–')
    """
    if value is None or value != value:  # not a number
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def share(value: Any) -> str:
    """Return a share as a percentage; a dash for none."""
    if not isinstance(value, int | float):
        return "–"
    if 0 < value < 0.0005 or 0.9995 < value < 1:
        return "under 0.1%" if value < 0.5 else "over 99.9%"
    return f"{value:.0%}" if value in {0, 1} or 0.1 <= value <= 0.995 else f"{value:.1%}"


def as_moment(value: Any) -> datetime | None:
    """Return a moment that may stand as text, as it does in JSON; None if it is none."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError):
        return None


def moment(value: Any) -> str:
    """Return a moment as people write it; a dash for none."""
    at = as_moment(value)
    return "–" if at is None else f"{at:%d %b %Y %H:%M}"


def day(value: Any) -> str:
    """Return a moment's day."""
    at = as_moment(value)
    return "–" if at is None else f"{at:%d %b %Y}"


def duration(value: Any) -> str:
    """Return seconds, or a timedelta, in their two largest units; a dash for none.

    Examples
    --------
    >>> duration(93_600), duration(0.42), duration(61), duration(None)
    ('1 d 2 h', '0.42 s', '1 min 1 s', '–')
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(seconds, int | float):
        return "–"
    if abs(seconds) < 10:
        return f"{seconds:.2g} s"
    rest, parts = round(seconds), []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break  # not 1 d 3 s
    return " ".join(parts[:2])


def ago(value: Any, now: datetime) -> str:
    """Return how long ago a moment was, in one unit."""
    at = as_moment(value)
    if at is None:
        return "never"
    seconds = int((now - at).total_seconds())
    if seconds < 5:
        return "just now"
    size, unit = next((pair for pair in _UNITS if seconds >= pair[0]), (1, "s"))
    return f"{seconds // size} {unit} ago"


def brief(text: Any) -> str:
    """Return what the service said without what it put in brackets: the figures stand where the words link to.

    Examples
    --------
    >>> brief("loss rose by 46% (0.25 over 7 blocks (of a day): not above 6.02)")
    'loss rose by 46%'
    """
    whole, before = str(text or ""), ""
    while whole != before:
        whole, before = _BRACKETS.sub("", whole), whole
    return whole.strip() or str(text or "")


def outcome(run: Any) -> str:
    """Return what a run came to, so far as it has: its own words, or its gate's; never what it was asked for."""
    return str(run.detail or (run.gate or {}).get("reason") or "–")


def short(text: Any, length: int = 8) -> str:
    """Return the end of an id, or the start of a digest: enough to tell it from its neighbours."""
    whole = str(text)
    return whole if len(whole) <= length else whole[-length:] if "-" in whole else whole[:length]
