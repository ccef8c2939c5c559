"""The verb that examines everything the service stands on, and says for each what to do. It changes nothing."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.finding import Finding, Health, examined, good, wrong
from service.commands.output import AsJson, Key, Url, client_of, console, fail, notes, plain, print_json, url_of
from service.commands.progress import Patience, quiet, tell
from service.domain.errors import InvalidSetup

if TYPE_CHECKING:
    from service.client import Retrue
    from service.settings import Settings
    from service.storage.database import Database

__all__ = ["register"]

ANSWER_S = 5.0
SIGNS = {Health.OK: "[green]ok[/]   ", Health.NOTE: "[yellow]note[/] ", Health.WRONG: "[red]WRONG[/]"}


def doctor(
    home: Annotated[Path | None, typer.Option(help="Home folder [RETRUE_HOME].")] = None,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Examine settings, home, disk, packages, port, database, clock, processes, artifacts, spool and lake.

    Works while the service is down. Exit 1 if anything is wrong. With --url also the service at that address.
    """
    client = _client(url, key)
    found: list[Finding] = []
    with Patience(notes, "looking"):
        for finding in _examination(home, client):
            found.append(finding)
            if not as_json:
                _print(finding)
    is_well = all(finding.health is not Health.WRONG for finding in found)
    if as_json:
        print_json({"ok": is_well, "findings": [finding.to_json() for finding in found]})
    if not is_well:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command()(doctor)


def _client(url: str, key: str) -> "Retrue | None":
    """Return a client of the service that was named; None where none was."""
    if url_of(url)[1] == "default":
        return None
    try:
        return client_of(url, key, timeout_s=ANSWER_S, retries=0)
    except ValueError as error:
        raise fail(str(error), exit_code=2) from None


def _examination(home: Path | None, client: "Retrue | None") -> Iterator[Finding]:
    from service.commands import machine
    from service.settings import load

    try:
        settings = load(home=home)
    except InvalidSetup as error:
        yield wrong("settings", error.detail, "mend the variable, or its line in .env; `retrue config` shows all")
        return
    yield good("settings", f"read; the home is {settings.home}")
    looks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("home", lambda: machine.home(settings)),
        ("disk", lambda: machine.disk(settings)),
        ("packages", machine.packages),
        ("port", lambda: machine.port(settings)),
    ]
    if client is not None:
        looks.append(("service", lambda: machine.remote(client)))
    for name, look in looks:
        tell(f"looking at the {name}")
        yield from examined(name, look)
    yield from _state(settings)


def _state(settings: "Settings") -> Iterator[Finding]:
    from service.commands import state

    opened: list[Database] = []

    def look_at_database() -> Iterator[Finding]:
        opened.append(state.opened(settings))
        yield from state.database(settings, opened[0])

    tell("looking at the database")
    answers = list(examined("database", look_at_database))
    yield from answers
    if opened and all(finding.health is Health.OK for finding in answers):
        database = opened[0]
        for name, look in (
            ("clock", lambda: state.clock(database)),
            ("processes", lambda: state.processes(settings, database)),
            ("artifacts", lambda: state.artifacts(settings, database)),
        ):
            tell(f"looking at the {name}")
            yield from examined(name, look)
    if opened:
        opened[0].close()
    for name, look in (("spool", lambda: state.spool(settings)), ("lake", lambda: state.lake(settings))):
        tell(f"looking at the {name}")
        yield from examined(name, look)


def _print(finding: Finding) -> None:
    with quiet():
        console.print(f"{SIGNS[finding.health]} {finding.name:<11}{plain(finding.words)}", soft_wrap=True)
        if finding.remedy:
            console.print(f"{'':<18}→ {plain(finding.remedy)}", soft_wrap=True)
