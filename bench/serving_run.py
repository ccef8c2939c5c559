"""Rounds: one server at a time is started, asked every case with its answers checked before and after, and ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.serving_load import Expected, Load, checked, load
from bench.serving_models import BLOCK_ROWS, MODELS, Fitted, Rows, bare, expected
from bench.serving_servers import Running, Server, echoed, lists
from bench.serving_usage import cpu_s, memory_mib

__all__ = ["CASES", "Case", "Found", "Measured", "Plan", "play"]


class Case(msgspec.Struct, frozen=True):
    """So many rows a request, over so many connections."""

    rows: int
    connections: int

    @property
    def many(self) -> bool:
        """Whether a request holds a block."""
        return self.rows > 1

    @property
    def name(self) -> str:
        """As it stands in tables and figures."""
        return f"{f'{self.rows:,} rows' if self.many else '1 row'}, c={self.connections}"


ALONE_1, ALONE_16, ALONE_64 = Case(1, 1), Case(1, 16), Case(1, 64)
MANY_1, MANY_4 = Case(BLOCK_ROWS, 1), Case(BLOCK_ROWS, 4)
CASES = (ALONE_1, ALONE_16, ALONE_64, MANY_1, MANY_4)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One case of one server in one round."""

    server: str
    model: str
    case: Case
    round: int
    load: Load
    cpu_s: float
    """Of all its processes, until nothing is left to do about the requests."""
    memory_mib: float
    wrong: int
    """Answers of the checks before and after that are not the pipeline's."""
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, how long, how often."""

    rounds: int
    seconds: int
    cases: Mapping[str, Sequence[Case]]
    """Of each model."""
    warm: bool = True
    """Whether each model is asked for a second before its first case."""


@dataclass
class Found:
    """What the run has brought."""

    measured: list[Measured] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Servers that could not be installed, started or asked, with the reason."""
    bare: dict[str, list[float]] = field(default_factory=dict)
    """Blocks a second in this very process, by ``model engine``."""
    started_s: dict[str, list[float]] = field(default_factory=dict)
    compiled: dict[str, str] = field(default_factory=dict)
    """What came of compiling each model."""


def play(
    servers: Sequence[Server], models: Mapping[str, Fitted], rows: Rows, plan: Plan, *, folder: Path
) -> Found:  # the whole run
    """Measure all servers in turns, round after round."""
    found = Found(compiled={model.name: model.compiled for model in models.values()})
    bodies = Bodies(folder, rows, models)
    for turn in range(plan.rounds):
        _reference(found, models, rows)
        for server in servers:
            if server.name in found.failed:
                continue
            groups = [[model] for model in server.models] if server.one_model else [list(server.models)]
            for group in groups:
                try:
                    _visit(server, group, bodies, plan, turn, found)
                except (RuntimeError, TimeoutError) as error:
                    found.failed[server.name] = str(error)
                    print(f"  {server.name}: {error}", flush=True)
                    break
    return found


class Bodies:
    """What is sent, encoded for each server, in files that wrk reads; and what must come back."""

    def __init__(self, folder: Path, rows: Rows, models: Mapping[str, Fitted]) -> None:
        self._folder, self._rows = folder, rows
        self._right = {
            (name, many): expected(model, rows, many=many) for name, model in models.items() for many in (False, True)
        }

    def of(self, server: Server, case: Case) -> tuple[Path, list[bytes]]:
        """Return the bodies of a case, and the file that holds them line by line."""
        bodies = [server.body(block) for block in self._rows.of(case.many)]
        path = self._folder / f"bodies-{case.many}"
        path.write_bytes(b"\n".join(bodies) + b"\n")
        return path, bodies

    def right(self, server: Server, model: str, case: Case) -> list[Expected]:
        """Return what must come back."""
        if server.is_echo:
            return [echoed(block) for block in self._rows.of(case.many)]
        return self._right[model, case.many]

    @property
    def folder(self) -> Path:
        """Where logs go, too."""
        return self._folder

    @property
    def probe(self) -> Any:
        """One row."""
        return self._rows.alone[:1]


def _visit(server: Server, group: Sequence[str], bodies: Bodies, plan: Plan, turn: int, found: Found) -> None:
    running = Running(server, group, folder=bodies.folder, probe=bodies.probe)
    try:
        found.started_s.setdefault(server.name, []).append(running.start_s)
        for model in group:
            for place, case in enumerate(plan.cases.get(model, ())):
                is_first = place == 0 or plan.cases[model][place - 1].many != case.many
                one = _measure(running, model, case, bodies, plan, turn, warm=plan.warm and place == 0, first=is_first)
                found.measured.append(one)
                words = f"{one.load.rate:>9,.1f} req/s  p50 {one.load.p50_ms:.3f}  p99 {one.load.p99_ms:.3f} ms"
                bad = (
                    f"  {one.load.errors} errors, {one.wrong} wrong {one.fault}" if one.load.errors + one.wrong else ""
                )
                print(f"  {turn + 1} {server.name}, {model}, {case.name}: {words}{bad}", flush=True)
    finally:
        running.stop()


def _measure(
    running: Running, model: str, case: Case, bodies: Bodies, plan: Plan, turn: int, *, warm: bool, first: bool
) -> Measured:
    """Measure one case, checked before and after; but for the first of its bodies, the check after the last will do."""
    server = running.server
    path, sent = bodies.of(server, case)
    right = bodies.right(server, model, case)
    url = server.path(model)

    def check() -> tuple[int, str]:
        return checked(running.url, url, sent, right, form=server.form, connections=case.connections)

    if warm:
        load(running.url, url, path, connections=16, seconds=1)
    before = check() if first else (0, "")
    server.settle()
    cpu = cpu_s(running.mark)
    seen = load(running.url, url, path, connections=case.connections, seconds=plan.seconds)
    server.settle()
    cpu = cpu_s(running.mark) - cpu
    after = check()
    return Measured(
        server=server.name, model=model, case=case, round=turn, load=seen, cpu_s=cpu,
        memory_mib=memory_mib(running.mark), wrong=before[0] + after[0], fault=before[1] or after[1],
    )  # fmt: skip


def _reference(found: Found, models: Mapping[str, Fitted], rows: Rows) -> None:
    body = lists(rows.blocks[0])
    for name in MODELS:
        for engine, compiled in (("onnx", True), ("scikit-learn", False)):
            if compiled and models[name].graph is None:
                continue
            found.bare.setdefault(f"{name} {engine}", []).append(bare(models[name], body, compiled=compiled))
