"""What a child process of a test's controller runs."""

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["grow", "surroundings"]


def surroundings(task: Any, send: Callable[[Any], None]) -> None:  # noqa: ARG001  as all children are called
    """Tell what the process was given, in bytes."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    memory = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}
    send(
        {
            "warm": "service.control.warm" in sys.modules,
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "cpus": sorted(os.sched_getaffinity(0)),
            "nice": os.nice(0),
            "data": resource.getrlimit(resource.RLIMIT_DATA)[0],
            "untouched": memory["VmData"] - memory["RssAnon"],
        }
    )


def grow(task: int, send: Callable[[Any], None]) -> None:
    """Take so much memory and write on all of it; tell how that went."""
    try:
        taken = np.ones(task // 8)
    except MemoryError:
        send("no")
        return
    send(float(taken[-1]))
