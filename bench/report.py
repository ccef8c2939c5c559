"""How every bench reports: a table on the screen, a dated section in ``docs/bench.md``, figures in ``bench/out``."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["Section", "Target", "publish"]

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Benches

Written by the files in `bench/`; each section says how to repeat it, and a new run takes the place of the one before.
"""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One claim that the bench holds."""

    words: str
    met: bool


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one run of a bench has found."""

    name: str
    """Of the bench's file: names the JSON file too."""
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()
    libraries: Sequence[str] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def publish(section: Section, *, root: Path = ROOT) -> int:
    """Show the section, write it down, and return the exit code: 1 when a target is missed."""
    _show(section)
    facts = _facts(section, root)
    out = root / "bench" / "out"
    out.mkdir(parents=True, exist_ok=True)
    targets = [{"words": target.words, "met": bool(target.met)} for target in section.targets]
    content = facts | {"targets": targets, "figures": section.figures}
    (out / f"{section.name}.json").write_text(json.dumps(content, indent=1, default=lambda value: value.item()) + "\n")
    page = root / "docs" / "bench.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    before = page.read_text() if page.exists() else HEAD
    page.write_text(_without(before, section.title).rstrip("\n") + "\n\n" + _markdown(section, facts))
    return 0 if all(target.met for target in section.targets) else 1


def _without(page: str, title: str) -> str:
    """Return the page without the section of that title: a new run takes an older one's place, good or bad."""
    head, *sections = page.split("\n## ")
    return "\n## ".join([head, *(one for one in sections if one.splitlines()[0] != title)])


def _show(section: Section) -> None:
    # A pipe has no width of its own, and 80 columns would cut figures off.
    console = Console(width=None if sys.stdout.isatty() else 170)
    table = Table(title=section.title, title_justify="left")
    for position, column in enumerate(section.columns):
        table.add_column(column, justify="left" if position == 0 else "right", no_wrap=True)
    for row in section.rows:
        table.add_row(*row)
    console.print(table)
    for note in section.notes:
        console.print(note, highlight=False)
    for target in section.targets:
        console.print(f"{'met   ' if target.met else 'MISSED'}  {target.words}", highlight=False)


def _markdown(section: Section, facts: dict[str, Any]) -> str:
    lines = [
        f"## {section.title}",
        "",
        f"{facts['date']}, commit {facts['commit']}, {section.seconds:.0f} s on {facts['machine']}.",
        f"{facts['versions']}.",
        f"Repeat with `{facts['command']}`.",
        "",
        "| " + " | ".join(section.columns) + " |",
        "|" + "---|" * len(section.columns),
        *("| " + " | ".join(row) + " |" for row in section.rows),
        "",
        *(f"- {note}" for note in section.notes),
        *(f"- Target {'met' if target.met else '**missed**'}: {target.words}" for target in section.targets),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _facts(section: Section, root: Path) -> dict[str, Any]:
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(root),
        "machine": _machine(),
        "versions": ", ".join([f"Python {platform.python_version()}", *map(_versioned, section.libraries)]),
        "command": " ".join([".venv/bin/python", _relative(sys.argv[0], root), *sys.argv[1:]]),
        "seconds": round(section.seconds, 1),
    }


def _commit(root: Path) -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)  # noqa: S607
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short", "HEAD")
    if not head:
        return "none"
    return f"{head} with changes" if git("status", "--porcelain", "service", "models", "bench/*.py") else head


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def _versioned(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (absent)"


def _relative(path: str, root: Path) -> str:
    whole = Path(path).resolve()
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else whole.name
