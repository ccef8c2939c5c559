"""The table of `bench/serving_spikes.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.openloop import Sent
from bench.report import Section, Target
from bench.serving_load import Load
from bench.serving_site.sitecustomize import LONG_S
from bench.serving_start import SHUNNED, Start

__all__ = ["Pause", "Spikes", "Stretch", "section"]

OK = 200
RECORDING, BUSY, NEAR_SWAP, PAUSE_MS = 0.2, 1.25, 1.5, 10.0
NEAR_S = 1.0
"""Before and after a commit: the two seconds around a swap."""
LIMITS = {"compiled": (2.0, 150.0), "plain": (5.0, 260.0)}
WORDS = {"compiled": "every version compiled", "plain": "compiling off"}

Floats = NDArray[np.float64]


class Stretch(msgspec.Struct, frozen=True):
    """A stretch of the open-loop load, seconds since the epoch."""

    name: str
    begin: float
    end: float


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """One collection."""

    at: float
    generation: int
    took_s: float
    worked_s: float
    """Of `took_s`: the rest other processes had the core."""


@dataclass(kw_only=True)
class Spikes:
    """What the run has brought."""

    starts: dict[str, list[Start]] = field(default_factory=dict)
    """By home."""
    recorded: dict[str, list[Load]] = field(default_factory=dict)
    """Closed-loop load with recording ``on`` and ``off``, by home and that word."""
    sent: list[Sent] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    """How each training ended."""
    checks: int = 0
    pauses: list[Pause] = field(default_factory=list)
    """Collections in the worker while it answered."""


def section(found: Spikes, *, rate: float, seconds: float) -> Section:
    """Return the table with its targets."""
    latencies = _latencies(found)
    targets = [
        *_recording(found), *_stretches(latencies), *_pauses(found), *_starts(found.starts), *_failures(found),
    ]  # fmt: skip
    return Section(
        name="serving_spikes",
        title="Serving, disturbed",
        columns=("requests", "n", "p50 ms", "p90 ms", "p99 ms", "max ms"),
        rows=[[name, f"{len(values):,}", *_figures(values)] for name, values in latencies.items()],
        targets=targets,
        notes=_notes(found, rate),
        libraries=("scikit-learn", "onnxruntime", "uvicorn", "numpy"),
        figures={
            "latency_ms": {name: _figures(values) for name, values in latencies.items()},
            "starts": {home: [msgspec.to_builtins(one) for one in seen] for home, seen in found.starts.items()},
            "recorded": {name: [msgspec.to_builtins(one) for one in loads] for name, loads in found.recorded.items()},
            "pauses": [msgspec.to_builtins(one) for one in found.pauses],
            "runs": found.runs,
        },
        seconds=seconds,
    )


def _latencies(found: Spikes) -> dict[str, Floats]:
    due = np.array([one.due for one in found.sent])
    latency = np.array([one.latency_s for one in found.sent])
    named: dict[str, Floats] = {}
    for name in dict.fromkeys(stretch.name for stretch in found.stretches):
        inside = np.zeros(len(due), dtype=bool)
        for stretch in found.stretches:
            if stretch.name == name:
                inside |= (due >= stretch.begin) & (due < stretch.end)
        named[name] = latency[inside]
    if found.commits:
        commits = np.array(found.commits)
        near = np.abs(due[:, None] - commits[None, :]).min(axis=1) <= NEAR_S
        swapping = np.zeros(len(due), dtype=bool)
        for stretch in found.stretches:
            if stretch.name == "swapping":
                swapping |= (due >= stretch.begin) & (due < stretch.end)
        named["in the 2 s around a swap"] = latency[near]
        named["between swaps"] = latency[swapping & ~near]
        named.pop("swapping", None)
    return named


def _stretches(latencies: Mapping[str, Floats]) -> list[Target]:
    held = []
    for name, base, most in (
        ("training and checking", "idle", BUSY),
        ("in the 2 s around a swap", "between swaps", NEAR_SWAP),
    ):
        if name in latencies and base in latencies:
            ratio = _share(latencies[name], 99) / _share(latencies[base], 99)
            held.append(Target(words=f"p99 {name} / {base}: {ratio:.2f} ≤ {most:g}", met=ratio <= most))
    return held


def _recording(found: Spikes) -> list[Target]:
    held = []
    for home, words in WORDS.items():
        on, off = (found.recorded.get(f"{home} {word}", []) for word in ("on", "off"))
        if on and off:
            share = 1 - median(one.rate for one in on) / median(one.rate for one in off)
            text = (
                f"recording (ids, spool, metrics), linear, c=16, {words}: {share:.1%} of throughput ≤ {RECORDING:.0%}"
            )
            held.append(Target(words=text, met=share <= RECORDING))
    return held


def _pauses(found: Spikes) -> list[Target]:
    if not found.sent:
        return []
    longest = max((one.worked_s for one in found.pauses), default=0.0) * 1e3
    wall = max((one.took_s for one in found.pauses), default=0.0) * 1e3
    words = (
        f"longest collection in the worker while it answered: {longest:.1f} ms of work ≤ {PAUSE_MS:g} ms "
        f"({wall:.1f} ms by the clock)"
        if found.pauses
        else f"no collection in the worker took {LONG_S * 1e3:g} ms while it answered: ≤ {PAUSE_MS:g} ms"
    )
    return [Target(words=words, met=longest <= PAUSE_MS)]


def _starts(starts: Mapping[str, Sequence[Start]]) -> list[Target]:
    held = []
    for home, seen in starts.items():
        most_s, most_mib = LIMITS[home]
        worker_s, mib = median(one.worker_s for one in seen), median(one.resident_mib for one in seen)
        held.append(
            Target(
                words=f"cold start of a worker to ready, {WORDS[home]}: {worker_s:.2f} s ≤ {most_s:g} s",
                met=worker_s <= most_s,
            )
        )
        held.append(
            Target(
                words=f"resident memory of a worker, {WORDS[home]}: {mib:.0f} MiB ≤ {most_mib:g} MiB",
                met=mib <= most_mib,
            )
        )
        loaded = sorted({name for one in seen for name in one.loaded} & set(SHUNNED))
        held.append(
            Target(words=f"of {', '.join(SHUNNED)} a worker has mapped: {', '.join(loaded) or 'none'}", met=not loaded)
        )
    return held


def _failures(found: Spikes) -> list[Target]:
    if not found.sent:
        return []
    failed = sum(one.status != OK for one in found.sent)
    return [Target(words=f"{failed} of {len(found.sent):,} requests failed", met=failed == 0)]


def _notes(found: Spikes, rate: float) -> list[str]:
    notes = []
    if found.sent:
        lateness = np.percentile([one.late_s for one in found.sent], 99) * 1e3
        notes.append(
            f"open loop, {rate:g} requests/s of one row to one worker (linear, compiled); latency from the moment a "
            f"request was due; the client itself was late by {lateness:.1f} ms (p99); it shares the two cores"
        )
        notes.append(
            f"trained beside it: {len(found.runs)} runs of the forest ({', '.join(found.runs)}), {found.checks} "
            f"checks; {len(found.commits)} swaps between two compiled versions"
        )
    for home, seen in found.starts.items():
        sizes = ", ".join(f"{one.resident_mib:.0f}" for one in seen)
        first, again, whole = (
            ", ".join(f"{getattr(one, name):.2f}" for one in seen) for name in ("worker_s", "again_s", "whole_s")
        )
        libraries = sorted({name for one in seen for name in one.loaded}) or ["none"]
        notes.append(
            f"{WORDS[home]}: worker to ready {first} s; started anew by its supervisor {again} s; from the command "
            f"{whole} s; resident {sizes} MiB after answering with all three models; heavy libraries mapped: "
            f"{', '.join(libraries)}"
        )
    for name, loads in found.recorded.items():
        rates = ", ".join(f"{one.rate:,.0f}" for one in loads)
        notes.append(f"recording, {name}: {rates} req/s")
    return notes


def _share(values: Floats, share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else float("nan")


def _figures(values: Floats) -> list[str]:
    return [f"{_share(values, share) * 1e3:.2f}" for share in (50, 90, 99, 100)]
