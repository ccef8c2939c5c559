"""Accuracy for its cost: every policy's quality against its promotions, on shipped and on generated streams.

Fixed before: labels a day late (at once, and a week late: the part `delays`); calendars of 1, 2, 4, 8 and 13 weeks on 8
weeks and on all rows; the plain trigger at 0, 10, 20 and 30 %; random moments at our count, three seeds; Evidently's
default rule; ours, one default policy for all streams, and the curve that one knob draws around it (see `KNOB`). The
generated streams of the seeds 0 and 1 were looked at by nobody before the policy stood.
"""

import importlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.decisions_policies import at_random, calendar, evidently_trigger, never, plain_trigger
from bench.decisions_rates import best_within, dominated
from bench.decisions_worlds import KINDS, world
from bench.remembered import Remembered, fits, forget
from bench.report import Section, Target
from bench.simulation import Stream, ours
from service.spec import ModelSpec

__all__ = ["jobs", "run", "section"]

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("electricity", "bikes")
PROMISED_DELAY = "1d"
CALENDARS = (1, 2, 4, 8, 13)
HISTORIES = ("56d", "all")
RISES = (0.0, 0.1, 0.2, 0.3)
RANDOM_SEEDS = 3
QUICK_WEEKS = 26
KNOB = (5, 8)
"""The pace: weeks of cooldown, and half the age at which a champion is due. The default, 3, is one more point."""
PROMISES = {"electricity": ((16, 0.762), (32, 0.770)), "bikes": ((12, 40.0),)}
"""Promotions at most, and the quality that some point of our curve must reach with them."""

Job = tuple[str, int, tuple[str, ...], bool]


def jobs(*, quick: bool, seed: int) -> list[Job]:
    """Return what can run side by side, the longest first: stream, seed, delays, whether it is quick."""
    if quick:
        return [(name, seed, (PROMISED_DELAY,), True) for name in (*SHIPPED, "abrupt", "stationary")]
    return [(name, seed, (PROMISED_DELAY,), False) for name in (*SHIPPED, *KINDS)]


def run(job: Job) -> list[dict[str, Any]]:
    """Return the points of all policies on one stream; runs in its own process."""
    name, seed, delays, quick = job
    spec, source, changes = _source(name, seed)
    found = []
    for delay in delays:
        began = time.perf_counter()
        stream = Stream.of(spec, source, delay=delay, weeks=QUICK_WEEKS if quick else None)
        points = [_point(kind, figures) for kind, figures in _policies(stream, seed, every_week=delay == "1d")]
        found.append(
            {
                "stream": name,
                "delay": delay,
                "weeks": stream.weeks,
                "metric": stream.metric.name,
                "greater_is_better": stream.metric.greater_is_better,
                "changes": list(changes),
                "points": points,
                "fits": fits(),
                "seconds": round(time.perf_counter() - began, 1),
            }
        )
    forget()
    return found


def _source(name: str, seed: int) -> tuple[ModelSpec, pd.DataFrame, tuple[float, ...]]:
    if name in SHIPPED:
        spec: ModelSpec = importlib.import_module(f"models.{name}").spec
        return _remembering(spec), pd.read_parquet(ROOT / spec.source), ()
    generated = world(name, seed=seed)
    return _remembering(generated.spec), generated.source, generated.changes


def _remembering(spec: ModelSpec) -> ModelSpec:
    build = spec.build
    return replace(spec, build=lambda: Remembered(build()))


