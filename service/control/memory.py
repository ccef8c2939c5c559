"""Memory: what a process has taken at its peak, and the bound that trainers and checks are given."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["bound", "peak_bytes"]


def peak_bytes() -> int:
    """Return the most resident memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def bound(limit: int) -> None:
    """Make allocations fail in this process once its own data take more than `limit` bytes; 0: nothing is bound.

    Data, not addresses: libraries reserve gigabytes of those that they never touch. What they had reserved as data and
    not touched before this call is not counted (a gigabyte, of Arrow's allocator; it may still be filled). Where memory
    ends this way it ends as a `MemoryError` of the one process, and not as the choice of the system which of all
    processes to kill.
    """
    if not limit:
        return
    limit += _untouched_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    with suppress(OSError, ValueError):  # a system without it
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _untouched_bytes() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest[-2:] == "kB"}
    return max(kib.get("VmData", 0) - kib.get("RssAnon", 0), 0) * 1024
