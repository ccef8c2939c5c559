"""A trial: a version is loaded in a process that may die of it, before a worker loads it.

What hangs, crashes or eats memory while it is unpickled can't be stopped in a thread, and would take the worker with
it, and every worker after that. One trial serves all workers of a host.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["CPU_S", "LONGEST_S", "main"]

CPU_S = 40
"""Processor time after which the trial is over, however busy the host is."""
LONGEST_S = 600
"""Nobody waits for it any more by then."""
NICE = 10


def main() -> None:
    """Load the version that standard input names, and say on standard output how that went."""
    says = _secure()
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    # The system's own default action ends the process even while it runs C code; and nobody outlives its worker long.
    signal.alarm(LONGEST_S)
    _die_first()
    import msgspec  # the interpreter's start counts too, so as little as possible comes before the limits

    asked = msgspec.json.decode(sys.stdin.buffer.read())
    says(msgspec.json.encode(_tried(asked)))


def _tried(asked: dict[str, Any]) -> dict[str, Any]:
    import msgspec

    from service.domain.errors import ArtifactInvalid
    from service.serving.bundle import load
    from service.serving.imports import spare_pandas
    from service.serving.recent import parsed
    from service.storage.artifacts import ArtifactStore
    from service.storage.versions import VersionRow

    row = msgspec.convert(asked["row"], VersionRow)
    before = set(sys.modules)
    spare_pandas()
    try:
        bundle = load(ArtifactStore(Path(asked["store"])), row, generation=0)
        bundle.warm(parsed(asked["recent"], bundle.layout))
    except ArtifactInvalid as error:
        return {"reason": error.facts["reason"], "detail": error.detail}
    return {"reason": "ok", "modules": sorted(name for name in set(sys.modules) - before)}


def _secure() -> Callable[[bytes], None]:
    """Keep the way to the worker for the verdict: what an artifact prints must not stand in it."""
    out = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)

    def says(words: bytes) -> None:
        while words:
            words = words[os.write(out, words) :]

    return says


def _die_first() -> None:
    """Where memory runs out, the system is to end this process and no other."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return  # not Linux, or not allowed: then the system chooses


if __name__ == "__main__":
    main()
