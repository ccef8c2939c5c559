"""Verbs that run processes: serve, api, controller; and the settings that they run with.

What they need is imported when they run: every other verb, and every press of the tabulator key, starts without it.
"""

from pathlib import Path
from typing import Annotated

import typer

from service import __version__
from service.commands.output import (
    KEY_VARIABLE,
    URL_VARIABLE,
    AsJson,
    Key,
    Url,
    key_of,
    print_json,
    print_table,
    url_of,
)

__all__ = ["register"]

Home = Annotated[Path | None, typer.Option(help="Home folder [RETRUE_HOME].")]
Host = Annotated[str | None, typer.Option(help="Address to listen on [RETRUE_HOST].")]
Port = Annotated[int | None, typer.Option(help="Port to listen on [RETRUE_PORT].", min=1, max=65_535)]
Workers = Annotated[int | None, typer.Option(help="API worker processes [RETRUE_WORKERS].", min=1, max=64)]


def serve(home: Home = None, host: Host = None, port: Port = None, workers: Workers = None) -> None:
    """Run everything on this machine: API workers, committer and controller."""
    from service import app as wiring
    from service.settings import load

    wiring.run_serve(load(home=home, host=host, port=port, workers=workers))


def api(home: Home = None, host: Host = None, port: Port = None, workers: Workers = None) -> None:
    """Run API workers and their committer only."""
    from service import app as wiring
    from service.settings import load

    wiring.run_api(load(home=home, host=host, port=port, workers=workers))


def controller(home: Home = None) -> None:
    """Run a controller only; of several, one leads."""
    from service import app as wiring
    from service.settings import load

    wiring.run_controller(load(home=home))


def config(url: Url = "", key: Key = "", as_json: AsJson = False) -> None:
    """Show the settings in force on this machine and where each came from; secrets show as ***."""
    from service.domain.secret import MASK, without_password
    from service.settings import explain, load

    rows = explain(load())
    (address, its_origin), (secret, origin) = url_of(url), key_of(key)
    rows += [
        {"name": "url", "variable": URL_VARIABLE, "value": without_password(address), "origin": its_origin},
        {"name": "api_key", "variable": KEY_VARIABLE, "value": MASK if secret else "", "origin": origin},
    ]
    if as_json:
        print_json(rows)
    else:
        print_table("", ("setting", "value", "from"), ((row["name"], row["value"], row["origin"]) for row in rows))


def version(as_json: AsJson = False) -> None:
    """Print the version of Retrue."""
    if as_json:
        print_json({"version": __version__})
    else:
        typer.echo(__version__)


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `app`."""
    for verb in (serve, api, controller, config, version):
        app.command()(verb)
