"""Processes that kill themselves at a named line: SIGKILL, before or after the n-th call of a function."""

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Point", "dies_at"]


@dataclass(frozen=True)
class Point:
    """A line to die at."""

    function: str
    """``module:name`` or ``module:Class.name``."""
    when: str
    """``before`` or ``after`` the call."""
    nth: int = 0

    def __str__(self) -> str:
        return f"{self.when} {self.function.partition(':')[2]} {self.nth}"

    def arm(self) -> None:
        """Wrap the function in this process."""
        module, _, path = self.function.partition(":")
        *owners, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        real, calls = getattr(owner, name), 0

        def fatal(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            is_it = calls == self.nth
            calls += 1
            if is_it and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **kwargs)
            if is_it:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, fatal)


def dies_at(point: Point, work: Callable[..., None], *args: Any) -> bool:
    """Run `work` in a process that dies at `point`; return whether it got there."""
    process = multiprocessing.get_context("forkserver").Process(target=_armed, args=(point, work, args))
    process.start()
    process.join(60)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError("the process hangs")
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode == -signal.SIGKILL


def _armed(point: Point, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    point.arm()
    work(*args)
