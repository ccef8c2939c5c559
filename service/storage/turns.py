"""What of the spool is moved next: fair to every stream, bounded in memory, patient with a table that is away."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from service.storage.spool import Segment, segments_of

__all__ = ["ROUND_BYTES", "TRIAL_BYTES", "Away", "Target", "choose"]

Target = tuple[str, Literal["predictions", "labels"]]
"""A model and the table of it that rows go to."""

ROUND_BYTES = 32 << 20
"""So much is taken from the spool at a time: it bounds the committer's memory after the lake was away."""
TRIAL_BYTES = 256 << 10
"""So much while a table is away: it is read for nothing if the table does not take it."""
FIRST_S, LONGEST_S = 0.2, 10.0


class Away:
    """The tables that failed: each is left alone for a while that doubles, so that its failure costs the others little.

    Parameters
    ----------
    monotonic
        Seconds that only grow.
    jitter
        Between 0 and 1; keeps the committers of several hosts from asking all at once.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._monotonic, self._jitter = monotonic, jitter
        self._until: dict[Target, tuple[float, float]] = {}
        self._held: dict[Segment, frozenset[Target]] = {}

    @property
    def room(self) -> int:
        """How many bytes to take from the spool in this round."""
        return min(TRIAL_BYTES, ROUND_BYTES) if self._until else ROUND_BYTES

    def now(self) -> frozenset[Target]:
        """Return the tables to leave alone at this moment."""
        now = self._monotonic()
        return frozenset(target for target, (until, _) in self._until.items() if now < until)

    def failed(self, target: Target) -> None:
        """Leave the table alone, longer than the last time."""
        pause = min(self._until[target][1] * 2, LONGEST_S) if target in self._until else FIRST_S
        self._until[target] = (self._monotonic() + pause * (0.5 + self._jitter()), pause)

    def answered(self, target: Target) -> None:
        """Forget the table's failures."""
        self._until.pop(target, None)

    def hold(self, segment: Segment, waits_for: Iterable[Target]) -> None:
        """Note that the segment waits for nothing but these tables: it need not be read before one of them is back."""
        self._held[segment] = frozenset(waits_for)

    def release(self, segment: Segment) -> None:
        """Forget the segment."""
        self._held.pop(segment, None)

    def holds(self, segment: Segment, away: frozenset[Target]) -> bool:
        """Return whether reading the segment would move nothing while `away` is."""
        waits_for = self._held.get(segment)
        return waits_for is not None and waits_for <= away


def choose(
    streams: Iterable[tuple[Path, bool]], skips: Callable[[Segment], bool], *, room: int
) -> tuple[list[Segment], int, int]:
    """Return one round's segments, how many further ones wait for the next, and how many were skipped.

    One of each stream in turn, each stream's in its order: what a worker writes now is not behind what another left
    while the lake was away.

    Parameters
    ----------
    streams
        Each with whether its writer is dead, so that its last segment can be taken too.
    skips
        Which segments to leave out.
    room
        How many bytes to take; the last segment may reach beyond.
    """
    queues: list[Iterator[Segment]] = []
    total = skipped = 0
    for stream, is_over in streams:
        found = segments_of(stream, with_open=is_over)
        wanted = [segment for segment in found if not skips(segment)]
        skipped += len(found) - len(wanted)
        total += len(wanted)
        queues.append(iter(wanted))
    chosen: list[Segment] = []
    while queues and room > 0:
        for queue in list(queues):
            segment = next(queue, None)
            if segment is None:
                queues.remove(queue)
            elif room > 0:
                chosen.append(segment)
                room -= segment.path.stat().st_size
            else:
                break
    return chosen, total - len(chosen), skipped
