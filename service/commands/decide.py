"""The verbs that ask why: a check's decision or a run's end explained, a changed policy tried on the last checks."""

import json
from typing import Annotated, Any

import typer

from service.client import Json, NotThere, Retrue
from service.commands.arguments import CheckOrRun
from service.commands.detail import print_run
from service.commands.output import AsJson, Key, Url, connect, fail, note, print_json, print_table, say

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


def explain(what: CheckOrRun, url: Url = "", key: Key = "", as_json: AsJson = False) -> None:
    """Say why: a check's decision step by step, or how a run went and what the gate said of it."""
    with connect(url, key) as retrue:
        check, run = _found(retrue, what)
        events = [] if run is None else retrue.events(what)
    if as_json:
        print_json(check if run is None else run | {"events": events})
    elif run is not None:
        print_run(run, events)
    elif check is not None:
        _print_explanation(check)


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    for verb in (explain, decide):
        app.command()(verb)


def _found(retrue: Retrue, what: str) -> tuple[Json | None, Json | None]:
    """Return the explanation of a check, or a run: `what` may be the id of either, or a model's name."""
    try:
        return retrue.explanation(what), None
    except NotThere:
        pass
    try:
        return None, retrue.run(what)
    except NotThere:
        pass
    try:
        checks = retrue.checks(what)
    except NotThere:
        raise fail(f"there is no check, no run and no model {what!r}", exit_code=2) from None
    done = next((check["id"] for check in checks if check["state"] == "done"), None)
    if done is None:
        raise fail(f"no check of {what} has been done yet: `retrue check {what} --wait`")
    return retrue.explanation(done), None


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
        say(warning)
    say(f"check {found['check']} of {found['model']}, version {found['version']}, window until {found['window_until']}")
    for number, step in enumerate(found["steps"]):
        _line(f"{number} {step['name']}", step["outcome"], step["reason"])
        for detail in step["details"]:
            say(f"{'':<43}{detail}")
    say("situation")
    for name, value in found["situation"].items():
        if value not in (None, "", []) and not isinstance(value, dict):
            say(f"  {name:<26}{value}")
    say("rules" + ("" if found["policy_recorded"] else " (by the model's present policy)"))
    for rule in found["rules"]:
        met, free = MARKS[rule["kind"]]
        _line(f"{rule['kind']} {rule['name']}", met if rule["met"] else free, rule["reason"])
    if found["rules"][-1]["kind"] == "cause":
        say("  obstacles are asked only where something calls for a run")
    say("decision")
    _line("recorded", found["recorded"]["action"], f"{found['recorded']['code']}: {found['recorded']['reason']}")
    if found["same"]:
        say("  decided anew it is the same, word for word")
    else:
        _line("today", found["today"]["action"], f"{found['today']['code']}: {found['today']['reason']}")
    if found["run"]:
        say(f"  run {found['run']} followed")


def _line(name: str, outcome: str, reason: str) -> None:
    say(f"  {name:<26}{outcome:<15}{reason}")


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
    say(
        f"{found['changed']} of {found['checks']} decisions change; runs {old['runs']} → {new['runs']}, "
        f"suggestions {old['suggestions']} → {new['suggestions']}"
    )
    say(
        f"runs if those that were never made had been rejected: {found['replayed_if_rejected']['runs']}; "
        f"promoted: {found['replayed_if_promoted']['runs']}"
    )
    for limit in found["limits"]:
        note(limit)


def _short(decision: Json) -> str:
    return (
        str(decision["action"])
        if decision["action"] == decision["code"]
        else f"{decision['action']} ({decision['code']})"
    )
