"""What a check costs: a million rows of 50 columns, in a process of its own, beside Evidently's preset on them.

Fixed before: at most 10 s and 1 GiB of peak resident memory for the check (quality, drift, realised performance), its
frame and all libraries included; the preset is ended after 120 s or 12 GiB. A check compares at most 20,000 rows a
side, spread evenly: the error that this adds is measured on rows that nothing was thinned from, too.
"""

import contextlib
import ctypes
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.decisions_rivals import Column
from bench.report import Section, Target
from service.domain.policy import Drift, Quality
from service.domain.spec import Feature, Schema
from service.learning.calibration import Calibration, calibrate
from service.learning.columns import thinned
from service.learning.drift import compare
from service.learning.examine import examine
from service.learning.frames import EVENT_TIME, LABEL, OUTPUT

__all__ = ["jobs", "run", "section"]

ROWS, QUICK_ROWS = 1_000_000, 200_000
NUMBERS, CATEGORIES, FLAGS = 40, 6, 4
SECONDS, MIB = 10.0, 1024.0
PATIENCE_S, QUICK_PATIENCE_S = 120.0, 30.0
ROOM = 12 * 2**30
DRAWS, QUICK_DRAWS = 6, 2
ERROR_ROWS = 200_000

Job = tuple[str, int, int, float]


def jobs(*, quick: bool, seed: int) -> list[Job]:
    """Return what is measured, one after the other: what, rows, seed, patience in seconds."""
    rows, patience = (QUICK_ROWS, QUICK_PATIENCE_S) if quick else (ROWS, PATIENCE_S)
    return [("check", rows, seed, patience), ("preset", rows, seed, patience), ("error", rows, seed, patience)]


def run(job: Job) -> dict[str, Any]:
    """Measure one of them in a fresh process, which is ended when its time is over."""
    what, rows, seed, patience = job
    if what == "error":
        return {"what": what, **_sampling_error(seed, draws=DRAWS if rows == ROWS else QUICK_DRAWS)}
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(what, rows, seed, theirs), daemon=True)
    process.start()
    theirs.close()
    told: dict[str, Any] = {"what": what, "rows": rows, "patience": patience}
    # Making the frame is not part of what is measured: the clock begins when the child says so.
    began = time.perf_counter()
    try:
        while True:
            if not ours.poll(patience if "frame_mib" in told else 300.0):
                told |= {"ended": f"ended after {patience:.0f} s", "seconds": None}
                break
            told |= ours.recv()
            if "seconds" in told:
                break
    except EOFError:
        told |= {"ended": "died (out of memory?)", "seconds": None}
    told["peak_mib"] = told.get("peak_mib") or _peak_mib(process.pid)
    process.kill()
    process.join()
    told["whole"] = round(time.perf_counter() - began, 1)
    return told


