"""When a model's next check is due, in event time. Pure: watermark and last check in, window out."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.duration import parse_duration, parse_window
from service.domain.policy import Drift

__all__ = ["Due", "due", "pitch", "window_from"]


@dataclass(frozen=True, kw_only=True)
class Due:
    """A check that should be made now."""

    window_until: datetime
    """Event time, inclusive."""
    skipped: int
    """Earlier grid points that nobody looked at: the newest is what matters."""


def pitch(policy: Drift) -> timedelta | None:
    """Return the event time from check to check; None where checks are counted in rows."""
    if policy.every is not None:
        return parse_duration(policy.every)
    return parse_window(policy.window).duration


def due(policy: Drift, *, watermark: datetime | None, anchor: datetime) -> Due | None:
    """Return the check that is due, if one is.

    Parameters
    ----------
    policy
        The model's drift policy, with a grid in event time.
    watermark
        Newest event time that the lake holds; None while it holds nothing.
    anchor
        End of the last scheduled check's window, or what the first version learned until. The grid starts there.

    Examples
    --------
    >>> from datetime import UTC
    >>> start = datetime(2026, 1, 1, tzinfo=UTC)
    >>> due(Drift(window="7d"), watermark=start + timedelta(days=15), anchor=start).skipped
    1
    """
    step = pitch(policy)
    if step is None or watermark is None:
        return None
    passed = (watermark - anchor) // step
    if passed < 1:
        return None
    return Due(window_until=anchor + passed * step, skipped=passed - 1)


def window_from(policy: Drift, window_until: datetime) -> datetime | None:
    """Return where the window begins, exclusive; None for a window of so many rows."""
    duration = parse_window(policy.window).duration
    return None if duration is None else window_until - duration
