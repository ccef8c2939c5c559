"""Who was not let in: a line in the log for each address and reason, never with a key, and never a flood of them."""

import logging
import time
from collections.abc import Callable
from typing import Any

from starlette.types import Scope

from service.domain.errors import NoAccess, NoKey, RetrueError, TooManyRequests
from service.telemetry import Slug

__all__ = ["Strangers"]

log = logging.getLogger(__name__)

PAUSE_S = 60.0
"""One line in so much time for each address and reason; the next says how many there were in between."""
MANY = 256
"""Beyond so many at a time all others share a line: whoever has many addresses fills neither memory nor log."""


class Strangers:
    """Writes down who was refused.

    Parameters
    ----------
    monotonic
        Clock of the pauses.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told: dict[tuple[str, str], tuple[float, int]] = {}
        """When the last line was written, and how often it happened since."""

    def note(self, error: RetrueError, scope: Scope, *, actor: str | None = None) -> None:
        """Log that a request was refused for a bad key or a missing right; whatever else it met is no stranger's.

        A request without any key is what every browser begins with, and one too many is somebody known.
        """
        if not isinstance(error, NoAccess) or isinstance(error, NoKey | TooManyRequests):
            return
        now, client = self._monotonic(), scope.get("client")
        about = (error.code, str(client[0]) if client else "unknown")
        if about not in self._told and len(self._told) >= MANY:
            self._told = {one: told for one, told in self._told.items() if now - told[0] < PAUSE_S}
            about = about if len(self._told) < MANY else (error.code, "others")
        at, untold = self._told.get(about, (now - PAUSE_S, 0))
        if now - at < PAUSE_S:
            self._told[about] = at, untold + 1
            return
        self._told[about] = now, 0
        # Of what was sent nothing is repeated: the id is told only where the whole key was right.
        facts: dict[str, Any] = {"why": error.code, "address": about[1]}
        facts |= {name: error.facts[name] for name in ("key", "needs") if name in error.facts}
        facts |= ({"actor": actor} if actor else {}) | ({"untold": untold} if untold else {})
        log.warning(Slug.ACCESS_REFUSED, extra={"facts": facts})
