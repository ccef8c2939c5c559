"""Verbs that look and change nothing: status, versions, checks, runs."""

from typing import Annotated

import typer

from service.client import FINISHED, WAITING, Json, Retrue
from service.commands.arguments import ModelName, ModelOrRun, SomeModel, SomeVersion
from service.commands.detail import outcome, print_model, print_run, print_version
from service.commands.follow import follow_run
from service.commands.output import (
    AsJson,
    Key,
    Url,
    connect,
    print_json,
    print_table,
    say,
    since,
    words,
)
from service.domain.run import RunState

__all__ = ["register"]

Watch = Annotated[bool, typer.Option("--watch", help="Follow the run that is under way until it ends or waits.")]


def status(model: SomeModel = None, url: Url = "", key: Key = "", as_json: AsJson = False) -> None:
    """Show what serves, since when, why, and how well; with a MODEL also what a retrain or a roll back would do."""
    with connect(url, key) as retrue:
        if model is not None:
            shown, versions = retrue.model(model), retrue.versions(model)
        else:
            shown, versions = {"models": retrue.models()}, []
    if as_json:
        print_json(shown if model is not None else shown["models"])
    elif model is not None:
        print_model(shown, versions)
    else:
        _print_fleet(shown["models"])


def versions(
    model: ModelName, version: SomeVersion = None, url: Url = "", key: Key = "", as_json: AsJson = False
) -> None:
    """List a model's versions, newest first; with a VERSION all that is known of it."""
    with connect(url, key) as retrue:
        found = retrue.versions(model) if version is None else retrue.version(model, version)
    if as_json:
        print_json(found)
        return
    if isinstance(found, dict):
        print_version(found)
        return
    print_table(
        "",
        ("version", "state", "metric", "on holdout", "learned until", "run", "created"),
        (
            (
                row["version"],
                row["state"],
                words(row, "metrics", "metric"),
                _figure(words(row, "metrics", "value")),
                row["learned_until"],
                row.get("run_id"),
                since(row["created_at"]),
            )
            for row in found
        ),
    )


def checks(
    model: ModelName,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=200)] = 20,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """List a model's checks, newest first, with verdict and decision in words."""
    with connect(url, key) as retrue:
        listed = retrue.checks(model, limit=limit)
    if as_json:
        print_json(listed)
        return
    print_table(
        "",
        ("window until", "check", "state", "rows", "verdict", "why", "reads as", "decision"),
        (
            (
                check.get("window_until"),
                check["id"],
                check["state"],
                check.get("rows"),
                check.get("verdict"),
                check.get("error") or check.get("reason"),
                words(check, "reading", "signature"),
                words(check, "decision", "reason"),
            )
            for check in listed
        ),
    )


def runs(
    which: ModelOrRun = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=200)] = 20,
    watch: Watch = False,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """List runs, newest first; with a run's id all of it. `--watch` follows the one under way.

    With --watch --json each change is one line of JSON. It exits 0 however the run ends: it only looks.
    """
    is_one = which is not None and _is_id(which)
    with connect(url, key) as retrue:
        if watch:
            _watch(retrue, which, is_one=is_one, as_json=as_json)
            return
        if is_one and which is not None:
            run, events = retrue.run(which), retrue.events(which)
            if as_json:
                print_json(run | {"events": events})
            else:
                print_run(run, events)
            return
        listed = retrue.runs(model=which, limit=limit)
    if as_json:
        print_json(listed)
    else:
        _print_runs(listed)


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `app`."""
    for verb in (status, versions, checks, runs):
        app.command()(verb)


def _watch(retrue: Retrue, which: str | None, *, is_one: bool, as_json: bool) -> None:
    if is_one:
        run_id = which
    else:
        listed = retrue.runs(model=which, limit=50)
        # One on probation waits for days, and is looked at by `retrue status`.
        run_id = next((run["id"] for run in listed if run["state"] not in FINISHED | WAITING), None)
    if run_id is None:
        if not as_json:
            say("no run is under way")
        return
    ended = follow_run(retrue, run_id, as_json="lines" if as_json else None, deadline_s=None)
    if not as_json:
        _print_runs([ended.document])


def _is_id(text: str) -> bool:
    # Ids are UUIDs; a model's name is never as long with hyphens at these places and hexadecimal digits alone.
    parts = text.split("-")
    is_hex = all(part and not part.strip("0123456789abcdef") for part in parts)
    return is_hex and [len(part) for part in parts] == [8, 4, 4, 4, 12]


def _print_fleet(models: list[Json]) -> None:
    print_table(
        "",
        ("model", "champion", "generation", "since", "probation", "last check", "last run", "switches"),
        (
            (
                model["name"],
                f"version {words(model, 'champion', 'version')}" if model.get("champion") else "none yet",
                words(model, "champion", "generation"),
                since(words(model, "champion", "changed_at")),
                _probation_words(model.get("probation")),
                words(model, "last_check", "verdict"),
                _run_words(model.get("last_run")),
                ", ".join(sorted(model.get("switches") or {})) or None,
            )
            for model in models
        ),
    )
    for model in models:
        if said := words(model, "suggestion", "reason"):
            say(f"{model['name']}: suggested: {said}: `retrue accept {model['name']}`")
        if words(model, "last_run", "state") == RunState.AWAITING_APPROVAL.value:
            run = words(model, "last_run", "id")
            say(f"{model['name']}: waits for a person: `retrue approve {run}` or `retrue reject {run}`")
        if model.get("error"):
            say(f"{model['name']}: {model['error']}")


def _print_runs(listed: list[Json]) -> None:
    print_table(
        "",
        ("run", "model", "state", "try", "trigger", "version", "why", "outcome", "asked"),
        (
            (
                run["id"],
                run["model"],
                run["state"],
                run.get("attempt"),
                run["trigger"],
                run.get("version"),
                run["reason"],
                outcome(run),
                since(run["requested_at"]),
            )
            for run in listed
        ),
    )


def _run_words(run: Json | None) -> str | None:
    return None if not run else f"{run['state']} ({run['trigger']})"


def _probation_words(probation: Json | None) -> str | None:
    if not probation:
        return None
    until = f" until {probation['until'][:10]}" if probation.get("until") else ""
    return f"against version {probation['previous_version']}{until}" + (
        f": {probation['code']}, pinned" if probation.get("code") else ""
    )


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
