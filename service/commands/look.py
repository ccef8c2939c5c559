"""Verbs that look and change nothing: status, versions, checks, runs."""

import time
from typing import Annotated

import typer

from service.client import FINISHED, WAITING, Json
from service.commands.output import AsJson, Key, Url, connect, console, print_json, print_table, since, words

__all__ = ["register"]

ModelName = Annotated[str, typer.Argument(help="Name of the model.")]


def status(url: Url = "", key: Key = "", as_json: AsJson = False) -> None:
    """Show what serves: every model, its champion, its last check and run."""
    with connect(url, key) as retrue:
        models = retrue.models()
    if as_json:
        print_json(models)
        return
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
            line = f"[bold yellow]{model['name']}[/]: suggested: {said}: `retrue accept {model['name']}`"
            console.print(line, soft_wrap=True)
        if model.get("error"):
            console.print(f"[bold red]{model['name']}[/]: {model['error']}", soft_wrap=True)


def versions(model: ModelName, url: Url = "", key: Key = "", as_json: AsJson = False) -> None:
    """List a model's versions, newest first."""
    with connect(url, key) as retrue:
        listed = retrue.versions(model)
    if as_json:
        print_json(listed)
        return
    print_table(
        "",
        ("version", "state", "metric", "on holdout", "learned until", "run", "created"),
        (
            (
                version["version"],
                version["state"],
                words(version, "metrics", "metric"),
                _figure(words(version, "metrics", "value")),
                version["learned_until"],
                version.get("run_id"),
                since(version["created_at"]),
            )
            for version in listed
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
    model: Annotated[str | None, typer.Argument(help="Only this model's runs.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=200)] = 20,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the newest active run until it ends.")] = False,
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """List runs, newest first; `--watch` follows the active one."""
    with connect(url, key) as retrue:
        listed = retrue.runs(model=model, limit=limit)
        if watch:
            active = next((run for run in listed if run["state"] not in FINISHED | WAITING), None)
            if active is None:
                console.print("no run is under way")
                return
            retrue.wait_for_run(active["id"], seen=RunPrinter())
            listed = [retrue.run(active["id"])]
    if as_json:
        print_json(listed)
        return
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
                _outcome(run),
                since(run["requested_at"]),
            )
            for run in listed
        ),
    )


class RunPrinter:
    """Prints each new state of a run once, with the seconds it took to get there."""

    def __init__(self) -> None:
        self._state: tuple[str, int | None] | None = None
        self._began = time.monotonic()

    def __call__(self, run: Json) -> None:
        """Print `run` if its state is news."""
        if (run["state"], run.get("attempt")) != self._state:
            self._state = (run["state"], run.get("attempt"))
            detail = f": {said}" if (said := _outcome(run)) else ""
            console.print(f"{time.monotonic() - self._began:6.1f} s  {run['state']}{detail}", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to `app`."""
    for verb in (status, versions, checks, runs):
        app.command()(verb)


def _run_words(run: Json | None) -> str | None:
    return None if not run else f"{run['state']} ({run['trigger']})"


def _probation_words(probation: Json | None) -> str | None:
    if not probation:
        return None
    until = f" until {probation['until'][:10]}" if probation.get("until") else ""
    return f"against version {probation['previous_version']}{until}" + (
        f": {probation['code']}, pinned" if probation.get("code") else ""
    )


def _outcome(run: Json) -> str | None:
    """Return what came of the run, or holds it up, in one line."""
    said = ": ".join(str(run[name]) for name in ("code", "detail") if run.get(name))
    if run["state"] == "queued" and run.get("not_before"):
        return f"{said}; tried again at {run['not_before']}"
    return said or words(run, "progress", "words") or None


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
