"""Verbs that ask for a change: check, retrain, accept, cancel, approve, reject, promote, rollback."""

from typing import Annotated

import typer

from service.client import Json
from service.commands.arguments import ModelName, Reason, RunId, VersionNumber
from service.commands.detail import outcome, print_clauses
from service.commands.follow import ENDED_OTHERWISE, GOOD_ENDS, follow_check, follow_run, follow_swap
from service.commands.output import AsJson, Key, Url, connect, fail, note, print_json, say, words
from service.domain.duration import parse_duration

__all__ = ["register"]

Timeout = Annotated[
    str, typer.Option("--timeout", help="With --wait: how long, such as 90s or 2h; exit 4 if it is not over then.")
]


def check(
    model: ModelName,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its verdict; exit 4 if it reaches none.")] = False,
    timeout: Timeout = "15m",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Ask for a check of the newest window now."""
    deadline_s = _seconds(timeout)
    with connect(url, key) as retrue:
        asked = retrue.start_check(model)
        if wait:
            asked = follow_check(retrue, model, asked["id"], deadline_s=deadline_s)
    if as_json:
        print_json(asked)
    elif not wait:
        say(f"check {asked['id']} is {asked['state']}; see it with `retrue checks {model}`")
    else:
        said = asked.get("error") or asked.get("reason")
        say(f"{asked.get('verdict') or asked['state']}: {said}")
        if decided := words(asked, "decision", "reason"):
            say(f"{words(asked, 'decision', 'action')}: {decided}; why: `retrue explain {asked['id']}`")
    if wait and asked["state"] != "done":
        raise typer.Exit(ENDED_OTHERWISE)


def retrain(
    model: ModelName,
    reason: Reason = "asked on the command line",
    force: Annotated[bool, typer.Option("--force", help="Train even on data that were tried before.")] = False,
    join: Annotated[bool, typer.Option("--join", help="Join a run that is in the way instead of failing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; exit 4 unless it promotes or skips.")] = False,
    timeout: Timeout = "15m",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Start a run: train a challenger, judge it, promote it if it passes the gate."""
    deadline_s = _seconds(timeout)
    with connect(url, key) as retrue:
        run = retrue.retrain(model, reason=reason, force=force, join=join)
        if not wait:
            _print_asked(run, as_json=as_json)
            return
        ended = follow_run(retrue, run["id"], as_json="silent" if as_json else None, deadline_s=deadline_s)
    if as_json:
        print_json(ended.document)
    else:
        print_clauses(ended.document)
    if ended.state not in GOOD_ENDS:
        raise typer.Exit(ENDED_OTHERWISE)


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
    _print_asked(run, as_json=as_json)


def cancel(
    run_id: RunId,
    reason: Reason = "cancelled on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """End a run that has not committed yet."""
    with connect(url, key) as retrue:
        run = retrue.cancel(run_id, reason=reason)
    _print_run(run, as_json=as_json)


def approve(
    run_id: RunId,
    reason: Reason = "approved on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Let a challenger that waits for a person be promoted."""
    with connect(url, key) as retrue:
        run = retrue.approve(run_id, reason=reason)
    _print_run(run, as_json=as_json)


def reject(
    run_id: RunId,
    reason: Reason = "rejected on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Turn down a challenger that waits for a person."""
    with connect(url, key) as retrue:
        run = retrue.reject(run_id, reason=reason)
    _print_run(run, as_json=as_json)


def promote(
    model: ModelName,
    version: VersionNumber,
    reason: Reason = "promoted on the command line",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it answers; exit 4 if it does not come to.")] = False,
    timeout: Timeout = "5m",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Make a version champion, once every replica has loaded and verified it."""
    deadline_s = _seconds(timeout)
    with connect(url, key) as retrue:
        generation = int(words(retrue.model(model), "champion", "generation") or 0)
        swap = retrue.promote(model, version, generation=generation, reason=reason)
        done = follow_swap(retrue, model, swap, deadline_s=deadline_s) if wait else None
        if done is not None:
            swap = swap | {"state": "committed" if done else "failed"}
    if as_json:
        print_json(swap)
    elif done:
        say(f"version {version} of {model} is champion, generation {generation + 1}")
    else:
        say(f"version {version} of {model}: promotion {swap['id']} is {swap['state']}")
        note("see `retrue audit`" if wait else f"it is done once every worker has loaded it: `retrue status {model}`")
    if done is False:
        raise typer.Exit(ENDED_OTHERWISE)


def rollback(
    model: ModelName,
    to: Annotated[int | None, typer.Option(help="Version to go back to; by default the last one kept.", min=1)] = None,
    reason: Reason = "rolled back on the command line",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Take the champion back at once; holds automatic promotion until `retrue release MODEL hold`."""
    with connect(url, key) as retrue:
        champion = retrue.rollback(model, to=to, reason=reason)
    if as_json:
        print_json(champion)
        return
    say(f"{model} is back on version {champion['version']}, generation {champion['generation']}")
    note(f"automatic promotion is held until `retrue release {model} hold`")


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `app`."""
    for verb in (check, retrain, accept, cancel, approve, reject, promote, rollback):
        app.command()(verb)


def _print_asked(run: Json, *, as_json: bool) -> None:
    if as_json:
        print_json(run)
    else:
        say(f"run {run['id']} is {run['state']}; follow it with `retrue runs {run['id']} --watch`")


def _print_run(run: Json, *, as_json: bool) -> None:
    if as_json:
        print_json(run)
    else:
        said = outcome(run)
        say(f"run {run['id']} is {run['state']}" + (f": {said}" if said else ""))


def _seconds(text: str) -> float:
    try:
        return parse_duration(text).total_seconds()
    except (ValueError, OverflowError) as error:
        raise fail(f"--timeout: {error}", exit_code=2) from None
