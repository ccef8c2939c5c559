"""What a run of `bench/swaps.py` has brought: every answer judged, and the table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.openloop import Sent
from bench.report import Section, Target
from bench.swaps_versions import Told
from service.client import Json
from service.storage.champions import Swap

__all__ = ["FAR_S", "Found", "judge", "section"]

OK = 200
NEAR_S = 0.25
FAR_S = 2.0
WARM_S = 3.0
"""The first seconds warm both sides up."""
RATIO, GROWTH, SETTLE_S = 1.5, 1.10, 1.0
CALM, NEAR = "away from swaps", f"within {NEAR_S * 1e3:.0f} ms of a commit"

Floats = NDArray[np.float64]


@dataclass
class Found:
    """What the run has brought."""

    sent: list[Sent]
    swaps: list[Swap]
    settled_s: list[float]
    settled_from: str
    memory: dict[int, list[tuple[int, int]]]
    """Swaps so far → resident and private dirty bytes of each worker."""
    told: dict[int, Told]
    """What each version answers to the known rows."""
    requests: list[list[int]]
    """Which rows each payload holds."""
    swapping_s: float
    lake: dict[str, list[tuple[int, int, Any]]] = field(default_factory=dict)
    """Version, generation and output by id."""


def judge(found: Found) -> dict[str, int]:
    """Return the counts of answers by what is wrong with them, and of those whose figures fit one version alone."""
    generations = {swap.generation: swap.version for swap in found.swaps} | {1: 1}
    counts = dict.fromkeys(("failed", "unknown", "wrong", "unrecorded", "answers", "rows", "only_one"), 0)
    for one in found.sent:
        if one.status != OK:
            counts["failed"] += 1
            continue
        answer: Json = msgspec.json.decode(one.body)
        places, version = found.requests[one.payload], answer["version"]
        counts["answers"] += 1
        counts["rows"] += len(places)
        if generations.get(answer["generation"]) != version:
            counts["unknown"] += 1
            continue
        fits = [number for number, told in found.told.items() if _is_equal(answer, told, places)]
        counts["wrong"] += version not in fits
        counts["only_one"] += fits == [version]
        is_recorded = all(
            found.lake.get(one_id) == [(version, answer["generation"], output)]
            for one_id, output in zip(answer["ids"], answer["predictions"], strict=True)
        )
        counts["unrecorded"] += not is_recorded
    return counts


def section(found: Found, *, count: int, rate: float, quick: bool, code: int, seconds: float) -> Section:
    """Return the table with its targets."""
    counts, latencies = judge(found), _latencies(found)
    early = min(100, count // 2)
    ratio = _share(latencies[NEAR], 99) / _share(latencies[CALM], 99)
    growth = max(after[1] / before[1] for before, after in zip(found.memory[early], found.memory[count], strict=True))
    settle_s = _share(np.array(found.settled_s), 99)
    wrong = counts["wrong"] + counts["unknown"]
    targets = (
        (f"{len(found.swaps)} of {count} swaps committed", len(found.swaps) == count),
        (f"{counts['failed']} of {len(found.sent):,} requests failed", counts["failed"] == 0),
        (f"{wrong} answers are not bit-equal to the version that they name", wrong == 0),
        (f"{counts['unrecorded']} answers are not in the lake once, as answered", counts["unrecorded"] == 0),
        (f"p99 near a swap / away from swaps: {ratio:.2f} ≤ {RATIO}", ratio <= RATIO),
        (f"private memory of a worker, swap {count} / swap {early}: {growth:.3f} ≤ {GROWTH}", growth <= GROWTH),
        (f"commit to last worker, p99: {settle_s:.2f} s ≤ {SETTLE_S:g} s", settle_s <= SETTLE_S),
        (f"the service left with exit code {code}", code == 0),
    )
    return Section(
        name="swaps",
        title=f"{count:,} swaps under load" + (" (quick)" if quick else ""),
        columns=("requests", "n", "p50 ms", "p99 ms", "p99.9 ms", "max ms"),
        rows=[[name, f"{len(values):,}", *_figures(values)] for name, values in latencies.items()],
        targets=[Target(words=words, met=bool(met)) for words, met in targets],
        notes=_notes(found, counts, count=count, rate=rate),
        libraries=("scikit-learn", "uvicorn", "numpy"),
        figures={
            "quick": quick,
            "counts": counts,
            "ratio": ratio,
            "growth": growth,
            "memory": {str(at): sizes for at, sizes in found.memory.items()},
            "settle_s": {str(share): _share(np.array(found.settled_s), share) for share in (50, 90, 99, 100)},
            "latency_ms": {name: _figures(values) for name, values in latencies.items()},
        },
        seconds=seconds,
    )


def _notes(found: Found, counts: dict[str, int], *, count: int, rate: float) -> Sequence[str]:
    rollbacks = sum(swap.kind == "rollback" for swap in found.swaps)
    settled = np.array(found.settled_s) * 1e3
    took = np.array(
        [(s.ended_at - s.created_at).total_seconds() for s in found.swaps if s.ended_at and s.kind != "rollback"]
    )
    lateness = np.percentile([one.late_s for one in found.sent], 99) * 1e3
    wanted = sorted(found.memory)
    some = [at for at in wanted if at in {wanted[0], wanted[-1]} or at % (max(count // 5, 1)) == 0]
    memory = (f"{at}: {', '.join(f'{dirty / 2**20:.0f}' for _, dirty in found.memory[at])}" for at in some)
    return (
        f"open loop, {rate:g} requests/s of 1-4 rows to 2 workers, {len(found.told)} versions "
        f"({sum(told.is_compiled for told in found.told.values())} of them compiled); a latency counts from "
        f"the moment the request was due; the client itself was late by {lateness:.1f} ms (p99)",
        f"{len(found.swaps) - rollbacks} promotions by agreement, {rollbacks} rollbacks; from asking "
        f"to commit p50 {np.median(took):.2f} s, max {took.max():.2f} s; "
        f"{found.swapping_s / count * 1e3:.0f} ms a swap, pauses included; commit to last worker p50 "
        f"{np.percentile(settled, 50):.0f} ms, max {settled.max():.0f} ms (from {found.settled_from})",
        f"{counts['rows']:,} rows answered; the figures of {counts['only_one'] / max(counts['answers'], 1):.1%} of the "
        "answers fit no other version than the one they name",
        f"private memory of each worker, MiB, at swap {'; '.join(memory)}",
    )


def _is_equal(answer: Json, told: Told, places: list[int]) -> bool:
    """Return whether the answer is, bit by bit, what the version answers to these rows: in a block, or alone."""
    found = np.asarray(answer["probabilities"])
    fits = (found == told.probabilities[places]) | (found == told.alone[places])
    return answer["predictions"] == [told.outputs[row] for row in places] and bool(fits.all())


def _latencies(found: Found) -> dict[str, Floats]:
    due = np.array([one.due for one in found.sent])
    latency = np.array([one.latency_s for one in found.sent])
    commits = np.array([swap.ended_at.timestamp() for swap in found.swaps if swap.ended_at is not None])
    asked = np.array([swap.created_at.timestamp() for swap in found.swaps])
    warm = due > due[0] + WARM_S
    # Swaps do not overlap: the last one that was asked for before a request is the one that may be under way.
    last = np.searchsorted(asked, due, side="right") - 1
    preparing = (last >= 0) & (due <= commits[last.clip(0)])
    gap = np.minimum(_distance(due, commits), _distance(due, asked))
    return {
        CALM: latency[(gap > FAR_S) & warm],
        NEAR: latency[_distance(due, commits) <= NEAR_S],
        "while workers get ready for one": latency[preparing],
        f"within {FAR_S:g} s of a commit": latency[_distance(due, commits) <= FAR_S],
        "all": latency[warm],
    }


def _distance(moments: Floats, points: Floats) -> Floats:
    after = np.searchsorted(points, moments).clip(0, len(points) - 1)
    before = (after - 1).clip(0)
    nearest: Floats = np.minimum(np.abs(points[after] - moments), np.abs(points[before] - moments))
    return nearest


def _share(values: Floats, share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else float("nan")


def _figures(values: Floats) -> list[str]:
    return [f"{_share(values, share) * 1e3:.1f}" for share in (50, 99, 99.9, 100)]
