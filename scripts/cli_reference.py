"""Writes the reference in docs/cli.md out of the commands themselves; a test fails while it is not written."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from service.__main__ import app

__all__ = ["reference"]

DOCUMENT = Path(__file__).parents[1] / "docs" / "cli.md"
EVERYWHERE = ("url", "key", "as_json")
BEGIN, END = "<!-- made by scripts/cli_reference.py -->\n", "<!-- end -->"


def reference() -> str:
    """Return a section for each command: what it does, its arguments and options."""
    return "".join(_section(name, command) for name, command in _commands(typer.main.get_command(app), ()))


def write() -> None:
    """Write the reference into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    head, tail = text[: text.index(BEGIN)], text[text.index(END) :]
    DOCUMENT.write_text(head + BEGIN + reference() + tail, encoding="utf-8")


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if not hasattr(command, "commands"):
            yield " ".join((*words, name)), command
            continue
        if command.invoke_without_command:
            yield " ".join((*words, name)), command
        yield from _commands(command, (*words, name))


def _section(name: str, command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    usage = " ".join(["retrue", name, *(_metavar(argument) for argument in arguments)])
    lines = [f"### {name}", f"`{usage}`", "", _plain(command.help), ""]
    lines += [f"- `{_metavar(argument)}`: {_plain(argument.help)}" for argument in arguments]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    lines += [_option(option) for option in options if option.name not in {"help", *EVERYWHERE}]
    common = [f"`{option.opts[0]}`" for option in options if option.name in EVERYWHERE]
    lines += [f"- {', '.join(common)}: as everywhere"] if common else []
    return "\n".join(lines).rstrip() + "\n\n"


def _metavar(argument: Any) -> str:
    shown = argument.metavar or argument.name.upper()
    return shown if argument.required else f"[{shown}]"


def _option(option: Any) -> str:
    words = ", ".join(f"`{word}`" for word in [*option.opts, *option.secondary_opts])
    default = option.default
    is_told = default not in (None, "", False) and not option.is_flag
    shown = f" Default: `{getattr(default, 'value', default)}`." if is_told else ""
    variables = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
    read = f" Read from {', '.join(f'`{variable}`' for variable in variables)}." if variables else ""
    return f"- {words}: {_plain(option.help)}{shown}{read}"


def _plain(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split())


if __name__ == "__main__":
    write()
