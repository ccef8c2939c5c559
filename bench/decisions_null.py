"""False alarms: six kinds of rows in which nothing drifts, windows of 100 to 5,000 rows, ours beside four rivals.

Fixed before: a window is a day; a reference is 56 days; every reference is followed by 14 clean windows; the budget is
the default policy's; per kind and size 10 references (5 with 5,000 rows). A threshold is as lucky as its reference, so
intervals are taken over references, and the binomial one, which takes every window for a draw of its own, is printed
beside it. Judged in every case: the stated level lies in the 95 % interval of the realised rate.
"""

import time
from typing import Any

import numpy as np

from bench.decisions_ours import Ours
from bench.decisions_rates import Rate, confirmed_alarms, poisson_interval, rate_of
from bench.decisions_rivals import NAMES, Rivals, proof
from bench.decisions_rows import KINDS, columns_of, rows_of, schema_of, weights
from bench.report import Section, Target
from service.domain.policy import Drift

__all__ = ["jobs", "run", "section"]

SIZES = (100, 500, 1_000, 5_000)
REFERENCE, TESTED = 56, 14
REFERENCES, FEW_REFERENCES = 10, 5
QUICK_SIZES, QUICK_REFERENCES = (100, 500), 3
PROVED = 2
"""Windows a case on which the rivals' fast figures are compared with Evidently's own."""
EQUAL = 1e-9

Job = tuple[str, int, int, int]


def jobs(*, quick: bool, seed: int) -> list[Job]:
    """Return the cases, the longest first: kind, rows a window, references, seed."""
    sizes = QUICK_SIZES if quick else SIZES
    many = {size: QUICK_REFERENCES if quick else REFERENCES if size < max(SIZES) else FEW_REFERENCES for size in sizes}
    return [(kind, size, many[size], seed) for size in sorted(sizes, reverse=True) for kind in KINDS]


def run(job: Job) -> dict[str, Any]:
    """Return alarms of all detectors for one kind and size; runs in its own process."""
    kind, size, references, seed = job
    began = time.perf_counter()
    parts = [_one(kind, size, np.random.default_rng([seed, KINDS.index(kind), size, n]), n) for n in range(references)]
    return {
        "kind": kind,
        "rows": size,
        "ours": [part["ours"] for part in parts],
        "rivals": [part["rivals"] for part in parts],
        "level": float(np.mean([part["level"] for part in parts])),
        "blocks": min(part["blocks"] for part in parts),
        "uncalibrated": sum(part["state"] != "calibrated" for part in parts),
        "expected": float(np.sum([part["expected"] or 0.0 for part in parts])),
        "confirm": Drift().confirm,
        "error": max(part["error"] for part in parts),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _one(kind: str, size: int, random: np.random.Generator, number: int) -> dict[str, Any]:
    """Return what one reference and the windows after it give."""
    schema = schema_of(kind)
    kinds = columns_of(schema)
    rows = rows_of(kind, REFERENCE + TESTED, rows=size, random=random)
    reference, later = rows.iloc[: REFERENCE * size], rows.iloc[REFERENCE * size :]
    windows = [later.iloc[place * size : (place + 1) * size] for place in range(TESTED)]
    ours = Ours.of(schema, reference, weights(), policy=Drift(window="1d"))
    tests = [ours.look(window)[1] for window in windows]
    rivals = Rivals.of(reference, kinds, rows=size)
    family = np.array([rivals.family(rivals.measured(window, tuple(kinds))) for window in windows])
    error = 0.0
    if number == 0:
        error = max(proof(reference, window, kinds) for window in windows[:PROVED])
    first = tests[0]
    return {
        "ours": [test.statistic >= test.threshold for test in tests],
        "rivals": (family >= 1).T.tolist(),
        "level": first.level,
        "blocks": first.blocks,
        "state": first.state,
        "expected": None if first.expected_alarms is None else first.expected_alarms * TESTED / 90,
        "error": error,
    }


def section(results: list[dict[str, Any]], *, quick: bool, seconds: float) -> Section:
    """Return the table, one row per kind and size."""
    ordered = sorted(results, key=lambda one: (KINDS.index(one["kind"]), one["rows"]))
    rows, targets = [], []
    for one in ordered:
        rate = rate_of(np.array(one["ours"]))
        rivals = np.array(one["rivals"])  # references, rivals, windows
        rows.append([*_row(one, rate), *(f"{rivals[:, place].mean():.3f}" for place in range(len(NAMES)))])
        within = rate.low <= one["level"] <= rate.high
        words = f"{one['kind']}, {one['rows']:,} rows: level {one['level']:.3f} in [{rate.low:.3f}, {rate.high:.3f}]"
        targets.append(Target(words=words, met=within))
    targets.append(_confirmed(ordered))
    worst = max(one["error"] for one in ordered)
    targets.append(
        Target(words=f"rivals' fast figures are Evidently's: largest difference {worst:.1e}", met=worst < EQUAL)
    )
    above = sum(one["level"] < rate_of(np.array(one["ours"])).low for one in ordered)
    notes = [
        f"{TESTED} clean windows of a day after each reference of {REFERENCE} days; rates are per check.",
        "Interval: over references, whose luck their windows share; in brackets the binomial one over windows.",
        f"More false alarms than stated beyond chance: {above} of {len(ordered)} cases. With 24 honest cases about one "
        "interval of 95 % misses its level by chance alone.",
        "Rivals: alarm at their own defaults; KS + Bonferroni at 0.05 over all columns; 3 sigma over 10 chunks.",
        f"Fewest calibration windows: {min(one['blocks'] for one in ordered)}; references that stayed uncalibrated: "
        f"{sum(one['uncalibrated'] for one in ordered)} of {sum(len(one['ours']) for one in ordered)}.",
    ]
    return Section(
        name="decisions_null",
        title="Decisions: false alarms where nothing drifts" + (" (quick)" if quick else ""),
        columns=("rows", "window", "stated level", "realised", "95 % interval", "confirmed", "expected", *NAMES),
        rows=rows,
        targets=() if quick else targets,
        notes=notes,
        libraries=("evidently", "scipy", "numpy"),
        figures={"quick": quick, "results": ordered},
        seconds=seconds,
    )


def _row(one: dict[str, Any], rate: Rate) -> list[str]:
    confirmed = sum(confirmed_alarms(np.array(alarms), one["confirm"]) for alarms in one["ours"])
    return [
        one["kind"],
        f"{one['rows']:,}",
        f"{one['level']:.3f}",
        f"{rate.value:.3f}",
        f"{rate.low:.3f} to {rate.high:.3f} [{rate.binomial_low:.3f} to {rate.binomial_high:.3f}]",
        str(confirmed),
        f"{one['expected']:.1f}",
    ]


def _confirmed(results: list[dict[str, Any]]) -> Target:
    count = sum(confirmed_alarms(np.array(alarms), one["confirm"]) for one in results for alarms in one["ours"])
    expected = sum(one["expected"] for one in results)
    low, high = poisson_interval(count)
    days = sum(len(one["ours"]) for one in results) * TESTED
    words = (
        f"confirmed alarms in {days:,} clean days: {count}, [{low:.1f}, {high:.1f}]; stated {expected:.1f}; "
        f"the budget allows {days / 90:.0f}"
    )
    return Target(words=words, met=low <= expected <= high)
