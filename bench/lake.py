"""Does a lake that has grown answer as fast as a young one? Ten million predictions, all with labels, beside 100,000.

Both tables are filled through the service's own lake, hold the same rows a day, and are measured in turns in one
process: commits, the reads of a check, the look-up of one prediction, the watermark that a controller asks for.
"""

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the thread caps come before numpy
import pyarrow as pa  # noqa: E402

from bench.report import Section, Target, publish  # noqa: E402
from service.storage.ids import id_texts  # noqa: E402
from service.storage.lake import Lake  # noqa: E402
from service.storage.records import PredictionBatch  # noqa: E402
from service.storage.rows import MOMENT, predictions_table  # noqa: E402

MODEL = "bench"
YOUNG, GROWN, QUICK = 100_000, 10_000_000, 1_000_000
STEP = timedelta(days=7) / 20_000
"""20,000 rows a week."""
WEEK = timedelta(days=7)
LATE = timedelta(days=1)
"""Labels come so much later."""
END_US = 1_790_000_000_000_000
"""Where both tables end, so that both are asked for the same window."""
PART = 250_000
COMMIT_ROWS = 200
ROUNDS, QUICK_ROUNDS = 40, 15
RATIO = 1.5
ROOM_MIB = 1024
NAMES = ("price", "demand", "wind", "load", "holiday", "zone")
KINDS: Any = ("numeric", "numeric", "numeric", "numeric", "boolean", "integer")
DAYS = [f"day {number}" for number in range(7)]


@dataclass(frozen=True)
class Table:
    """One lake, and how many rows were put into it."""

    root: str
    rows: int
    build_s: float
    peak_mib: float
    bytes: int
    files: int


