"""Memory: what a process has taken at its peak, and the bound that trainers and checks are given."""

import resource
import sys
from contextlib import suppress

__all__ = ["bound", "peak_bytes"]


def peak_bytes() -> int:
    """Return the most resident memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def bound(limit: int) -> None:
    """Make allocations fail in this process beyond `limit` bytes of its own data; 0: nothing is bound.

    Data, not addresses: libraries reserve gigabytes of those that they never touch. Where memory ends this way it ends
    as a `MemoryError` of the one process, and not as the choice of the system which of all processes to kill.
    """
    if not limit:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    with suppress(OSError, ValueError):  # a system without it
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
