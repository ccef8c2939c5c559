"""Can its decisions be trusted? False alarms, delay, broken data, accuracy for its cost, and what a check costs.

Everything is seeded; what counts as met was fixed before, and stands at the head of each part's file. All parts take
at most 10 minutes on two cores; every loss is printed beside the wins.
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.report import publish  # noqa: E402  the thread caps come before numpy

PARTS = {
    "null": "false alarms where nothing drifts, beside four rivals",
    "power": "delay until an injected shift is seen, at equal false alarms",
    "broken": "broken data: what is quarantined, what is learned from",
    "streams": "accuracy against promotions, beside calendars and triggers",
    "delays": "the same where labels come at once, or a week late",
    "cost": "a check of a million rows, beside Evidently's preset",
}
ASKED = ("delays",)
"""Only when named: it takes half an hour."""
ALONE = ("cost",)
"""Measured with nothing beside it."""
BOUND_S, QUICK_BOUND_S = 600.0, 120.0


def main() -> int:
    """Run the parts, publish one section each, and return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be given more than once")
    parser.add_argument("--quick", action="store_true", help="small sizes; targets are not judged")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    given = parser.parse_args()
    names = [name for name in PARTS if name in (given.part or [name for name in PARTS if name not in ASKED])]
    for name in names:
        print(f"plan: {name}: {PARTS[name]}")
    began, code = time.perf_counter(), 0
    for name in names:
        part = importlib.import_module(f"bench.decisions_{name}")
        started = time.perf_counter()
        results = _results(name, part, quick=given.quick, seed=given.seed)
        spent = time.perf_counter() - started
        code = max(code, publish(part.section(results, quick=given.quick, seconds=spent)))
    spent, bound = time.perf_counter() - began, QUICK_BOUND_S if given.quick else BOUND_S
    print(f"{spent:.0f} s in all; the bound is {bound:.0f} s on two cores with nothing beside it")
    return code


def _results(name: str, part: Any, *, quick: bool, seed: int) -> list[Any]:
    """Return what the part's jobs give, in their order, and tell of each as it ends."""
    jobs = part.jobs(quick=quick, seed=seed)
    found = []
    for number, result in enumerate(_done(name, part.run, jobs), start=1):
        found.append(result)
        print(f"{name}: {number} of {len(jobs)} done", flush=True)
    return found


def _done(name: str, work: Any, jobs: list[Any]) -> Iterator[Any]:
    if name in ALONE:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, jobs)


if __name__ == "__main__":
    sys.exit(main())
