"""Broken data: what is quarantined, what is called broken though it only moved, what is learned from what is missed.

Fixed before: 17 kinds of corruption in the newest 10, 50 and 100 % of a week's rows, at five onsets, on the two shipped
streams and on two made up; every kind of drift in `bench.corruptions` at each of 10 onsets as the other class. Default
quality policy, eight weeks of reference. A kind that a stream has no column for is left out. Every missed window is
learned from as the service would: does a challenger that learned it pass the gate?
"""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bench.broken_streams import NAMES, Source, source_of
from bench.corruptions import CORRUPTIONS, DRIFTS, Case, label_corruptions
from bench.report import Section, Target
from service.domain.check import Verdict
from service.domain.errors import TrainingFailed
from service.domain.gate import Outcome
from service.learning.examine import examine, reference_rows
from service.learning.frames import EVENT_TIME
from service.learning.quality import look
from service.learning.train import Challenge, challenge

__all__ = ["jobs", "run", "section"]

SHARES = (0.1, 0.5, 1.0)
ONSETS, DRIFT_ONSETS = 5, 10
LEARNED = 6
"""Missed windows per stream from which a challenger is learned, at most."""
BROKEN, CLEAN = 0.95, 0.01

Job = tuple[str, int, bool]


def jobs(*, quick: bool, seed: int) -> list[Job]:
    """Return one job per stream."""
    return [(name, seed, quick) for name in NAMES]


def run(job: Job) -> dict[str, Any]:
    """Return what became of one stream's windows; runs in its own process."""
    name, seed, quick = job
    source = source_of(name)
    random = np.random.default_rng(seed)
    onsets = 2 if quick else ONSETS
    cells: list[dict[str, Any]] = []
    missed: list[tuple[str, float, Case, pd.DataFrame]] = []
    for turn, until in enumerate(source.ends(onsets)):
        reference, window = source.split(until)
        for share in SHARES:
            case = Case(schema=source.schema, reference=reference, window=window, share=share, turn=turn)
            for kind, breaks in CORRUPTIONS.items():
                broken = _broken(breaks, case)
                if broken is None:
                    continue
                found = look(
                    source.schema, source.spec.quality, reference=reference, window=broken[0], stragglers=broken[1]
                )
                cells.append(_cell(name, kind, share, turn, [one.check for one in found]))
                if not found:
                    missed.append((kind, share, case, broken[0]))
        if turn < (1 if quick else 2):
            cells += _labels(source, reference, window, turn)
    return {
        "stream": name,
        "cells": cells,
        "drift": _drift(source, random, 2 if quick else DRIFT_ONSETS),
        "learned": [] if quick else _learned(source, missed),
    }


def _broken(breaks: Any, case: Case) -> Any:
    try:
        return breaks(case)
    except (IndexError, ValueError):
        return None  # the stream has no such column


def _cell(stream: str, kind: str, share: float, turn: int, found: list[str]) -> dict[str, Any]:
    return {"stream": stream, "kind": kind, "share": share, "turn": turn, "found": found}


def _first(source: Source, reference: pd.DataFrame) -> Challenge:
    spec = replace(source.spec, training=replace(source.spec.training, windows=("all",)))
    until = reference[EVENT_TIME].iloc[-1].to_pydatetime()
    return challenge(spec, source.schema, reference, champion=None, until=until, seed=0)


def _labels(source: Source, reference: pd.DataFrame, window: pd.DataFrame, turn: int) -> list[dict[str, Any]]:
    """Break the labels that a champion's answers meet, and let a whole check look at them."""
    first = _first(source, reference)
    output, probabilities = first.predictor.answer(window)
    answered = window.assign(output=output)
    if probabilities is not None:
        answered["probabilities"] = list(probabilities)
    kept = reference_rows(source.spec.drift, reference, first.predictor)
    cells = []
    for share in SHARES:
        for kind, broken in label_corruptions(answered, share).items():
            seen = examine(
                first.predictor.schema,
                quality=source.spec.quality,
                drift=source.spec.drift,
                metric=source.spec.metric,
                reference=kept,
                window=broken,
                answered=broken,
                reference_loss=first.metrics["loss"],
                baseline=first.metrics["baseline"],
            )
            found = [one.check for one in seen.findings] if seen.verdict is Verdict.QUARANTINED else []
            cells.append(_cell(source.spec.name, kind, share, turn, found))
    return cells


def _drift(source: Source, random: np.random.Generator, onsets: int) -> list[dict[str, Any]]:
    cells = []
    for turn, until in enumerate(source.ends(onsets)):
        reference, window = source.split(until)
        case = Case(schema=source.schema, reference=reference, window=window, share=1.0, turn=turn)
        for kind, moves in DRIFTS.items():
            found = look(
                source.schema, source.spec.quality, reference=reference, window=moves(case, random), stragglers=None
            )
            cells.append(_cell(source.spec.name, kind, 1.0, turn, [f"{one.check} {one.column}" for one in found]))
    return cells


