"""How long a heartbeat has stood still, counted over looks that could have seen it move."""

import time
from collections.abc import Callable

__all__ = ["Silence"]

LONGEST_LOOK_S = 2.0
"""A longer pause between two looks counts as this much: whoever was away meanwhile was the observer."""


class Silence:
    """Watches the signs of life of runs.

    No clock is compared with another one's: a heartbeat is only a value that changes or does not. While the database
    is away nobody can write it and nobody looks, so that time is nobody's silence.

    Parameters
    ----------
    monotonic
        Seconds of a clock that only goes forward.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, tuple[object, float, float]] = {}

    def of(self, key: str, beat: object) -> float:
        """Return for how many seconds `beat` has been the same; call it at each look."""
        now = self._monotonic()
        known, silent, at = self._seen.get(key, (beat, 0.0, now))
        silent = silent + min(now - at, LONGEST_LOOK_S) if known == beat else 0.0
        self._seen[key] = (beat, silent, now)
        return silent

    def forget(self, key: str) -> None:
        """Begin anew with `key`."""
        self._seen.pop(key, None)
