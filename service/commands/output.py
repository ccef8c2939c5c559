"""What the command line prints: tables for people, JSON for programs."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from service.client import Json, Retrue

__all__ = ["AsJson", "Key", "Url", "connect", "console", "fail", "note", "print_json", "print_table", "since", "words"]

PIPED_WIDTH = 220
"""Columns of a table that no terminal bounds: a program that cuts columns wants whole ids."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
notes = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPED_WIDTH)

DEFAULT_URL = "http://127.0.0.1:8080"

Url = Annotated[
    str, typer.Option("--url", envvar="RETRUE_URL", help="Address of the service.", show_default=DEFAULT_URL)
]
Key = Annotated[
    str,
    typer.Option(
        "--key",
        envvar="RETRUE_KEY",
        help="API key. Better set the variable: what stands on a command line, everybody on the machine can see.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]


def connect(url: str, key: str = "") -> Retrue:
    """Return a client for `url`, with `key` or that of the environment if there is one."""
    return Retrue(url or DEFAULT_URL, key=key or os.environ.get("RETRUE_KEY"))


def note(text: str) -> None:
    """Tell the person something that is no result (standard error)."""
    notes.print(text)


def fail(text: str, *, exit_code: int = 1) -> typer.Exit:
    """Print one line on standard error; return the exception to raise."""
    notes.print(f"[bold red]retrue:[/] {text}", soft_wrap=True)
    return typer.Exit(exit_code)


def print_json(value: Any) -> None:
    """Print `value` as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; None shows as a dash."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("–" if cell is None else str(cell) for cell in row))
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
