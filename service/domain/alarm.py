"""Confirmed alarms: so many disjoint windows in a row that have drifted, counted once, at the last of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from service.domain.duration import parse_window
from service.domain.policy import Drift

__all__ = ["Drifted", "alarms"]

Drifted = tuple[datetime, bool, int | None]
"""A check's window: its end, whether it has drifted, and the champion's generation."""


def alarms(policy: Drift, windows: Sequence[Drifted]) -> tuple[datetime, ...]:
    """Return the ends of the windows that confirmed an alarm.

    Parameters
    ----------
    policy
        How many windows in a row confirm one, and how long they are: windows that overlap are one piece of evidence.
    windows
        Of scheduled checks with a verdict, the oldest first. Another generation has another reference and starts anew.
    """
    length = parse_window(policy.window).duration or timedelta(0)
    found: list[datetime] = []
    row, last, of = 0, None, None
    for until, has_drifted, generation in windows:
        if not has_drifted or generation != of:
            row, last, of = 0, None, generation
        if has_drifted and (last is None or until - last >= length):
            row, last = row + 1, until
            if row == policy.confirm:
                found.append(until)
    return tuple(found)
