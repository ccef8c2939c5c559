"""Estimators that misbehave, importable by the real processes that load them."""

import ctypes
import os
import time
from typing import Any

import numpy as np

__all__ = ["Costs", "Crashes", "Exits", "Hangs", "HangsHoldingTheInterpreter", "Moody", "Nan", "Slow", "SlowToLoad"]


class Zero:
    """Answers 0 to everything."""

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X))


class Slow(Zero):
    """Takes its time for each batch."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def predict(self, X: Any) -> Any:
        time.sleep(self.seconds)
        return np.zeros(len(X))


class Moody(Zero):
    """Hangs for ten minutes over one value; `seconds` for all others."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def predict(self, X: Any) -> Any:
        time.sleep(600 if (X[:, 0] == 666).any() else self.seconds)
        return np.zeros(len(X))


class Nan(Zero):
    """Answers the golden rows, and has no number for others."""

    def predict(self, X: Any) -> Any:
        return np.where(X[:, 0] < 100, 0.0, np.nan)


class Costs(Zero):
    """Costs so many seconds a call and a row, by a clock of its own."""

    now = 0.0

    def __init__(self, fixed_s: float, row_s: float) -> None:
        self.fixed_s, self.row_s = fixed_s, row_s

    @classmethod
    def clock(cls) -> float:
        return Costs.now

    def predict(self, X: Any) -> Any:
        Costs.now += self.fixed_s + self.row_s * len(X)
        return np.zeros(len(X))


class OnLoad(Zero):
    """Does something while it is unpickled, and not while a test pickles it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if os.getpid() != state["maker"]:
            self.act()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "maker": os.getpid()}

    def act(self) -> None:
        raise NotImplementedError


class Crashes(OnLoad):
    """Reads where there is no memory."""

    def act(self) -> None:
        ctypes.string_at(0)


class Exits(OnLoad):
    """Ends the process, without a word and with a good conscience."""

    def act(self) -> None:
        os._exit(0)


class Hangs(OnLoad):
    """Never ends to load."""

    def act(self) -> None:
        time.sleep(600)


class HangsHoldingTheInterpreter(OnLoad):
    """Never ends to load, and lets no other thread run."""

    def act(self) -> None:
        ctypes.PyDLL(None).sleep(600)


class SlowToLoad(OnLoad):
    """Takes three seconds of Python to load."""

    def act(self) -> None:
        ends = time.process_time() + 3.0
        while time.process_time() < ends:
            sum(range(1000))
