"""Verbs about models: list and validate their files, which needs no running service, or list what a service has."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.client import Json
from service.commands.output import (
    AsJson,
    Key,
    Url,
    connect,
    console,
    note,
    notes,
    plain,
    print_json,
    print_table,
    url_of,
    words,
)
from service.commands.progress import Patience

if TYPE_CHECKING:
    from service.control.files import FoundModel

__all__ = ["models"]

models = typer.Typer(
    help="List the models of a service (--url), or list and validate the model files.",
    invoke_without_command=True,
    no_args_is_help=False,
)

Folder = Annotated[
    Path | None, typer.Option("--folder", help="Folder of model files; RETRUE_MODELS_FOLDER by default.")
]


@models.callback()
def listing(
    context: typer.Context, folder: Folder = None, url: Url = "", key: Key = "", as_json: AsJson = False
) -> None:
    """List what the model files declare; with --url (or RETRUE_URL), and no --folder, the models of that service."""
    if context.invoked_subcommand is not None:
        return
    if folder is None and url_of(url)[1] != "default":
        with connect(url, key) as retrue:
            registered = retrue.models()
        _print_registered(registered, as_json=as_json)
        return
    found = _read(folder)
    if as_json:
        print_json([model.to_json() for model in found])
        return
    print_table(
        "",
        ("model", "task", "features", "metric", "source", "file", "state"),
        (
            (
                model.name,
                model.spec.task if model.spec else None,
                len(model.schema.features) if model.schema else None,
                model.spec.metric if model.spec else None,
                model.spec.source if model.spec else None,
                model.file,
                "ok" if model.error is None else "broken: see `retrue models check`",
            )
            for model in found
        ),
    )


@models.command()
def check(folder: Folder = None, as_json: AsJson = False) -> None:
    """Validate every model file against its data; exit 2 if one is broken."""
    found = _read(folder)
    broken = [model for model in found if model.error is not None]
    if as_json:
        print_json([model.to_json() for model in found])
    else:
        for model in found:
            if model.error is None:
                count = len(model.schema.features) if model.schema else 0
                console.print(f"[green]ok[/]      {plain(model.file)}: {model.name}, {count} features", soft_wrap=True)
            else:
                console.print(f"[red]broken[/]  {plain(model.error)}", soft_wrap=True)
        if not found:
            note("there is no model file")
    if broken or not found:
        raise typer.Exit(2)


def _read(folder: Path | None) -> "list[FoundModel]":
    from service import app as wiring
    from service.settings import load

    with Patience(notes, "reading the model files and their data"):
        return wiring.read_models(load(), folder)


def _print_registered(registered: list[Json], *, as_json: bool) -> None:
    if as_json:
        print_json(registered)
        return
    print_table(
        "",
        ("model", "task", "features", "metric", "source", "file", "champion", "state"),
        (
            (
                model["name"],
                model.get("task"),
                len(words(model, "schema", "features") or ()) or None,
                model.get("metric"),
                model.get("source"),
                model.get("file"),
                words(model, "champion", "version"),
                "ok" if model.get("error") is None else model["error"],
            )
            for model in registered
        ),
    )