def _learned(source: Source, missed: list[tuple[str, float, Case, pd.DataFrame]]) -> list[dict[str, Any]]:
    """Let a challenger learn what was missed, the largest first, and the gate judge it against a sound champion."""
    out = []
    for kind, share, case, window in sorted(missed, key=lambda one: -one[1])[:LEARNED]:
        first = _first(source, case.reference)
        rows = pd.concat([case.reference, window]).sort_values(EVENT_TIME, kind="stable")
        until = rows[EVENT_TIME].iloc[-1].to_pydatetime()
        try:
            challenger = challenge(source.spec, source.schema, rows, champion=first.predictor, until=until, seed=0)
            outcome = challenger.gate.outcome
        except TrainingFailed:
            outcome = Outcome.FAIL
        out.append({"kind": kind, "share": share, "turn": case.turn, "outcome": outcome.value})
    return out


def section(results: list[dict[str, Any]], *, quick: bool, seconds: float) -> Section:
    """Return the table: one row per kind, quarantined of all by severity, and what it was called."""
    cells = [cell for result in results for cell in result["cells"]]
    drift = [cell for result in results for cell in result["drift"]]
    learned = [one | {"stream": result["stream"]} for result in results for one in result["learned"]]
    rows = [_row(kind, [cell for cell in cells if cell["kind"] == kind]) for kind in dict.fromkeys(_kinds(cells))]
    rows.append(_row("all kinds", cells))
    rows += [
        _row(f"drift: {kind}", [cell for cell in drift if cell["kind"] == kind])
        for kind in dict.fromkeys(_kinds(drift))
    ]
    caught = sum(bool(cell["found"]) for cell in cells) / max(len(cells), 1)
    false = sum(bool(cell["found"]) for cell in drift) / max(len(drift), 1)
    promoted = [one for one in learned if one["outcome"] == Outcome.PASS.value]
    targets = [
        Target(words=f"{caught:.1%} of {len(cells)} broken windows quarantined ≥ {BROKEN:.0%}", met=caught >= BROKEN),
        Target(
            words=f"{false:.1%} of {len(drift)} windows of clean drift quarantined ≤ {CLEAN:.0%}", met=false <= CLEAN
        ),
        Target(
            words=f"{len(promoted)} of {len(learned)} challengers that learned a missed window promoted",
            met=not promoted,
        ),
    ]
    return Section(
        name="decisions_broken",
        title="Broken data" + (", quick" if quick else ""),
        columns=("kind", "10 % of the rows", "50 %", "100 %", "found as"),
        rows=rows,
        targets=() if quick else targets,
        notes=_notes(cells, drift, learned),
        libraries=("scikit-learn", "numpy", "pandas"),
        figures={"cells": cells, "drift": drift, "learned": learned},
        seconds=seconds,
    )


def _kinds(cells: list[dict[str, Any]]) -> list[str]:
    return [cell["kind"] for cell in cells]


def _row(name: str, cells: list[dict[str, Any]]) -> list[str]:
    words = []
    for share in SHARES:
        own = [cell for cell in cells if cell["share"] == share]
        words.append(f"{sum(bool(cell['found']) for cell in own)} of {len(own)}" if own else "–")
    names: dict[str, int] = defaultdict(int)
    for cell in cells:
        for check in cell["found"][:1]:
            names[check] += 1
    most = sorted(names, key=lambda check: -names[check])[:4]
    return [name, *words, ", ".join(most) or "–"]


def _notes(cells: list[dict[str, Any]], drift: list[dict[str, Any]], learned: list[dict[str, Any]]) -> list[str]:
    missed: dict[str, list[str]] = defaultdict(list)
    for cell in cells:
        if not cell["found"]:
            missed[f"{cell['kind']} {cell['share']:.0%}"].append(cell["stream"])
    false = sorted(
        {f"{cell['stream']}: {cell['kind']} ({', '.join(cell['found'])})" for cell in drift if cell["found"]}
    )
    by_share = {share: [bool(cell["found"]) for cell in cells if cell["share"] == share] for share in SHARES}
    return [
        "quarantined by share of the rows: "
        + ", ".join(f"{share:.0%}: {np.mean(own):.1%}" for share, own in by_share.items() if own),
        "missed: "
        + ("; ".join(f"{what} ({', '.join(sorted(set(who)))} {len(who)})" for what, who in missed.items()) or "none"),
        "clean drift that was quarantined: " + ("; ".join(false) or "none"),
        "challengers that learned a missed window, by the gate: "
        + (
            ", ".join(f"{one['stream']} {one['kind']} {one['share']:.0%} {one['outcome']}" for one in learned) or "none"
        ),
    ]
