"""Verbs about model files: list and validate them. They need no running service."""

from pathlib import Path
from typing import Annotated

import typer

from service import app as wiring
from service.commands.output import AsJson, console, note, print_json, print_table
from service.settings import load

__all__ = ["models"]

models = typer.Typer(help="List and validate the model files.", invoke_without_command=True, no_args_is_help=False)

Folder = Annotated[Path | None, typer.Option("--folder", help="Folder of model files; RETRUE_MODELS by default.")]


@models.callback()
def listing(context: typer.Context, folder: Folder = None, as_json: AsJson = False) -> None:
    """List the model files and what they declare."""
    if context.invoked_subcommand is not None:
        return
    found = wiring.read_models(load(), folder)
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
    found = wiring.read_models(load(), folder)
    broken = [model for model in found if model.error is not None]
    if as_json:
        print_json([model.to_json() for model in found])
    else:
        for model in found:
            if model.error is None:
                count = len(model.schema.features) if model.schema else 0
                console.print(f"[green]ok[/]      {model.file}: {model.name}, {count} features")
            else:
                console.print(f"[red]broken[/]  {model.error}", soft_wrap=True)
        if not found:
            note("there is no model file")
    if broken or not found:
        raise typer.Exit(2)
