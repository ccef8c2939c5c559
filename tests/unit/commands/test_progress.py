"""Signs of life: only after some time, only on a terminal, only on standard error, and never among the results."""

import io
import threading
import time

import pytest
from rich.console import Console

from service.commands.progress import Patience, bar, quiet, tell

ERASE_LINE = "\x1b[2K"


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80)


def shown(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def until_shown(patience: Patience) -> None:
    ends = time.monotonic() + 60
    while not patience.is_shown:
        assert time.monotonic() < ends
        threading.Event().wait(0.005)


def test_what_takes_long_shows_that_it_is_under_way_and_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = terminal()
    with Patience(console, "waiting for nobody", after_s=0.0) as patience:
        until_shown(patience)
        tell("waiting for somebody")
        with quiet():
            print("a result")  # noqa: T201  as a command would
    assert not patience.is_shown
    assert "waiting for" in shown(console)
    assert "a result" not in shown(console)
    assert capsys.readouterr().out == "a result\n"
    assert shown(console).rindex(ERASE_LINE) > shown(console).rindex("waiting for")


def test_what_is_quick_shows_nothing() -> None:
    console = terminal()
    with Patience(console, "waiting", after_s=60.0):
        pass
    assert shown(console) == ""


def test_where_no_terminal_is_nothing_is_shown_however_long_it_takes() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with Patience(console, "waiting", after_s=0.0) as patience:
        assert patience._timer is None
        tell("waiting on")
        with quiet():
            pass
    with bar(console) as progress:
        progress.update(progress.add_task("rows", total=2), advance=1)
    assert shown(console) == ""


def test_a_bar_is_drawn_on_a_terminal() -> None:
    console = terminal()
    with bar(console) as progress:
        progress.update(progress.add_task("rows", total=2), advance=2)
    assert "2/2" in shown(console)
