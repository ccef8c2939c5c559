"""The verb that asks why: one check's decision explained, or a changed policy tried on the last checks."""

import json
from typing import Annotated, Any

import typer

from service.client import Json
from service.commands.output import AsJson, Key, Url, connect, console, fail, note, print_json, print_table

__all__ = ["register"]

MARKS = {"guard": ("STOPS", "passes"), "cause": ("CALLS", "no"), "obstacle": ("STOPS", "free")}


def decide(
    explain: Annotated[str, typer.Option("--explain", metavar="CHECK", help="Why this check ended as it did.")] = "",
    dry_run: Annotated[
        str, typer.Option("--dry-run", metavar="MODEL", help="Try a changed retrain policy on this model's checks.")
    ] = "",
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", "-p", metavar="KEY=VALUE", help="A field of the policy that changes; repeat it."),
    ] = None,
    last: Annotated[int, typer.Option(help="On so many checks, the newest.", min=1, max=500)] = 20,
    assume: Annotated[str, typer.Option(help="How a run ends that was never made: rejected or promoted.")] = "rejected",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Explain a check's decision (--explain CHECK), or try a changed retrain policy (--dry-run MODEL --policy …)."""
    if bool(explain) == bool(dry_run):
        raise fail("say either --explain CHECK or --dry-run MODEL", exit_code=2)
    if explain and policy:
        raise fail("--policy belongs to --dry-run: a recorded decision has the policy that it was made by", exit_code=2)
    changes = _changes(policy or [])
    with connect(url, key) as retrue:
        found = retrue.explanation(explain) if explain else retrue.dry_run(dry_run, changes, last=last, assume=assume)
    if as_json:
        print_json(found)
    elif explain:
        _print_explanation(found)
    else:
        _print_dry_run(found)


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command()(decide)


def _changes(pairs: list[str]) -> dict[str, Any]:
    changes = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key.strip():
            raise fail(f"{pair!r} is not KEY=VALUE, such as mode=suggest or max_age=none", exit_code=2)
        changes[key.strip()] = _value(text.strip())
    return changes


def _value(text: str) -> Any:
    """Return a number, true, false or null where `text` is one; else the text itself."""
    words = text.lower()
    try:
        return json.loads({"none": "null"}.get(words, words))
    except ValueError:
        return text


def _print_explanation(found: Json) -> None:
    for warning in found["warnings"]:
        console.print(f"[bold red]{warning}[/]", soft_wrap=True)
    console.print(
        f"check {found['check']} of {found['model']}, version {found['version']}, window until {found['window_until']}",
        soft_wrap=True,
    )
    for number, step in enumerate(found["steps"]):
        _line(f"{number} {step['name']}", step["outcome"], step["reason"])
        for detail in step["details"]:
            console.print(f"{'':<34}{detail}", soft_wrap=True, markup=False)
    console.print("[bold]situation[/]")
    for name, value in found["situation"].items():
        if value not in (None, "", []) and not isinstance(value, dict):
            console.print(f"  {name:<26}{value}", soft_wrap=True, markup=False)
    console.print("[bold]rules[/]" + ("" if found["policy_recorded"] else " (by the model's present policy)"))
    for rule in found["rules"]:
        met, free = MARKS[rule["kind"]]
        _line(f"{rule['kind']} {rule['name']}", met if rule["met"] else free, rule["reason"])
    if found["rules"][-1]["kind"] == "cause":
        console.print("  obstacles are asked only where something calls for a run")
    console.print("[bold]decision[/]")
    _line("recorded", found["recorded"]["action"], f"{found['recorded']['code']}: {found['recorded']['reason']}")
    if found["same"]:
        console.print("  decided anew it is the same, word for word")
    else:
        _line("today", found["today"]["action"], f"{found['today']['code']}: {found['today']['reason']}")
    if found["run"]:
        console.print(f"  run {found['run']} followed")


def _line(name: str, outcome: str, reason: str) -> None:
    console.print(f"  {name:<22}{outcome:<10}{reason}", soft_wrap=True, markup=False)


def _print_dry_run(found: Json) -> None:
    rows = [
        (
            one["now"],
            _short(one["recorded"]),
            _short(one["replayed"]),
            "changed" if one["changed"] else "",
            "derived" if one["derived"] else "",
            one["replayed"]["reason"] if one["changed"] else "",
        )
        for one in found["decisions"]
    ]
    print_table("", ("window until", "recorded", "replayed", "", "rests on", "why"), rows)
    old, new = found["recorded"], found["replayed"]
    console.print(
        f"{found['changed']} of {found['checks']} decisions change; runs {old['runs']} → {new['runs']}, "
        f"suggestions {old['suggestions']} → {new['suggestions']}",
        soft_wrap=True,
    )
    console.print(
        f"runs if those that were never made had been rejected: {found['replayed_if_rejected']['runs']}; "
        f"promoted: {found['replayed_if_promoted']['runs']}",
        soft_wrap=True,
    )
    for limit in found["limits"]:
        note(limit)


def _short(decision: Json) -> str:
    return (
        str(decision["action"])
        if decision["action"] == decision["code"]
        else f"{decision['action']} ({decision['code']})"
    )