def _measured(what: str, rows: int, seed: int, pipe: Connection) -> None:
    """Make the frame, say so, do the work, and send its figures; runs in its own process."""
    resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
    policy = Drift()
    calibration: Calibration | None = None
    if what == "check":
        # A version's reference is thinned once, when it is promoted.
        reference = thinned(frame_of(rows // 4, np.random.default_rng(seed + 1), weeks=52), policy.sample)
        calibration = calibrate(schema(), policy, reference, rows=rows // 4)
    else:
        reference = frame_of(rows, np.random.default_rng(seed + 1))
    frame = frame_of(rows, np.random.default_rng(seed), shift=0.1)
    _forget_peak()
    pipe.send({"frame_mib": float(frame.memory_usage(index=False).sum()) / 2**20})
    began = time.perf_counter()
    try:
        (_check if what == "check" else _preset)(frame, reference, policy, calibration)
    except MemoryError:
        pipe.send({"ended": f"ended at {ROOM / 2**30:.0f} GiB", "seconds": None, "peak_mib": _peak_mib(None)})
        return
    pipe.send({"seconds": time.perf_counter() - began, "peak_mib": _peak_mib(None)})


def _check(frame: pd.DataFrame, reference: pd.DataFrame, policy: Drift, calibration: Calibration | None) -> None:
    answered = frame[[EVENT_TIME, OUTPUT, LABEL]].assign(observed_at=frame[EVENT_TIME])
    seen = examine(
        schema(), quality=Quality(), drift=policy, metric="accuracy", reference=reference, window=frame,
        answered=answered, reference_loss=0.3, calibration=calibration,
    )  # fmt: skip
    if len(seen.columns) != len(schema().features) + 1:
        msg = f"the check evaluated {len(seen.columns)} columns: {seen.reason}"
        raise RuntimeError(msg)
    if seen.drift is None or seen.drift.state != "calibrated":
        msg = f"the check was not calibrated: {seen.reason}"
        raise RuntimeError(msg)


def _preset(frame: pd.DataFrame, reference: pd.DataFrame, policy: Drift, calibration: Calibration | None) -> None:
    _ = policy, calibration
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numbers = [feature.name for feature in schema().features if feature.kind == "numeric"]
    rest = [feature.name for feature in schema().features if feature.kind != "numeric"]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=rest)
    sides = [Dataset.from_pandas(side[numbers + rest], data_definition=definition) for side in (frame, reference)]
    Report([DataDriftPreset()]).run(*sides).dict()


def schema() -> Schema:
    """Return the schema of the rows."""
    return Schema(
        model="bench",
        task="classification",
        timestamp="at",
        features=(
            *(Feature(f"n{place}") for place in range(NUMBERS)),
            *(Feature(f"c{place}", kind="categorical", categories=tuple(range(10))) for place in range(CATEGORIES)),
            *(Feature(f"b{place}", kind="boolean") for place in range(FLAGS)),
        ),
        integer_categories=tuple(f"c{place}" for place in range(CATEGORIES)),
        label="integer",
        classes=(0, 1),
    )


def frame_of(rows: int, random: np.random.Generator, *, weeks: int = 1, shift: float = 0.0) -> pd.DataFrame:
    """Return rows of 50 features with an answer and a label each; every tenth number is moved by `shift`."""
    times = pd.date_range("2026-01-01", periods=rows, freq=pd.Timedelta(days=7 * weeks) / rows, tz="UTC")
    columns: dict[str, Any] = {EVENT_TIME: times.astype("datetime64[us, UTC]")}
    for place in range(NUMBERS):
        columns[f"n{place}"] = random.standard_normal(rows) + (shift if place % 10 == 0 else 0.0)
    for place in range(CATEGORIES):
        columns[f"c{place}"] = random.integers(0, 10, rows)
    for place in range(FLAGS):
        columns[f"b{place}"] = random.random(rows) < 0.3
    columns[OUTPUT] = (columns["n0"] > 0).astype(np.int64)
    columns[LABEL] = np.where(random.random(rows) < 0.2, 1 - columns[OUTPUT], columns[OUTPUT])
    return pd.DataFrame(columns)


def _sampling_error(seed: int, *, draws: int) -> dict[str, Any]:
    """Return how far the distances of thinned rows lie from those of all rows, as shares of the wide threshold."""
    errors: list[float] = []
    numbers = [feature.name for feature in schema().features if feature.kind == "numeric"]
    for draw in range(draws):
        random = np.random.default_rng([seed, 7, draw])
        reference, window = frame_of(ERROR_ROWS, random), frame_of(ERROR_ROWS, random, shift=0.1)
        found = {c.column: c.statistic for c in compare(schema(), Drift(), reference=reference, window=window)[0]}
        for name in numbers:
            whole = Column(reference[name].to_numpy(), "numeric").measure(window[name].to_numpy())[0]
            errors.append(abs((found[name] or 0.0) - whole))
    return {"largest": max(errors), "median": float(np.median(errors)), "columns": len(errors), "rows": ERROR_ROWS}


def _peak_mib(pid: int | None) -> float:
    """Return a process' peak of resident memory; `getrusage` would hand on the peak of whoever started it."""
    try:
        text = Path(f"/proc/{'self' if pid is None else pid}/status").read_text()
    except OSError:
        return 0.0
    found = next((line for line in text.splitlines() if line.startswith("VmHWM")), None)
    if found is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return float(found.split()[1]) / 1024


def _forget_peak() -> None:
    """Let the peak begin anew: making a frame takes it twice over, and is no part of a check."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what the making gave back is the allocator's, and would count as ours
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def section(results: list[dict[str, Any]], *, quick: bool, seconds: float) -> Section:
    """Return the table and the targets."""
    by = {one["what"]: one for one in results}
    check, preset, error = by["check"], by["preset"], by["error"]
    rows = [_row("a check of Retrue", check), _row("DataDriftPreset", preset)]
    words = f"{check['rows']:,} × {NUMBERS + CATEGORIES + FLAGS}"
    targets = [
        Target(
            words=f"a check of {words}: {check['seconds'] or 0:.1f} s ≤ {SECONDS:g} s",
            met=_met(check, "seconds", SECONDS),
        ),
        Target(words=f"its peak memory: {check['peak_mib']:.0f} MiB ≤ {MIB:.0f} MiB", met=_met(check, "peak_mib", MIB)),
    ]
    notes = [
        f"The frame alone takes {check['frame_mib']:.0f} MiB; the check holds it, and a reference of 20,000 rows.",
        f"The preset compares the same frame with a reference as long ({preset['rows']:,} rows), by its defaults.",
        f"Sampling: on {error['rows']:,} rows a side the distance of 20,000 evenly spread rows differs from that of "
        f"all rows by {error['median']:.4f} in the median and by {error['largest']:.4f} at most "
        f"({error['columns']} columns and draws); what calibrates the thresholds is thinned in the same way.",
    ]
    return Section(
        name="decisions_cost",
        title="Decisions: what a check costs" + (" (quick)" if quick else ""),
        columns=("what", "rows × columns", "seconds", "peak MiB", "of which frame"),
        rows=rows,
        targets=() if quick else targets,
        notes=notes,
        libraries=("evidently", "numpy", "pandas"),
        figures={"quick": quick, "results": results},
        seconds=seconds,
    )


def _met(one: dict[str, Any], name: str, most: float) -> bool:
    return one["seconds"] is not None and one[name] <= most


def _row(words: str, one: dict[str, Any]) -> list[str]:
    spent = one["ended"] if one["seconds"] is None else f"{one['seconds']:.1f}"
    columns = NUMBERS + CATEGORIES + FLAGS
    return [words, f"{one['rows']:,} × {columns}", spent, f"{one['peak_mib']:.0f}", f"{one.get('frame_mib', 0):.0f}"]
