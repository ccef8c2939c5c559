"""How the command line speaks: tables for people, JSON for programs, one line for what went wrong."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from service.client import Json, Retrue
from service.commands.progress import Patience, quiet

__all__ = [
    "DEFAULT_URL",
    "KEY_VARIABLE",
    "URL_VARIABLE",
    "AsJson",
    "Key",
    "Url",
    "client_of",
    "connect",
    "console",
    "fail",
    "key_of",
    "note",
    "notes",
    "plain",
    "print_json",
    "print_json_line",
    "print_table",
    "say",
    "since",
    "url_of",
    "words",
]

PIPED_WIDTH = 220
"""Columns of a table that no terminal bounds: a program that cuts columns wants whole ids."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
notes = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPED_WIDTH)

DEFAULT_URL = "http://127.0.0.1:8080"
URL_VARIABLE = "RETRUE_URL"
KEY_VARIABLE = "RETRUE_API_KEY"

Url = Annotated[str, typer.Option("--url", envvar=URL_VARIABLE, help=f"Address of the service, else {DEFAULT_URL}.")]
Key = Annotated[
    str,
    typer.Option(
        "--key",
        envvar=KEY_VARIABLE,
        help="API key. Better set the variable: what stands on a command line, everybody on the machine can see.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]

_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if code not in {9, 10}}


def url_of(url: str) -> tuple[str, str]:
    """Return the address of the service, and where it came from."""
    return _first(url, URL_VARIABLE, DEFAULT_URL)


def key_of(key: str) -> tuple[str, str]:
    """Return the API key, which may be empty, and where it came from."""
    return _first(key, KEY_VARIABLE, "")


def client_of(url: str, key: str = "", *, timeout_s: float = 30.0, retries: int = 2) -> Retrue:
    """Return a client for `url` with `key`, each by default that of the environment or of ``.env``.

    Raises
    ------
    ValueError
        If one of them can't be used.
    """
    return Retrue(url_of(url)[0], key=key_of(key)[0] or None, timeout_s=timeout_s, retries=retries)


@contextmanager
def connect(url: str, key: str = "") -> Iterator[Retrue]:
    """Yield a client as `client_of` makes it; shows that it waits, and says what Ctrl-C leaves behind."""
    try:
        client = client_of(url, key)
    except ValueError as error:
        raise fail(str(error), exit_code=2) from None
    with client as retrue:
        try:
            with Patience(notes, f"waiting for {retrue.url}"):
                yield retrue
        except KeyboardInterrupt:
            goes_on = "what the service was asked to do goes on: see `retrue status` and `retrue runs`"
            raise fail(goes_on if retrue.has_changed else "nothing was changed", exit_code=130) from None


def plain(text: Any) -> str:
    """Return a text that can neither steer the terminal nor pass for markup."""
    return escape(str(text).translate(_CONTROL))


def say(text: str) -> None:
    """Print one line of a result as it is: no markup, nothing that steers the terminal."""
    with quiet():
        console.print(text.translate(_CONTROL), soft_wrap=True, markup=False)


def note(text: str) -> None:
    """Tell the person something that is no result (standard error)."""
    with quiet():
        notes.print(text.translate(_CONTROL), soft_wrap=True, markup=False)


def fail(text: str, *, exit_code: int = 1) -> typer.Exit:
    """Print one line on standard error; return the exception to raise."""
    line = " ".join(text.split())
    with quiet():
        notes.print(f"[bold red]retrue:[/] {plain(line)}", soft_wrap=True)
    return typer.Exit(exit_code)


def print_json(value: Any) -> None:
    """Print `value` as one indented JSON document."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_json_line(value: Any) -> None:
    """Print `value` as one line of JSON, at once: somebody may be reading along."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; None shows as a dash."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else str(cell).translate(_CONTROL)) for cell in row))
    with quiet():
        console.print(table)


def since(text: str | None) -> str | None:
    """Return how long ago an RFC 3339 moment was, for people."""
    if not text:
        return None
    seconds = (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def words(document: Json, *path: str) -> Any:
    """Return the value at `path` of nested JSON, or None."""
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _first(given: str, variable: str, default: str) -> tuple[str, str]:
    """Return the first value that is set, and its origin; Typer hands variables over as if they had been options."""
    in_environment = os.environ.get(variable, "")
    if given and given != in_environment:
        return given, "command line"
    if in_environment:
        return in_environment, "environment"
    path = Path(".env")
    if path.is_file():
        from dotenv import dotenv_values

        if value := dotenv_values(path).get(variable):
            return value, ".env"
    return default, "default"
