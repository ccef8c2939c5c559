"""Verbs that ask for a change: check, retrain, accept, cancel, approve, reject, promote, rollback, and the switches."""

from typing import Annotated

import typer

from service.client import Json
from service.commands.look import ModelName, RunPrinter
from service.commands.output import AsJson, Key, Url, connect, console, fail, note, print_json, words

__all__ = ["register"]

Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it stands in the audit log.")]
RunId = Annotated[str, typer.Argument(help="Id of the run.")]

GOOD_ENDS = frozenset({"succeeded", "probation", "skipped"})
"""Ends of a run for which `retrain --wait` exits 0."""


def check(model: ModelName, url: Url = "", key: Key = "", as_json: AsJson = False) -> None:
    """Ask for a check of the newest window now."""
    with connect(url, key) as retrue:
        asked = retrue.start_check(model)
    if as_json:
        print_json(asked)
    else:
        console.print(f"check {asked['id']} is {asked['state']}; see it with `retrue checks {model}`")


def retrain(
    model: ModelName,
    reason: Reason = "asked on the command line",
    force: Annotated[bool, typer.Option("--force", help="Train even on data that were tried before.")] = False,
    join: Annotated[bool, typer.Option("--join", help="Join a run that is in the way instead of failing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; exit 1 unless it promotes.")] = False,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Start a run: train a challenger, judge it, promote it if it passes the gate."""
    with connect(url, key) as retrue:
        run = retrue.retrain(model, reason=reason, force=force, join=join)
        if not wait:
            if as_json:
                print_json(run)
            else:
                console.print(f"run {run['id']} is {run['state']}; follow it with `retrue runs {model} --watch`")
            return
        run = retrue.wait_for_run(run["id"], seen=None if as_json else RunPrinter())
    if as_json:
        print_json(run)
    else:
        _print_gate(run)
    if run["state"] not in GOOD_ENDS:
        raise typer.Exit(1)


def accept(
    model: ModelName,
    reason: Reason = "accepted on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Start the run that the newest check suggests."""
    with connect(url, key) as retrue:
        run = retrue.accept(model, reason=reason)
    if as_json:
        print_json(run)
    else:
        console.print(f"run {run['id']} is {run['state']}; follow it with `retrue runs {model} --watch`")


def cancel(run_id: RunId, reason: Reason = "cancelled on the command line", url: Url = "", key: Key = "") -> None:
    """End a run that has not committed yet."""
    with connect(url, key) as retrue:
        run = retrue.cancel(run_id, reason=reason)
    console.print(f"run {run['id']} is {run['state']}")


def approve(run_id: RunId, reason: Reason = "approved on the command line", url: Url = "", key: Key = "") -> None:
    """Let a challenger that waits for a person be promoted."""
    with connect(url, key) as retrue:
        run = retrue.approve(run_id, reason=reason)
    console.print(f"run {run['id']} is {run['state']}")


def reject(run_id: RunId, reason: Reason = "rejected on the command line", url: Url = "", key: Key = "") -> None:
    """Turn down a challenger that waits for a person."""
    with connect(url, key) as retrue:
        run = retrue.reject(run_id, reason=reason)
    console.print(f"run {run['id']} is {run['state']}")


def promote(
    model: ModelName,
    version: Annotated[int, typer.Argument(help="Number of the version.", min=1)],
    reason: Reason = "promoted on the command line",
    url: Url = "",
    key: Key = "",
) -> None:
    """Make a version champion, once every replica has loaded and verified it."""
    with connect(url, key) as retrue:
        generation = int(words(retrue.model(model), "champion", "generation") or 0)
        swap = retrue.promote(model, version, generation=generation, reason=reason)
    console.print(f"version {version} of {model}: promotion {swap.get('id', '')} is {swap.get('state', 'asked for')}")


def rollback(
    model: ModelName,
    to: Annotated[int | None, typer.Option(help="Version to go back to; by default the last one kept.")] = None,
    reason: Reason = "rolled back on the command line",
    url: Url = "",
    key: Key = "",
) -> None:
    """Take the champion back at once; holds automatic promotion until `retrue release MODEL hold`."""
    with connect(url, key) as retrue:
        champion = retrue.rollback(model, to=to, reason=reason)
    console.print(f"{model} is back on version {champion['version']}, generation {champion['generation']}")
    note(f"automatic promotion is held until `retrue release {model} hold`")


SwitchName = Annotated[str, typer.Argument(help="pause, freeze, pin, hold, quarantine or breaker.")]
SWITCHES = {"pause", "freeze", "pin", "hold"}
RELEASED = SWITCHES | {"quarantine", "breaker"}


def switch(
    model: ModelName, name: SwitchName, reason: Reason = "set on the command line", url: Url = "", key: Key = ""
) -> None:
    """Turn a switch on: pause (schedule), freeze (no training, no promotion), pin (champion), hold (automation)."""
    if name not in SWITCHES:
        raise fail(f"{name!r} is no switch you can set: choose one of {', '.join(sorted(SWITCHES))}", exit_code=2)
    with connect(url, key) as retrue:
        retrue.set_switch(model, name, reason=reason)
    console.print(f"{model}: {name} is on")


def release(
    model: ModelName, name: SwitchName, reason: Reason = "released on the command line", url: Url = "", key: Key = ""
) -> None:
    """Turn a switch off. `quarantine`: the present data are the new normal; `breaker`: what broke runs is mended."""
    if name not in RELEASED:
        raise fail(f"{name!r} is no switch: choose one of {', '.join(sorted(RELEASED))}", exit_code=2)
    with connect(url, key) as retrue:
        retrue.clear_switch(model, name, reason=reason)
    console.print(f"{model}: {name} is off")


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `app`."""
    for verb in (check, retrain, accept, cancel, approve, reject, promote, rollback, switch, release):
        app.command()(verb)


def _print_gate(run: Json) -> None:
    for clause in words(run, "gate", "clauses") or ():
        value, threshold = clause["value"], clause["threshold"]
        figures = "" if value is None else f" {value:.4g}" + ("" if threshold is None else f" against {threshold:.4g}")
        console.print(f"  {clause['outcome']:<13}{clause['name']}{figures}  {clause['reason']}", soft_wrap=True)
