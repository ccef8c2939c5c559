"""Verbs about API keys: create, list, revoke, on a service by its address, as all verbs.

Where no address is given they work on the database: the first key must be there before a service that asks for keys.
"""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from service.client import Json, Retrue, TooSlow, Unreachable
from service.commands.arguments import Reason
from service.commands.output import AsJson, Key, Url, connect, fail, note, print_json, print_table, say, since, url_of
from service.domain.access import Role
from service.domain.duration import parse_duration
from service.settings import load, prepare_home

if TYPE_CHECKING:
    from service.storage.database import Database
    from service.storage.keys import KeyRow

__all__ = ["direct", "keys", "person"]

keys = typer.Typer(
    help="Create, list and revoke API keys of the service at --url or RETRUE_URL. Where neither is set they work on "
    "the database of the settings in force, so that the first can be made.",
    no_args_is_help=True,
)

Local = Annotated[
    bool, typer.Option("--local", help="Work on the database of the settings in force, whatever RETRUE_URL says.")
]


def person() -> str:
    """Return who is at this machine, for the audit."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = f"uid {os.getuid()}"
    return f"{name} on {socket.gethostname()}"


def direct() -> "Database":
    """Return the database of the settings in force, with its tables."""
    from service.storage.database import Database

    settings = load()
    prepare_home(settings)
    database = Database(settings.database)
    database.migrate()
    return database


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="Who it is for; the actor in runs and in the audit.")],
    role: Annotated[list[Role], typer.Option(help="What it is for; may be given more than once.")],
    expires: Annotated[
        str | None, typer.Option(help="How long it is good for, such as 90d; else until revoked.")
    ] = None,
    reason: Reason = "asked on the command line",
    url: Url = "",
    key: Key = "",
    is_local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once; nobody can show it again."""
    lasts = _duration(expires)
    if _asks_a_service(url, is_local=is_local):
        with _service(url, key) as retrue:
            made = retrue.create_key(name, roles=[one.value for one in role], expires_in=expires, reason=reason)
    else:
        made = _create(name, role, lasts, reason)
    if as_json:
        print_json(made)
        return
    note(f"key {made['id']} of {name}: {', '.join(made['roles'])}; expires {made['expires_at'] or 'never'}")
    note("it is shown this once; send it as Authorization: Bearer …, or set RETRUE_API_KEY")
    typer.echo(made["key"])


@keys.command("list")
def list_keys(url: Url = "", key: Key = "", is_local: Local = False, as_json: AsJson = False) -> None:
    """List all keys there ever were, newest first."""
    if _asks_a_service(url, is_local=is_local):
        with _service(url, key) as retrue:
            listed = retrue.keys()
    else:
        from service.storage import keys as stored

        database = direct()
        with database.read() as conn:
            listed = [_plain(row) for row in stored.list_of(conn)]
        database.close()
    if as_json:
        print_json(listed)
        return
    print_table(
        "",
        ("key", "name", "roles", "made", "by", "expires", "last used", "revoked"),
        (
            (
                one["id"],
                one["name"],
                ", ".join(one["roles"]),
                since(one["created_at"]),
                one["created_by"],
                one["expires_at"],
                since(one["last_used_at"]),
                since(one["revoked_at"]),
            )
            for one in listed
        ),
    )


@keys.command()
def revoke(
    wanted: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, or the name of a valid one.")],
    reason: Reason = "asked on the command line",
    url: Url = "",
    key: Key = "",
    is_local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Take a key back; every worker refuses it within seconds."""
    if _asks_a_service(url, is_local=is_local):
        with _service(url, key) as retrue:
            retrue.revoke_key(wanted, reason=reason)
    else:
        from service.storage import keys as stored

        database = direct()
        with database.write(origin={"via": "command line"}) as conn:
            stored.revoke(conn, wanted, actor=person(), reason=reason)
        database.close()
    if as_json:
        print_json({"key": wanted, "state": "revoked"})
    else:
        say(f"key {wanted} is revoked")


def _asks_a_service(url: str, *, is_local: bool) -> bool:
    origin = url_of(url)[1]
    if is_local and origin == "command line":
        raise fail("--local is this machine's database and --url a service: give one of them", exit_code=2)
    return not is_local and origin != "default"


@contextmanager
def _service(url: str, key: str) -> Iterator[Retrue]:
    """Yield a client; where nobody answers at an address that was not named here, says how to do without."""
    try:
        with connect(url, key) as retrue:
            yield retrue
    except Unreachable as error:
        if isinstance(error, TooSlow) or url_of(url)[1] == "command line":
            raise
        msg = f"{error}, or work on this machine's database with --local"
        raise Unreachable(msg) from None


def _create(name: str, roles: list[Role], lasts: timedelta | None, reason: str) -> Json:
    from service.storage import keys as stored

    database = direct()
    with database.write(origin={"via": "command line"}) as conn:
        expires_at = None if lasts is None else database.now(conn) + lasts
        row, text = stored.create(conn, name, roles=roles, expires_at=expires_at, actor=person(), reason=reason)
    database.close()
    return {**_plain(row), "key": text}


def _plain(row: "KeyRow") -> Json:
    names = ("id", "name", "created_at", "created_by", "expires_at", "revoked_at", "last_used_at")
    plain: Json = {name: getattr(row, name) for name in names} | {"roles": [role.value for role in row.roles]}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in plain.items()}


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    try:
        lasts = parse_duration(text)
    except (ValueError, OverflowError):
        lasts = timedelta.max
    if lasts > timedelta(days=36_500):
        raise fail(f"{text!r} is no time that a key may last: write one such as 90d or 12h", exit_code=2)
    return lasts
