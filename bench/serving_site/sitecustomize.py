"""Changes a worker of the service for `bench/serving_spikes.py` alone: recording switched off, or collections timed.

Python imports this file at every start when its folder is on PYTHONPATH; processes that are no worker are left alone.
"""

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

__all__: list[str] = []

MODE = os.environ.get("SERVING_SITE", "")
FILE = os.environ.get("SERVING_SITE_FILE", "")
LONG_S = 0.0005


def forget() -> None:
    """Let the recorder write nothing and mint no ids, and the metrics count nothing."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  the source's folder; `-m` puts it there only after this file
    import prometheus_client

    from service.serving.recorder import Recorder

    def record(self: Any, bundle: Any, block: Any, answers: Any) -> tuple[list[str], dict[str, int]]:  # noqa: ARG001
        return [""] * len(block), {}

    def nothing(*_: Any, **__: Any) -> None:
        """Count nothing."""

    Recorder.record = record  # type: ignore[method-assign]
    for kind, name in (
        (prometheus_client.Counter, "inc"),
        (prometheus_client.Histogram, "observe"),
        (prometheus_client.Gauge, "set"),
    ):
        setattr(kind, name, nothing)


def time_collections() -> None:
    """Note each collection that takes long: when it ended, its generation, how long, and how much of that it worked."""
    started = worked = 0.0
    file = Path(FILE)
    file.touch()  # else a worker that was never watched would look like one that never paused

    def noted(phase: str, facts: dict[str, Any]) -> None:
        nonlocal started, worked
        if phase == "start":
            started, worked = time.perf_counter(), time.thread_time()
            return
        took, work = time.perf_counter() - started, time.thread_time() - worked
        if took > LONG_S:
            with file.open("a", encoding="utf-8") as sink:
                sink.write(f"{time.time():.3f} {facts['generation']} {took:.6f} {work:.6f}\n")

    gc.callbacks.append(noted)


if "worker" in sys.orig_argv:
    if MODE == "forget":
        forget()
    elif MODE == "collections":
        time_collections()
