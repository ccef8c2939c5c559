"""Verbs that stop automation and let it go on: pause, resume, freeze, unfreeze, pin, unpin; switch and release."""

from typing import Annotated

import typer

from service.commands.arguments import ModelName, Reason
from service.commands.output import AsJson, Key, Url, connect, fail, print_json, say
from service.domain.switch import CLEARABLE, SETTABLE

__all__ = ["register"]

NOW = {
    "pause": "no run begins by schedule; checks go on",
    "freeze": "nothing is trained and nothing promoted",
    "pin": "its champion stays, come what may",
    "hold": "nothing is promoted automatically",
}

SwitchName = Annotated[
    str,
    typer.Argument(
        metavar="SWITCH",
        help="pause, freeze, pin, hold; to release also quarantine and breaker.",
        autocompletion=lambda incomplete: [name for name in sorted(CLEARABLE) if name.startswith(incomplete)],
    ),
]


def switch(
    model: ModelName,
    name: SwitchName,
    reason: Reason = "set on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Turn a switch on: pause (schedule), freeze (no training, no promotion), pin (champion), hold (automation)."""
    if name not in SETTABLE:
        raise fail(f"{name!r} is no switch you can set: choose one of {', '.join(sorted(SETTABLE))}", exit_code=2)
    with connect(url, key) as retrue:
        done = retrue.set_switch(model, name, reason=reason)
    if as_json:
        print_json(done)
    else:
        say(f"{model}: {name} is on: {NOW[name]}")


def release(
    model: ModelName,
    name: SwitchName,
    reason: Reason = "released on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Turn a switch off. `quarantine`: the present data are the new normal; `breaker`: what broke runs is mended."""
    if name not in CLEARABLE:
        raise fail(f"{name!r} is no switch: choose one of {', '.join(sorted(CLEARABLE))}", exit_code=2)
    with connect(url, key) as retrue:
        retrue.clear_switch(model, name, reason=reason)
    if as_json:
        print_json({"model": model, "name": name, "value": False})
    else:
        say(f"{model}: {name} is off")


def pause(
    model: ModelName,
    reason: Reason = "paused on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Begin no run by schedule; checks go on. `resume` undoes it."""
    switch(model, "pause", reason, url, key, as_json)


def resume(
    model: ModelName,
    reason: Reason = "resumed on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Begin runs by schedule again after `pause`."""
    release(model, "pause", reason, url, key, as_json)


def freeze(
    model: ModelName,
    reason: Reason = "frozen on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Train nothing and promote nothing; `unfreeze` undoes it."""
    switch(model, "freeze", reason, url, key, as_json)


def unfreeze(
    model: ModelName,
    reason: Reason = "unfrozen on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Train and promote again after `freeze`."""
    release(model, "freeze", reason, url, key, as_json)


def pin(
    model: ModelName,
    reason: Reason = "pinned on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Keep the champion, come what may; `unpin` undoes it."""
    switch(model, "pin", reason, url, key, as_json)


def unpin(
    model: ModelName,
    reason: Reason = "unpinned on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Let the champion change again after `pin`."""
    release(model, "pin", reason, url, key, as_json)


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `app`."""
    for verb in (switch, release, pause, resume, freeze, unfreeze, pin, unpin):
        app.command()(verb)
