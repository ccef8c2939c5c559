"""The table of `bench/serving.py`: medians with spreads, ratios within the run, targets."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import msgspec

from bench.report import Section, Target
from bench.serving_models import BLOCK_ROWS, MODELS
from bench.serving_run import ALONE_1, ALONE_16, ALONE_64, MANY_1, MANY_4, Case, Found, Measured, Plan
from bench.serving_servers import ECHOES, HANDWRITTEN, OURS

__all__ = ["Figures", "section", "targets"]

COLUMNS = (
    "server", "model", "c=1", "p50 ms", "c=16", "p50 / p99 ms", "c=64", "p99 ms", "1k c=1", "p50 / p99 ms", "1k c=4",
    "CPU s", "1k CPU s", "MiB", "errors", "wrong",
)  # fmt: skip
COMPILED, TWO, PLAIN = OURS
NEAR_ECHO_US, TAIL, BARE_SHARE = 100.0, 3.0, 0.8
AGAINST = {
    COMPILED: {"hand": 20.0, "peer": 8.0, "echo": 0.55},
    PLAIN: {"hand": 12.0, "peer": 5.0, "echo": 0.35},
}
TREES = {COMPILED: {"boosting": 10.0, "forest": 20.0}, PLAIN: {"boosting": 5.0, "forest": 5.0}}
ALONE_PEER = 1.5


class Figures:
    """Medians over the rounds, by server, model and case."""

    def __init__(self, measured: Iterable[Measured]) -> None:
        self._by: dict[tuple[str, str, Case], list[Measured]] = {}
        for one in measured:
            self._by.setdefault((one.server, one.model, one.case), []).append(one)

    def all(self, server: str, model: str, case: Case) -> list[Measured]:
        """Return every round's measure."""
        return self._by.get((server, model, case), [])

    def rate(self, server: str, model: str, case: Case) -> float | None:
        """Return the median of requests a second; None if it was not measured."""
        found = [one.load.rate for one in self.all(server, model, case)]
        return median(found) if found else None

    def milliseconds(self, server: str, model: str, case: Case, share: str) -> float | None:
        """Return the median over the rounds of ``p50_ms``, ``p90_ms`` or ``p99_ms``."""
        found = [float(getattr(one.load, share)) for one in self.all(server, model, case)]
        return median(found) if found else None

    def cpu_s(self, server: str, model: str, case: Case) -> float | None:
        """Return the median of processor seconds per 1,000 requests."""
        found = [one.cpu_s * 1000 / one.load.requests for one in self.all(server, model, case) if one.load.requests]
        return median(found) if found else None

    def ratio(self, model: str, case: Case, ours: str, other: str) -> float | None:
        """Return how many times as many requests `ours` answers; None if either was not measured."""
        mine, theirs = self.rate(ours, model, case), self.rate(other, model, case)
        return mine / theirs if mine is not None and theirs else None

    def best(self, model: str, case: Case, servers: Sequence[str]) -> str | None:
        """Return which of `servers` answers the most."""
        rated = {server: rate for server in servers if (rate := self.rate(server, model, case)) is not None}
        return max(rated, key=lambda server: rated[server]) if rated else None


def section(found: Found, plan: Plan, names: Sequence[str], *, quick: bool, seconds: float, more: Section) -> Section:
    """Return the table with its targets.

    Parameters
    ----------
    names
        Of the servers, in the table's order.
    more
        Notes and targets that come from elsewhere.
    """
    figures = Figures(found.measured)
    rows = [
        row for model in MODELS for name in names if (row := _row(figures, name, model)) is not None
    ]  # fmt: skip
    rows += [[name, *["–"] * (len(COLUMNS) - 2), "failed"] for name in names if name in found.failed]
    peers = [name for name in names if name not in {*OURS, *ECHOES, HANDWRITTEN}]
    return Section(
        name="serving",
        title="Serving, beside its peers" + (" (quick: without the peers)" if quick else ""),
        columns=COLUMNS,
        rows=rows,
        targets=[*targets(figures, found, peers), *more.targets],
        notes=[*_notes(found, plan, figures), *more.notes],
        libraries=("scikit-learn", "onnxruntime", "numpy", "uvicorn", "fastapi", "starlette", "msgspec", "pandas"),
        figures={
            "quick": quick,
            "measured": [msgspec.to_builtins(one) for one in found.measured],
            "failed": found.failed,
            "bare": found.bare,
            "started_s": found.started_s,
            "compiled": found.compiled,
            **more.figures,
        },
        seconds=seconds,
    )