def batch(first: int, rows: int, generator: np.random.Generator) -> PredictionBatch:
    """Return the answers `first` … `first + rows`, each `STEP` after the one before; their ids say so too."""
    steps = np.arange(first, first + rows)
    times = END_US + (steps * (STEP.total_seconds() * 1e6)).astype(np.int64)
    ids = generator.integers(0, 256, (rows, 16), dtype=np.uint8)
    ids[:, :6] = (times // 1000).astype(">u8").view(np.uint8).reshape(rows, 8)[:, 2:]
    ids[:, 6] = (ids[:, 6] & 0x0F) | 0x70
    ids[:, 8] = (ids[:, 8] & 0x3F) | 0x80
    high = generator.random(rows)
    return PredictionBatch(
        model=MODEL,
        version=1,
        generation=1,
        answered_at_us=int(times[-1]),
        ids=ids,
        event_time_us=times,
        numeric_names=NAMES,
        numeric_kinds=KINDS,
        numeric=np.column_stack([generator.random((rows, 4)), steps % 2, steps % 5]).astype(np.float64),
        text={"day": [DAYS[step] for step in (steps % 7).tolist()]},
        output=np.asarray(steps % 2, dtype=np.int64),
        probabilities=np.column_stack([high, 1 - high]),
        classes=(0, 1),
    )


def labels(ids: np.ndarray, times_us: np.ndarray) -> pa.Table:
    """Return the truth for these predictions, a day later."""
    observed = pa.array(times_us + int(LATE.total_seconds() * 1e6), pa.int64()).view(MOMENT)
    texts = pa.array(id_texts(ids).astype("U36"), pa.string())
    truth = pa.array(np.arange(len(ids)) % 2, pa.int64())
    return pa.table({"id": texts, "label": truth, "observed_at": observed, "received_at": observed})


def build(root: str, rows: int) -> Table:
    """Fill a lake, as large commits of the committer would, with its maintenance between; runs in its own process."""
    began = time.perf_counter()
    lake, generator = Lake(root), np.random.default_rng(rows)
    part = min(PART, rows)
    for number, first in enumerate(range(-rows, 0, part)):
        one = batch(first, part, generator)
        lake.append_predictions(MODEL, predictions_table([one]), transactions={"build": number})
        lake.append_labels(MODEL, labels(one.ids, one.event_time_us), transactions={"build": number})
        if number % 8 == 7:
            lake.maintain(MODEL)
    lake.maintain(MODEL)
    files = [path for path in Path(root).rglob("*.parquet") if "_delta_log" not in path.parts]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - began
    return Table(root, rows, seconds, peak, sum(path.stat().st_size for path in files), len(files))


class Client:
    """Asks one lake what the service asks."""

    def __init__(self, table: Table) -> None:
        self.table, self.lake = table, Lake(table.root)
        self.until = datetime.fromtimestamp(END_US / 1e6, tz=UTC)
        self._next = 0
        self._generator = np.random.default_rng(7)
        window = self.lake.read_window(MODEL, after=self.until - 4 * WEEK, until=self.until, columns=["output"])
        self._ids = window["id"].take(pa.array(self._generator.integers(0, window.num_rows, 200)))
        self._reference = self.lake.keep(MODEL, window.slice(0, 5_000)).to_json()

    def commit(self) -> Callable[[], Any]:
        """Return the append of the next small batch of answers, forced to the disk."""
        one = predictions_table([batch(self._next, COMMIT_ROWS, self._generator)])
        self._next += COMMIT_ROWS
        return lambda: self.lake.append_predictions(MODEL, one, transactions={"live": self._next})

    def commit_labels(self) -> Callable[[], Any]:
        """Return the append of labels for the oldest rows that a check looks at."""
        one = batch(self._next, COMMIT_ROWS, self._generator)
        rows = labels(one.ids, one.event_time_us)
        return lambda: self.lake.append_labels(MODEL, rows, transactions={"live": self._next})

    def window(self) -> Callable[[], Any]:
        """Return the read of the newest week."""
        return lambda: self.lake.read_window(MODEL, after=self.until - WEEK, until=self.until)

    def wide(self) -> Callable[[], Any]:
        """Return the read of the newest 100,000 rows by their time."""

        def read() -> None:
            found = self.lake.read_window(MODEL, after=self.until - 5 * WEEK, until=self.until)
            assert found.num_rows >= 99_000  # noqa: S101  a bench that reads nothing measures nothing

        return read

    def newest(self) -> Callable[[], Any]:
        """Return the read of the newest 2,000 rows."""
        return lambda: self.lake.newest_rows(MODEL, 2_000, self.until)

    def check(self) -> Callable[[], Any]:
        """Return all that a check reads: its window, four windows of answers, their labels, the count of new ones."""

        def read() -> None:
            self.lake.read_window(MODEL, after=self.until - WEEK, until=self.until)
            columns = ["version", "output", "probabilities"]
            rows = self.lake.read_window(MODEL, after=self.until - 4 * WEEK, until=self.until, columns=columns)
            known = self.lake.labels_of(MODEL, rows["id"], observed_until=self.until)
            assert known.num_rows > 0.9 * rows.num_rows  # noqa: S101  a bench that reads nothing measures nothing
            self.lake.labels_since(MODEL, after=self.until - 3 * WEEK, until=self.until)
            self.lake.read_snapshot(self._reference)

        return read

    def lookup(self) -> Callable[[], Any]:
        """Return the look-up of one prediction by its id."""
        wanted = self._ids[int(self._generator.integers(0, len(self._ids)))].as_py()

        def find() -> None:
            found = self.lake.find_prediction(MODEL, wanted)
            assert found is not None  # noqa: S101  as above

        return find

    def watermark(self) -> Callable[[], Any]:
        """Return what a process asks that has just started: where the data stand."""
        return lambda: Lake(self.table.root).watermark(MODEL)


WIDE = "window of 35 d (100,000 rows)"
WIDE_S = 1.0
QUESTIONS = {
    "commit of 200 answers": "commit",
    "commit of 200 labels": "commit_labels",
    "window of 7 d (20,000 rows)": "window",
    WIDE: "wide",
    "newest 2,000 rows": "newest",
    "all reads of a check": "check",
    "look-up by id": "lookup",
    "watermark, fresh process": "watermark",
}


def measured(clients: list[Client], rounds: int) -> dict[str, list[list[float]]]:
    """Return seconds by question and client; the clients take turns, so that a busy machine is busy for both."""
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in clients] for name in QUESTIONS}
    for number in range(rounds + 1):
        for name, verb in QUESTIONS.items():
            for place, client in enumerate(clients):
                question = getattr(client, verb)()
                began = time.perf_counter()
                question()
                if number:  # the first round warms the caches
                    seconds[name][place].append(time.perf_counter() - began)
    return seconds