def _policies(stream: Stream, seed: int, *, every_week: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    first = stream.first_version()
    yield "never", never(stream, first)
    for history in HISTORIES:
        for every in CALENDARS:
            if every > 1 or every_week:
                yield "calendar", calendar(stream, first, every=every, window=history)
    for rise in RISES:
        yield "plain", plain_trigger(stream, first, rise=rise)
    yield "evidently", evidently_trigger(stream, first)
    default, _ = ours(stream, first)
    yield "ours", default
    for number in range(RANDOM_SEEDS):
        yield "random", at_random(stream, first, count=default["promotions"], seed=seed + number)
    for pace in KNOB:
        figures, _ = ours(with_knob(stream, pace), first)
        yield "curve", figures | {"policy": f"Retrue, pace {pace}"}


def with_knob(stream: Stream, pace: int) -> Stream:
    """Return the stream with the knob of the curve turned: all else stays the default."""
    retrain = replace(stream.spec.retrain, cooldown=f"{7 * pace}d", max_age=f"{14 * pace}d")
    return replace(stream, spec=replace(stream.spec, retrain=retrain))


def _point(kind: str, figures: dict[str, Any]) -> dict[str, Any]:
    keep = ("policy", "weekly", "kappa", "promotions", "retrains")
    return {"kind": kind} | {name: figures[name] for name in keep}


def section(
    results: list[list[dict[str, Any]]], *, quick: bool, seconds: float, name: str = "streams", more: str = ""
) -> Section:
    """Return the table, the targets and every loss."""
    flat = [one for several in results for one in several]
    rows: list[list[str]] = []
    targets: list[Target] = []
    losses: list[str] = []
    for one in flat:
        rows += [_row(one, point) for point in one["points"] if point["kind"] != "random"]
        rows.append(_random_row(one))
        if not quick:
            met, lost = _compared(one)
            targets += met
            losses += lost
    notes = [
        f"{one['stream']}, labels {one['delay']} late: {one['weeks']} weeks, {one['seconds']:.0f} s"
        + (f"; the concept changes in the weeks {', '.join(f'{at:g}' for at in one['changes'])}" * bool(one["changes"]))
        for one in flat
    ]
    notes.append(
        "Retrue without more words is the default policy, the same for all; the pace is its one knob: weeks of "
        "cooldown, and half the age at which a champion is due."
    )
    notes.append("Random, plain and Evidently refit what a holdout chose out of the same histories; they have no gate.")
    notes += losses or ["No point of a rival lies outside our curve."] * (not quick)
    return Section(
        name=f"decisions_{name}",
        title=f"Decisions: accuracy for its cost{more}" + (" (quick)" if quick else ""),
        columns=("stream", "delay", "policy", "metric", "weekly", "promoted", "runs", "kappa"),
        rows=rows,
        targets=targets,
        notes=notes,
        libraries=("scikit-learn", "evidently", "numpy", "pandas"),
        figures={"quick": quick, "results": flat},
        seconds=seconds,
    )


def _row(one: dict[str, Any], point: dict[str, Any]) -> list[str]:
    kappa = point["kappa"]
    return [
        one["stream"],
        one["delay"],
        point["policy"],
        "accuracy" if one["greater_is_better"] else "MAE",
        _figure(one, point["weekly"]),
        str(point["promotions"]),
        str(point["retrains"]),
        "–" if kappa is None else f"{kappa:.3f}",
    ]


def _figure(one: dict[str, Any], value: float) -> str:
    return f"{value:.4f}" if one["greater_is_better"] else f"{value:.2f}"


def _random_row(one: dict[str, Any]) -> list[str]:
    values = sorted(point["weekly"] for point in one["points"] if point["kind"] == "random")
    counts = {point["promotions"] for point in one["points"] if point["kind"] == "random"}
    words = f"random moments, {len(values)} seeds: worst to best"
    if not one["greater_is_better"]:
        values.reverse()
    spread = f"{_figure(one, values[0])} to {_figure(one, values[-1])}"
    kind = "accuracy" if one["greater_is_better"] else "MAE"
    return [one["stream"], one["delay"], words, kind, spread, str(max(counts)), str(max(counts)), "–"]


def _compared(one: dict[str, Any]) -> tuple[list[Target], list[str]]:
    """Return the targets of one stream, and in words every point of a rival that ours does not reach."""
    better, where = one["greater_is_better"], f"{one['stream']}, {one['delay']}"
    curve = [(p["promotions"], p["weekly"]) for p in one["points"] if p["kind"] in {"ours", "curve"}]
    default = next((p["promotions"], p["weekly"]) for p in one["points"] if p["kind"] == "ours")
    targets, lost = [], []
    if one["delay"] == PROMISED_DELAY:
        for most, least in PROMISES.get(one["stream"], ()):
            reached = best_within(curve, most, greater_is_better=better)
            met = reached is not None and (reached >= least if better else reached <= least)
            words = "none" if reached is None else _figure(one, reached)
            targets.append(Target(words=f"{where}: {words} against {least:g} with ≤ {most} promotions", met=met))
    for kind, words in (("calendar", "every N weeks"), ("plain", "the plain trigger")):
        points = [p for p in one["points"] if p["kind"] == kind]
        missed = [p for p in points if not dominated(curve, (p["promotions"], p["weekly"]), greater_is_better=better)]
        lost += [f"Lost, {where}: {p['policy']} has {_figure(one, p['weekly'])} with {p['promotions']}" for p in missed]
        done = len(points) - len(missed)
        targets.append(Target(words=f"{where}: {words} dominated at {done} of {len(points)} points", met=not missed))
    targets += _at_default(one, default, where=where)
    return targets, lost


def _at_default(one: dict[str, Any], default: tuple[int, float], *, where: str) -> list[Target]:
    better = one["greater_is_better"]
    chance = sorted(p["weekly"] for p in one["points"] if p["kind"] == "random")
    middle = chance[len(chance) // 2]
    ahead = default[1] >= middle if better else default[1] <= middle
    words = f"{where}: {_figure(one, default[1])} against {_figure(one, middle)} of random moments at equal count"
    found = [Target(words=words, met=ahead)]
    rival = next(p for p in one["points"] if p["kind"] == "evidently")
    level = default[1] >= rival["weekly"] if better else default[1] <= rival["weekly"]
    words = (
        f"{where}: {_figure(one, default[1])} with {default[0]} against {_figure(one, rival['weekly'])} with "
        f"{rival['promotions']} of Evidently's default rule"
    )
    return [*found, Target(words=words, met=level or default[0] < rival["promotions"])]
