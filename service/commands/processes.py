"""Verbs that run processes: serve, api, controller; and those that the supervisor starts itself."""

from pathlib import Path
from typing import Annotated

import typer

from service import app as wiring
from service.commands.output import AsJson, print_json, print_table
from service.settings import explain, load

__all__ = ["register"]

Home = Annotated[Path | None, typer.Option(help="Home folder [RETRUE_HOME].")]
Host = Annotated[str | None, typer.Option(help="Address to listen on [RETRUE_HOST].")]
Port = Annotated[int | None, typer.Option(help="Port to listen on [RETRUE_PORT].", min=1, max=65_535)]
Workers = Annotated[int | None, typer.Option(help="API worker processes [RETRUE_WORKERS].", min=1, max=64)]


def serve(home: Home = None, host: Host = None, port: Port = None, workers: Workers = None) -> None:
    """Run everything on this machine: API workers, committer and controller."""
    wiring.run_serve(load(home=home, host=host, port=port, workers=workers))


def api(home: Home = None, host: Host = None, port: Port = None, workers: Workers = None) -> None:
    """Run API workers and their committer only."""
    wiring.run_api(load(home=home, host=host, port=port, workers=workers))


def controller(home: Home = None) -> None:
    """Run a controller only; of several, one leads."""
    wiring.run_controller(load(home=home))


def config(as_json: AsJson = False) -> None:
    """Show the settings in force and where each came from."""
    rows = explain(load())
    if as_json:
        print_json(rows)
    else:
        print_table("", ("setting", "value", "from"), ((row["name"], row["value"], row["origin"]) for row in rows))


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `app`."""
    for verb in (serve, api, controller, config):
        app.command()(verb)