def main() -> int:
    """Fill, measure, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help=f"a grown table of {QUICK:,} rows")
    parser.add_argument("--folder", type=Path, help="where the tables are made; a temporary folder when left out")
    given = parser.parse_args()
    began = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="retrue-lake-", dir=given.folder))
    try:
        tables = []
        for rows in (YOUNG, QUICK if given.quick else GROWN):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                tables.append(pool.submit(build, str(folder / str(rows)), rows).result())
        clients = [Client(table) for table in tables]
        seconds = measured(clients, QUICK_ROUNDS if given.quick else ROUNDS)
        maintained = [_timed(partial(client.lake.maintain, MODEL)) for client in clients]
    finally:
        shutil.rmtree(folder)
    return publish(_section(tables, seconds, maintained, quick=given.quick, spent=time.perf_counter() - began))


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _section(
    tables: list[Table], seconds: dict[str, list[list[float]]], maintained: list[float], *, quick: bool, spent: float
) -> Section:
    grown = f"{tables[1].rows:,}"
    rows, targets = [], []
    figures: dict[str, Any] = {"quick": quick, "tables": [vars(table) | {"root": None} for table in tables]}
    for name, (young, old) in seconds.items():
        middle = [statistics.median(young), statistics.median(old)]
        ratio = middle[1] / middle[0]
        rows.append([name, *(f"{1e3 * value:.1f}" for value in middle), f"{1e3 * _p95(old):.1f}", f"{ratio:.2f}"])
        targets.append(Target(words=f"{name}: {ratio:.2f} × of the young table ≤ {RATIO} ×", met=ratio <= RATIO))
        figures[name] = {"young_ms": 1e3 * middle[0], "grown_ms": 1e3 * middle[1], "ratio": ratio}
    wide = statistics.median(seconds[WIDE][1])
    targets.append(Target(words=f"{WIDE}: {1e3 * wide:.0f} ms ≤ {1e3 * WIDE_S:.0f} ms", met=wide <= WIDE_S))
    rows.append(["maintenance after it", *(f"{1e3 * value:.0f}" for value in maintained), "–", "–"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for words, value in (("measuring process", peak), ("filling process", tables[1].peak_mib)):
        targets.append(
            Target(words=f"peak memory of the {words}: {value:.0f} MiB ≤ {ROOM_MIB} MiB", met=value <= ROOM_MIB)
        )
    figures["peak_mib"] = {"measuring": peak, "filling": [table.peak_mib for table in tables]}
    notes = [
        f"{table.rows:,} predictions and as many labels: {table.bytes / 2**20:.0f} MiB in {table.files} files, filled "
        f"in {table.build_s:.0f} s with a peak of {table.peak_mib:.0f} MiB"
        for table in tables
    ]
    notes.append("Medians in milliseconds; both tables hold 20,000 rows a week and are asked in turns, in one process.")
    return Section(
        name="lake",
        title=f"A lake that has grown: {grown} rows beside {tables[0].rows:,}",
        columns=("question", f"{tables[0].rows:,} rows, ms", f"{grown} rows, ms", "p95, ms", "ratio"),
        rows=rows,
        targets=targets,
        notes=notes,
        libraries=("deltalake", "pyarrow", "numpy"),
        figures=figures,
        seconds=spent,
    )


def _p95(values: list[float]) -> float:
    return sorted(values)[min(int(len(values) * 0.95), len(values) - 1)]


if __name__ == "__main__":
    sys.exit(main())