def targets(figures: Figures, found: Found, peers: Sequence[str]) -> list[Target]:
    """Return issue 4's claims about throughput, as far as both sides of each were measured."""
    held = [target for ours in (COMPILED, PLAIN) for target in _against(figures, peers, ours)]
    held += _near_echo(figures)
    if (best := figures.best("linear", ALONE_1, peers)) is not None:
        held += _at_least(figures, "linear", ALONE_1, PLAIN, best, ALONE_PEER)
    for ours, engine in ((COMPILED, "onnx"), (PLAIN, "scikit-learn")):
        for model in MODELS:
            held += _blocks(figures, found, peers, model, ours, engine)
    for ours in (COMPILED, PLAIN):
        p50, p99 = (figures.milliseconds(ours, "linear", ALONE_16, share) for share in ("p50_ms", "p99_ms"))
        if p50 and p99:
            words = f"{ours}, linear, c=16: p99 {p99:.2f} ms = {p99 / p50:.2f} × p50 ≤ {TAIL:g} ×"
            held.append(Target(words=words, met=p99 <= TAIL * p50))
    own = [one for one in found.measured if one.server in OURS]
    wrong, errors = sum(one.wrong for one in own), sum(one.load.errors for one in own)
    if own:
        held.append(Target(words=f"Retrue: {wrong} wrong answers, {errors} errors", met=not wrong and not errors))
    return held


def _against(figures: Figures, peers: Sequence[str], ours: str) -> list[Target]:
    held: list[Target] = []
    best = figures.best("linear", ALONE_16, peers)
    for other, what in ((HANDWRITTEN, "hand"), (best, "peer"), (ECHOES[1], "echo")):
        if other is not None:
            held += _at_least(figures, "linear", ALONE_16, ours, other, AGAINST[ours][what])
    for model, least in TREES[ours].items():
        held += _at_least(figures, model, ALONE_16, ours, HANDWRITTEN, least)
    return held


def _at_least(figures: Figures, model: str, case: Case, ours: str, other: str, least: float) -> list[Target]:
    ratio = figures.ratio(model, case, ours, other)
    if ratio is None:
        return []
    words = f"{model}, {case.name}: {ours} = {ratio:.2f} × {other} ≥ {least:g} ×"
    return [Target(words=words, met=ratio >= least)]


def _near_echo(figures: Figures) -> list[Target]:
    ours, echo = (figures.milliseconds(name, "linear", ALONE_1, "p50_ms") for name in (COMPILED, ECHOES[1]))
    if ours is None or echo is None:
        return []
    apart = (ours - echo) * 1e3
    words = (
        f"linear, {ALONE_1.name}: p50 of {COMPILED} {ours * 1e3:.0f} µs, of the {ECHOES[1]} {echo * 1e3:.0f} µs: "
        f"{apart:.0f} ≤ {NEAR_ECHO_US:g} µs apart"
    )
    return [Target(words=words, met=apart <= NEAR_ECHO_US)]


def _blocks(
    figures: Figures, found: Found, peers: Sequence[str], model: str, ours: str, engine: str
) -> list[Target]:  # of 1,000 rows
    rate, alone = figures.rate(ours, model, MANY_1), found.bare.get(f"{model} {engine}")
    if rate is None or not alone:
        return []
    share = rate / median(alone)
    words = f"{model}, {MANY_1.name}: {ours} = {share:.2f} of the bare decode and predict ≥ {BARE_SHARE:g}"
    held = [Target(words=words, met=share >= BARE_SHARE)]
    best = figures.best(model, MANY_1, peers)
    return held if best is None else [*held, *_at_least(figures, model, MANY_1, ours, best, 1.0)]


