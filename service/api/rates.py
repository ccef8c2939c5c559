"""Rates: how often one key may ask one worker."""

from dataclasses import dataclass

__all__ = ["Bucket", "Rates"]

SAVED_S = 2.0
"""A key that was quiet may ask so many seconds' worth at once."""


@dataclass(frozen=True)
class Rates:
    """Requests a second and key, of one worker; 0: any number."""

    predict: float = 0.0
    other: float = 0.0


class Bucket:
    """A token bucket.

    Parameters
    ----------
    rate
        Tokens a second.
    at
        Now, on whatever clock `take` will be told.
    """

    __slots__ = ("_at", "_most", "_rate", "_tokens")

    def __init__(self, rate: float, at: float) -> None:
        self._rate, self._most = rate, max(rate * SAVED_S, 1.0)
        self._tokens, self._at = self._most, at

    def take(self, at: float) -> float:
        """Take a token and return 0, or return how many seconds there is none."""
        self._tokens = min(self._most, self._tokens + (at - self._at) * self._rate)
        self._at = at
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= 1.0
        return 0.0
