"""The closed loop on real data without HTTP: the decisions and the learning of the service, under a simulated clock.

Each week the champion answers; labels arrive a day late; a check looks at the newest window; what is decided is done.
Nothing sees a row before its event time, or a label before its delay is over. Beside it: the first version kept for
ever, and refits on a calendar.
"""

import argparse
import importlib
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.report import Section, Target, publish  # noqa: E402  the thread caps come before numpy

MODELS = ("electricity", "bikes")
SHORT = {"mean_absolute_error": "MAE"}
PARTS = ("ours", "calendars")
QUICK_WEEKS = 26
DELAY = "1d"
LIMITS = {"electricity": (0.750, 32), "bikes": (50.0, 24)}
"""Mean weekly accuracy at least, mean weekly absolute error at most; and promotions at most."""


def main() -> int:
    """Run both data sets, one process each, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help=f"only the first {QUICK_WEEKS} weeks; targets are not judged"
    )
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("--verbose", action="store_true", help="print every decision that led to a run")
    given = parser.parse_args()
    names = (given.model,) if given.model else MODELS
    weeks = QUICK_WEEKS if given.quick else None
    began = time.perf_counter()
    # The longest first, so that two workers end at about the same time.
    tasks = [(name, part) for part in PARTS for name in names]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_simulated, *zip(*tasks, strict=True), [weeks] * len(tasks)))
    results = [_joined([part for part in parts if part["model"] == name]) for name in names]
    if given.verbose:
        for result in results:
            print("\n".join(result["story"]))
    return publish(_section(results, given.quick, time.perf_counter() - began))


def _simulated(name: str, part: str, weeks: int | None) -> dict[str, Any]:
    """Return the figures of some policies on one data set; runs in its own process."""
    import pandas as pd

    from bench.decisions_policies import calendar, never
    from bench.simulation import Stream, ours

    os.chdir(ROOT)
    began = time.perf_counter()
    spec = importlib.import_module(f"models.{name}").spec
    stream = Stream.of(spec, pd.read_parquet(ROOT / spec.source), delay=DELAY, weeks=weeks)
    first = stream.first_version()
    story: list[str] = []
    if part == "ours":
        loop, story = ours(stream, first)
        policies = [never(stream, first), loop]
    else:
        policies = [
            calendar(stream, first, every=every, window=window) for every in (4, 13) for window in ("56d", "all")
        ]
    return {
        "model": name,
        "metric": stream.metric.name,
        "greater_is_better": stream.metric.greater_is_better,
        "weeks": stream.weeks,
        "rows": stream.served_rows,
        "policies": policies,
        "story": story,
        "seconds": round(time.perf_counter() - began, 1),
    }


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] | {
        "policies": [policy for part in parts for policy in part["policies"]],
        "seconds": round(sum(part["seconds"] for part in parts), 1),
    }


def _section(results: list[dict[str, Any]], quick: bool, seconds: float) -> Section:  # noqa: FBT001
    rows, targets, notes = [], [], []
    for result in results:
        rows += [_row(result, policy) for policy in result["policies"]]
        if not quick:
            targets += _targets(result)
        notes.append(
            f"{result['model']}: {result['weeks']} weeks, {result['rows']:,} answered rows, labels {DELAY} late, "
            f"{result['seconds']:.0f} s; drift verdicts: {result['policies'][1]['drifted']} of "
            f"{result['policies'][1]['checks']} windows"
        )
    notes.append("weekly: mean of the weekly values; kappa: against saying the same class as the row before.")
    notes.append("Both models run with the default policies of `service/domain/policy.py`.")
    return Section(
        name="loop",
        title="The closed loop on real data" + (f", first {QUICK_WEEKS} weeks" if quick else ""),
        columns=(
            "model",
            "policy",
            "metric",
            "weekly",
            "all rows",
            "kappa",
            "promoted",
            "retrains",
            "rejected",
            "inconclusive",
            "failed",
            "kept",
            "rolled back",
            "checks",
            "quarantined",
        ),
        rows=rows,
        targets=targets,
        notes=notes,
        libraries=("scikit-learn", "evidently", "numpy", "pandas"),
        figures={"quick": quick, "results": results},
        seconds=seconds,
    )


def _row(result: dict[str, Any], policy: dict[str, Any]) -> list[str]:
    digits = 4 if result["greater_is_better"] else 2
    kappa = policy["kappa"]
    counts = (
        "promotions",
        "retrains",
        "rejected",
        "inconclusive",
        "failed",
        "kept",
        "rolled_back",
        "checks",
        "quarantined",
    )
    return [
        result["model"],
        policy["policy"],
        SHORT.get(result["metric"], result["metric"]),
        f"{policy['weekly']:.{digits}f}",
        f"{policy['overall']:.{digits}f}",
        "–" if kappa is None else f"{kappa:.3f}",
        *("–" if policy[count] is None else str(policy[count]) for count in counts),
    ]


def _targets(result: dict[str, Any]) -> list[Target]:
    limit, most = LIMITS[result["model"]]
    loop = result["policies"][1]
    better = result["greater_is_better"]
    good = loop["weekly"] >= limit if better else loop["weekly"] <= limit
    sign = "≥" if better else "≤"
    digits = 4 if better else 2
    return [
        Target(
            words=f"{result['model']}: mean weekly {result['metric']} {loop['weekly']:.{digits}f} {sign} {limit:g}",
            met=good,
        ),
        Target(words=f"{result['model']}: {loop['promotions']} promotions ≤ {most}", met=loop["promotions"] <= most),
    ]


if __name__ == "__main__":
    sys.exit(main())
