"""What loading a version imports: by one thread at a time, and without pandas for scikit-learn's sake alone."""

import importlib
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from typing_extensions import override

__all__ = ["import_learners", "named_in", "spare_pandas"]

ASKS_FIRST = "sklearn.utils.fixes"
"""Imports pandas if it is there, whatever is asked of scikit-learn."""

_TURN = threading.Lock()
_NAMES = re.compile(rb"sklearn(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
_PART, _LONGEST = 1 << 20, 256
"""An artifact is searched part by part, for other threads wait meanwhile; a name may lie across two parts."""


def import_learners(names: Iterable[str]) -> None:
    """Import those of the modules that are scikit-learn's, one thread at a time.

    They import each other in rings: of two threads that begin at two ends, Python fails one. Nothing else is imported
    here, for somebody's own module may never come back.
    """
    for name in names:
        if name.partition(".")[0] == "sklearn":
            # Also for a module that is here: another thread may be in the middle of it.
            with _TURN, suppress(Exception):  # the load itself says what is missing
                importlib.import_module(name)


def named_in(artifact: bytes) -> list[str]:
    """Return the names of scikit-learn's modules that stand in a pickle; it is not opened for that."""
    found: dict[bytes, None] = {}
    for at in range(0, len(artifact), _PART):
        found.update(dict.fromkeys(_NAMES.findall(artifact, at, at + _PART + _LONGEST)))
    return [name.decode("ascii") for name in found]


class _Spared(MetaPathFinder):
    """Tells one module of scikit-learn that there is no pandas; tells everybody else nothing."""

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "pandas" and _importer() == ASKS_FIRST:
            msg = "scikit-learn starts without pandas here"
            raise ModuleNotFoundError(msg, name="pandas")
        return None


def spare_pandas() -> None:
    """Keep scikit-learn's own import from importing pandas: it costs a worker 65 MiB, for frames that it never makes.

    scikit-learn works where there is none, and this module of it uses none. Whoever else asks for pandas gets it as
    ever: a model's own code, a model that wants frames, and steps that look for pandas' null, such as SimpleImputer.
    """
    if not any(isinstance(finder, _Spared) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Spared())


def _importer() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        name = str(frame.f_globals.get("__name__", ""))
        if name != __name__ and not name.startswith("importlib"):
            return name
    return ""