def _row(figures: Figures, server: str, model: str) -> list[str] | None:
    every = [one for case in (ALONE_1, ALONE_16, ALONE_64, MANY_1, MANY_4) for one in figures.all(server, model, case)]
    if not every:
        return None

    def ms(case: Case, *shares: str) -> str:
        found = [figures.milliseconds(server, model, case, share) for share in shares]
        return " / ".join("–" if one is None else f"{one:.2f}" for one in found)

    def cpu(case: Case) -> str:
        seconds = figures.cpu_s(server, model, case)
        return "–" if seconds is None else f"{seconds:.3f}"

    def rate(case: Case) -> str:
        return spread([one.load.rate for one in figures.all(server, model, case)])

    return [
        server, model, rate(ALONE_1), ms(ALONE_1, "p50_ms"), rate(ALONE_16), ms(ALONE_16, "p50_ms", "p99_ms"),
        rate(ALONE_64), ms(ALONE_64, "p99_ms"), rate(MANY_1), ms(MANY_1, "p50_ms", "p99_ms"), rate(MANY_4),
        cpu(ALONE_16), cpu(MANY_1), f"{max(one.memory_mib for one in every):,.0f}",
        str(sum(one.load.errors for one in every)), str(sum(one.wrong for one in every)),
    ]  # fmt: skip


def spread(values: Sequence[float]) -> str:
    """Return the median, with the lowest and the highest where there are several."""
    if not values:
        return "–"
    digits = 0 if median(values) >= 100 else 1
    middle = f"{median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def _notes(found: Found, plan: Plan, figures: Figures) -> list[str]:
    rounds = "1 round" if plan.rounds == 1 else f"{plan.rounds} rounds, medians and (lowest–highest)"
    alone = {name: median(rates) for name, rates in found.bare.items()}
    cpus = figures.ratio("linear", ALONE_16, TWO, COMPILED)
    notes = [
        "requests/s of one row (c connections) and of 1,000 rows (1k); p50 and p99 of the column before them; CPU s: "
        "of all processes for 1,000 requests, of one row at c=16 and of 1,000 rows at c=1",
        f"wrk, one thread, keep-alive, loopback, {plan.seconds} s a case after a check; {rounds}; one server with all "
        "of its processes at a time, started anew in each round, in turns; one process or replica each unless said, "
        "one thread for numeric libraries; wrk takes part of the same cores",
        "Retrue runs whole, as `retrue serve`: validation with declared bounds, ids, stamps, spool, committer, "
        "metrics, controller; its CPU seconds count until the committer has every row in the lake; MiB are of "
        "all processes",
        "before and after each pass all bodies (256 of one row, or 4 of 1,000) are answered and compared with the "
        "fitted pipeline's own predict (Retrue: and predict_proba, within 1e-5); wrong counts those that differ, "
        "errors what wrk could not get answered",
        "one row goes as objects by feature name to Retrue, the hand-written service and the echoes; blocks of 1,000 "
        "as lists to Retrue; each peer gets its own form",
        f"bare decode (msgspec) and predict_proba of {BLOCK_ROWS:,} rows in this process, blocks/s: "
        + "; ".join(f"{name} {rate:,.0f}" for name, rate in alone.items()),
        "versions compiled: " + ", ".join(f"{name} {word}" for name, word in found.compiled.items()),
        *(f"{name} failed: {_plain(reason)}" for name, reason in found.failed.items()),
    ]
    if cpus is not None:
        notes.append(f"two workers answer {cpus:.2f} × as much as one (linear, c=16, wrk on the same two cores)")
    return notes


def _plain(reason: Any) -> str:
    return " ".join(str(reason).split()).replace("|", "/")[:300]
