"""Signs of life on standard error, once something takes longer than people wait without wondering."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Patience", "bar", "quiet", "tell"]

PATIENCE_S = 2.0
"""So long nothing is shown: most answers are there before."""


class Patience:
    """Shows a spinner, what is waited for and since when, while its block takes longer than `PATIENCE_S`.

    Only on a terminal, and only on standard error: what a program reads stays as it is.

    Parameters
    ----------
    console
        Of standard error.
    """

    def __init__(self, console: Console, text: str, *, after_s: float = PATIENCE_S) -> None:
        self._console, self._text, self._after_s = console, text, after_s
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._shown: Progress | None = None

    def __enter__(self) -> Self:
        _under_way.append(self)
        if self._console.is_terminal:
            self._timer = threading.Timer(self._after_s, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        _under_way.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._timer = None
            if self._shown is not None:
                self._shown.stop()
                self._shown = None

    @property
    def is_shown(self) -> bool:
        """Whether the spinner turns now."""
        return self._shown is not None

    def tell(self, text: str) -> None:
        """Say what is waited for now."""
        with self._lock:
            self._text = text
            if self._shown is not None:
                self._shown.update(self._shown.task_ids[0], description=text)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Take the spinner away while something else is printed."""
        with self._lock:
            if self._shown is None:
                yield
                return
            self._shown.stop()
            try:
                yield
            finally:
                self._shown.start()

    def _show(self) -> None:
        with self._lock:
            if self._timer is None:
                return  # the block ended just now
            # Rich would lead standard output into the console of standard error while it draws.
            shown = Progress(
                SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(),
                console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            shown.add_task(self._text, total=None)
            shown.start()
            self._shown = shown


_under_way: list[Patience] = []


@contextmanager
def quiet() -> Iterator[None]:
    """Take any spinner away while something else is printed."""
    if not _under_way:
        yield
        return
    with _under_way[-1].quiet():
        yield


def tell(text: str) -> None:
    """Say what is waited for now, where a spinner shows it."""
    if _under_way:
        _under_way[-1].tell(text)


@contextmanager
def bar(console: Console) -> Iterator[Progress]:
    """Yield a bar for work whose amount is known; it is drawn on a terminal only."""
    shown = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, redirect_stdout=False, redirect_stderr=False, disable=not console.is_terminal,
    )  # fmt: skip
    with shown:
        yield shown
