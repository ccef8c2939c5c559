"""One thing in full, for people: a model with what a change would do, a version, a run with its gate."""

from typing import Any

from service.client import FINISHED, WAITING, Json
from service.commands.output import print_table, say, since, words

__all__ = ["outcome", "print_clauses", "print_model", "print_run", "print_version"]

STOPS_TRAINING, STOPS_CHAMPIONS = "freeze", "pin"


def print_model(model: Json, versions: list[Json]) -> None:
    """Print who answers and since when, how well, what was seen and done last, and what a change would do."""
    champion, name = model.get("champion"), model["name"]
    say(name + (f": {model['task']}, {model['metric']}" if model.get("task") else ""))
    if champion is None:
        _line("champion", "none yet")
    else:
        _line("champion", f"version {champion['version']}, generation {champion['generation']}")
        _line("since", f"{champion['changed_at']} ({since(champion['changed_at'])}) by {champion['changed_by']}")
        _line("why", champion["reason"])
        _line("on holdout", _quality(versions, champion["version"]))
    _line("probation", _probation(model.get("probation")))
    _line("last check", _check(model.get("last_check")))
    _line("last run", _run(model.get("last_run")))
    if swap := model.get("swap"):
        _line("waiting", f"version {swap['version']} becomes champion once every worker has loaded it")
    for switch, found in sorted((model.get("switches") or {}).items()):
        _line(switch, f"set by {found['actor']} {since(found['at'])}: {found['reason']}")
    if said := words(model, "suggestion", "reason"):
        _line("suggested", f"{said}: `retrue accept {name}`")
    for held in model.get("serving") or []:
        state = f"version {held['version']}, generation {held['generation']}" if held.get("version") else "nothing"
        _line(
            f"worker {held['worker']}", f"{state} on {held['host']}" + (f": {held['error']}" if held["error"] else "")
        )
    if model.get("error"):
        _line("broken file", model["error"])
    _line("retrain", _would_retrain(model))
    _line("roll back", _would_roll_back(model, versions))


def print_version(version: Json) -> None:
    """Print what a version is, how good it was, and what it comes from."""
    say(f"{version['model']} version {version['version']}: {version['state']}")
    metrics = version.get("metrics") or {}
    _line("on holdout", _metric(metrics))
    _line("learned until", version["learned_until"])
    _line("created", f"{version['created_at']} ({since(version['created_at'])})")
    _line("run", version.get("run_id"))
    _line("challenged", None if version.get("parent") is None else f"version {version['parent']}")
    _line("artifact", version["artifact"])
    libraries = words(version, "manifest", "libraries") or {}
    _line("made with", ", ".join(f"{name} {number}" for name, number in sorted(libraries.items())) or None)
    features = words(version, "manifest", "schema", "features") or []
    _line(
        "features", f"{len(features)}: " + ", ".join(feature["name"] for feature in features[:12]) if features else None
    )
    _line("probation", _probation(version.get("probation")))
    for name, value in sorted((version.get("lineage") or {}).items()):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            _line(name.replace("_", " "), value)


def print_run(run: Json, events: list[Json]) -> None:
    """Print why a run was made, how it went, what the gate said and how it ended."""
    number = f", version {run['version']}" if run.get("version") else ""
    say(f"run {run['id']} of {run['model']}: {run['state']}{number}")
    _line("asked", f"{run['requested_at']} by {run['actor']} ({run['trigger']}): {run['reason']}")
    _line("check", run.get("check_id"))
    _line("outcome", outcome(run))
    seconds = {name: value for name, value in (run.get("seconds") or {}).items() if value}
    _line("seconds", ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()) or None)
    print_clauses(run)
    if events:
        print_table(
            "",
            ("at", "state", "by", "why"),
            ((event["at"], event["after"], event["actor"], event["reason"]) for event in events),
        )
    if run["state"] not in FINISHED | WAITING:
        say(f"it goes on: `retrue runs {run['id']} --watch`; end it with `retrue cancel {run['id']}`")


def print_clauses(run: Json) -> None:
    """Print the gate's clauses, if it has judged."""
    for clause in words(run, "gate", "clauses") or ():
        value, threshold = clause["value"], clause["threshold"]
        figures = "" if value is None else f" {value:.4g}" + ("" if threshold is None else f" against {threshold:.4g}")
        say(f"  {clause['outcome']:<13}{clause['name']}{figures}  {clause['reason']}")


def outcome(run: Json) -> str | None:
    """Return what came of the run, or holds it up, in one line."""
    said = ": ".join(str(run[name]) for name in ("code", "detail") if run.get(name))
    if run["state"] == "queued" and run.get("not_before"):
        return f"{said}; tried again at {run['not_before']}"
    return said or words(run, "progress", "words") or None


def _line(name: str, value: Any) -> None:
    if value is not None:
        say(f"  {name:<14}{value}")


def _quality(versions: list[Json], number: int) -> str | None:
    row = next((version for version in versions if version["version"] == number), None)
    return None if row is None else _metric(row.get("metrics") or {})


def _metric(metrics: Json) -> str | None:
    if metrics.get("value") is None:
        return None
    interval = metrics.get("ci")
    bounds = f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval and None not in interval else ""
    rows = f" on {metrics['n']} rows" if metrics.get("n") else ""
    return f"{metrics.get('metric', 'metric')} {metrics['value']:.4g}{bounds}{rows}"


def _probation(probation: Json | None) -> str | None:
    if not probation:
        return None
    until = f", until {probation['until']} of event time" if probation.get("until") else ""
    reason = f": {probation['reason']}" if probation.get("reason") else ""
    return f"{probation['state']}, against version {probation['previous_version']}{until}{reason}"


def _check(check: Json | None) -> str | None:
    if not check:
        return None
    decided = words(check, "decision", "reason")
    told = f"{check.get('verdict') or check['state']}: {check.get('reason') or 'no reason told'}"
    return f"{told}" + (f"; {decided}" if decided else "") + f" (`retrue explain {check['id']}`)"


def _run(run: Json | None) -> str | None:
    return None if not run else f"{run['state']} ({run['trigger']}) (`retrue runs {run['id']}`)"


def _would_retrain(model: Json) -> str:
    switches = model.get("switches") or {}
    run = model.get("last_run") or {}
    if STOPS_TRAINING in switches:
        return f"refused: {STOPS_TRAINING} is set (`retrue unfreeze {model['name']}`)"
    if run and run["state"] not in FINISHED | WAITING:
        return f"refused: run {run['id']} is {run['state']} (`--join` joins it)"
    ends = "promoted only after approval or by hand" if {"hold", STOPS_CHAMPIONS} & switches.keys() else "promoted"
    return f"trains a challenger, judged by the gate on the newest labelled rows; if it passes it is {ends}"


def _would_roll_back(model: Json, versions: list[Json]) -> str:
    champion = model.get("champion")
    if champion is None:
        return "nothing to take back"
    if STOPS_CHAMPIONS in (model.get("switches") or {}):
        return f"refused: {STOPS_CHAMPIONS} is set (`retrue unpin {model['name']}`)"
    # Which of them were kept after their probation the service alone knows; it refuses when none was.
    earlier = [
        row["version"] for row in versions if row["state"] == "retired" and row["version"] != champion["version"]
    ]
    if not earlier:
        return "refused: no version before this one can answer"
    probation = model.get("probation") or {}
    fate = "quarantined" if probation.get("state") == "watching" else "retired"
    known = ", ".join(map(str, earlier[:5]))
    return (
        f"goes to the last version that was kept (retired are {known}); version {champion['version']} is {fate}, "
        "and automatic promotion is held"
    )
