"""Delay until an injected shift is seen, ours beside four rivals, all at the same measured rate of false alarms.

Fixed before: 50 onsets a case, 10 windows after each; 10, 50 and 100 % of the rows; at once, or growing over six
windows; the most and the least important column; a mean by one deviation, twice the spread, a category that spreads.
Every rival's threshold is set so that it alarms on as many of the very same windows without the shift as we do at our
threshold in force. Where our own rate there lies outside 1 to 20 % (rows that drift by themselves), all, ours too, are
set to 5 %. Judged by the median delay; a shift not seen in ten windows is missed and counts as later than all others.
"""

import time
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.decisions_ours import Ours
from bench.decisions_rates import delays, matched_threshold, median_delay
from bench.decisions_rivals import NAMES, Column, Rivals
from bench.decisions_rows import Shift, shifted
from bench.decisions_sources import NAMES as SOURCES
from bench.decisions_sources import Source, shifts_of, source_of
from bench.report import Section, Target
from service.domain.policy import Drift
from service.learning.columns import PREDICTION
from service.learning.frames import OUTPUT

__all__ = ["jobs", "run", "section"]

ONSETS, QUICK_ONSETS = 50, 10
STEPS = 10
RAMP = 6
LOW, HIGH, COMMON = 0.01, 0.20, 0.05
PROVED = 3
EQUAL = 1e-9
DETECTORS = ("Retrue", *NAMES)
_EXPECTED = 5
_RARE, _UNSEEN = "(rare)", "(unseen)"

Array = NDArray[Any]
Job = tuple[str, int, int]


def jobs(*, quick: bool, seed: int) -> list[Job]:
    """Return the sources, the longest first: name, onsets, seed."""
    order = ("electricity, in order", "electricity, shuffled", "bikes, in order", "bikes, shuffled", "AR 0.9", "AR 0.5")
    if quick:
        return [(name, QUICK_ONSETS, seed) for name in ("electricity, shuffled", "AR 0.9")]
    return [(name, ONSETS, seed) for name in order]


class Distances:
    """Our distances of one column, as quick as the rivals': Evidently's numbers on the reference that a check has."""

    def __init__(self, reference: pd.Series, *, rows: int, numeric: bool) -> None:
        self._numeric = numeric
        self._names: dict[Any, str] = {}
        values = reference.to_numpy()
        if not numeric:
            names, counts = np.unique(values.astype(str), return_counts=True)
            few = counts / len(values) * rows < _EXPECTED
            self._names = {name: _RARE if rare else name for name, rare in zip(names, few, strict=True)}
            values = self._folded(values)
        self._column = Column(values, "numeric" if numeric else "categorical", pinned=True)

    def measure(self, window: Array) -> float:
        """Return the distance of a window's values."""
        return self._column.measure(window if self._numeric else self._folded(window))[0]

    def _folded(self, values: Array) -> Array:
        names, places = np.unique(values.astype(str), return_inverse=True)
        return np.array([self._names.get(name, _UNSEEN) for name in names])[places]


class Stage:
    """One source with its detectors, and every window measured once without a shift."""

    def __init__(self, source: Source, onsets: int) -> None:
        self.source, self.names = source, tuple(source.kinds)
        n = source.rows
        last = len(source.later) - STEPS * n
        starts = np.linspace(0, last, onsets).astype(int)
        places = (starts[:, None] + n * np.arange(STEPS)).ravel()
        self.rows = source.later.iloc[(places[:, None] + np.arange(n)).ravel()].reset_index(drop=True)
        self.shape = (onsets, STEPS)
        self.ours = Ours.of(source.schema, source.reference, source.weights, policy=Drift(window="7d"))
        self.rivals = Rivals.of(source.reference, source.kinds, rows=n)
        numeric = {name: kind == "numeric" for name, kind in source.kinds.items()}
        self.distances = {
            name: Distances(self.ours.reference[name], rows=n, numeric=numeric[name]) for name in self.names
        }
        self.threshold = self.ours.look(self.window(0))[1].threshold
        known = next(iter(self.ours.calibration.columns.values()))
        self.stretch = known.stretch(n, min(len(self.ours.reference), self.ours.policy.sample))
        count = onsets * STEPS
        self.clean = {name: self.cut(self.rows[name].to_numpy()) for name in self.names}
        self.own = np.column_stack([self.measured(name, self.clean[name]) for name in self.names])
        self.others = np.stack([self.measured_by_rivals(name, self.clean[name]) for name in self.names], axis=1)
        assert self.own.shape == (count, len(self.names))  # noqa: S101  what follows relies on the order of axes

    def window(self, place: int) -> pd.DataFrame:
        """Return one window's rows."""
        n = self.source.rows
        return self.rows.iloc[place * n : (place + 1) * n]

    def cut(self, values: Array) -> list[Array]:
        """Return a column's values by window."""
        return np.split(values, len(values) // self.source.rows)

    def measured(self, name: str, windows: list[Array]) -> Array:
        """Return our distances of a column, one per window."""
        return np.array([self.distances[name].measure(values) for values in windows])

    def measured_by_rivals(self, name: str, windows: list[Array]) -> Array:
        """Return the rivals' three numbers of a column, shape (n_windows, 3)."""
        column = self.rivals.columns[self.names.index(name)]
        return np.array([column.measure(values) for values in windows])

    def family(self, own: Array, others: Array) -> Array:
        """Return one statistic per detector and window, shape (n_detectors, n_onsets, n_steps); ours alarms at 1."""
        ours = [self.ratio(row) for row in own]
        return np.vstack([ours, self.rivals.family(others).T]).reshape(len(DETECTORS), *self.shape)

    def ratio(self, distances: Array) -> float:
        """Return our statistic over its threshold: the largest of the columns' scores, as the check takes it."""
        columns = self.ours.calibration.columns
        found = zip((PREDICTION if name == OUTPUT else name for name in self.names), distances.tolist(), strict=True)
        return (
            max(columns[name].score(distance, stretch=self.stretch) for name, distance in found if name in columns)
            / self.threshold
        )

    def error(self) -> float:
        """Return the largest difference between our quick figures and the check's own, on some windows."""
        worst = 0.0
        for place in np.linspace(0, len(self.own) - 1, PROVED).astype(int):
            columns, tested = self.ours.look(self.window(int(place)))
            worst = max(worst, abs(tested.statistic / tested.threshold - self.ratio(self.own[place])))
            for column in columns:
                name = OUTPUT if column.column == PREDICTION else column.column
                if column.statistic is not None:
                    worst = max(worst, abs(column.statistic - self.own[place, self.names.index(name)]))
        return float(worst)


def run(job: Job) -> dict[str, Any]:
    """Return median delays and missed shares of every case of one source; runs in its own process."""
    name, onsets, seed = job
    began = time.perf_counter()
    stage = Stage(source_of(name, seed=seed), onsets)
    null = stage.family(stage.own, stage.others)
    rate = float((null[0] >= 1).mean())
    tuned = not LOW <= rate <= HIGH
    alarms = round((COMMON if tuned else rate) * null[0].size)
    limits = [matched_threshold(null[0], alarms) if tuned else 1.0]
    limits += [matched_threshold(null[place], alarms) for place in range(1, len(DETECTORS))]
    random = np.random.default_rng([seed, SOURCES.index(name), 1])
    cases = []
    for shift in shifts_of(stage.source):
        found = [delays(s, limit) for s, limit in zip(_shifted(stage, shift, random), limits, strict=True)]
        cases.append(
            {
                "what": shift.what,
                "role": shift.role,
                "column": shift.column,
                "share": shift.share,
                "shape": shift.shape,
                "median": [median_delay(one) for one in found],
                "missed": [float(np.isinf(one).mean()) for one in found],
                "delays": [one.tolist() for one in found],
            }
        )
    return {
        "source": name,
        "rate": rate,
        "tuned": tuned,
        "common": alarms / null[0].size,
        "onsets": onsets,
        "error": stage.error(),
        "cases": cases,
        "seconds": round(time.perf_counter() - began, 1),
    }


def _shifted(stage: Stage, shift: Shift, random: np.random.Generator) -> Array:
    """Return all detectors' statistics of the windows with the shift in them."""
    n, values = stage.source.rows, stage.rows[shift.column].to_numpy()
    shares = np.array([shift.share_in(step, ramp=RAMP) for step in range(STEPS)])
    touched = random.random(len(values)) < np.tile(np.repeat(shares, n), stage.shape[0])
    reference = stage.source.reference[shift.column]
    if shift.what == "category":
        # The second most frequent one: where there are two, that is the one there is room for.
        centre, deviation = reference.value_counts().index[1], 0.0
    else:
        centre, deviation = float(reference.mean()), float(reference.std(ddof=0))
    moved = shifted(values, shift, touched=touched, centre=centre, deviation=deviation)
    own, others = stage.own.copy(), stage.others.copy()
    answers = stage.source.answer(stage.rows.assign(**{shift.column: moved}))
    for name, column in ((shift.column, moved), (OUTPUT, answers)):
        place, windows = stage.names.index(name), stage.cut(column)
        own[:, place] = stage.measured(name, windows)
        others[:, place] = stage.measured_by_rivals(name, windows)
    return stage.family(own, others)


def section(results: list[dict[str, Any]], *, quick: bool, seconds: float) -> Section:
    """Return the table: one row per source, shape and share; every single case that was lost stands below it."""
    ordered = sorted(results, key=lambda one: SOURCES.index(one["source"]))
    rows, losses = [], []
    even = better = cases = 0
    for one in ordered:
        rows += _rows(one)
        for case in one["cases"]:
            ours, best = case["median"][0], min(case["median"][1:])
            cases += 1
            even += ours <= best
            better += ours < best
            if ours > best:
                losses.append(_loss(one, case))
    worst = max(one["error"] for one in ordered)
    targets = [
        Target(words=f"median delay no worse than the best rival's in {even} of {cases} cases", met=even == cases),
        Target(words=f"median delay better than the best rival's in {better} of {cases} cases", met=2 * better > cases),
        Target(words=f"quick distances are the check's own: largest difference {worst:.1e}", met=worst < EQUAL),
    ]
    notes = [_note(one) for one in ordered]
    notes.append(f"Each cell: median delay in windows / share missed in {STEPS} windows, over all shifted columns.")
    return Section(
        name="decisions_power",
        title="Decisions: delay until a shift is seen" + (" (quick)" if quick else ""),
        columns=("source", "shape", "rows touched", *DETECTORS),
        rows=rows,
        targets=() if quick else targets,
        notes=notes + losses,
        libraries=("evidently", "scipy", "numpy", "scikit-learn"),
        figures={"quick": quick, "results": ordered},
        seconds=seconds,
    )


def _note(one: dict[str, Any]) -> str:
    how = f"all set to {one['common']:.3f}" if one["tuned"] else "the rivals set to the same"
    return (
        f"{one['source']}: {one['onsets']} onsets; our measured rate without a shift {one['rate']:.3f}, {how}; "
        f"{one['seconds']:.0f} s"
    )


def _rows(one: dict[str, Any]) -> list[list[str]]:
    rows = []
    for shape in ("abrupt", "gradual"):
        for share in (0.1, 0.5, 1.0):
            cases = [case for case in one["cases"] if case["shape"] == shape and case["share"] == share]
            pooled = [np.concatenate([case["delays"][place] for case in cases]) for place in range(len(DETECTORS))]
            cells = [f"{_windows(median_delay(found))} / {np.isinf(found).mean():.0%}" for found in pooled]
            rows.append([one["source"], shape, f"{share:.0%}", *cells])
    return rows


def _loss(one: dict[str, Any], case: dict[str, Any]) -> str:
    best = int(np.argmin(case["median"][1:])) + 1
    return (
        f"Lost, {one['source']}: {case['what']} of {case['column']} ({case['role']}), {case['share']:.0%} of rows, "
        f"{case['shape']}: {_windows(case['median'][0])} windows; {DETECTORS[best]} {_windows(case['median'][best])}"
    )


def _windows(delay: float) -> str:
    return f"{delay:g}" if np.isfinite(delay) else f"> {STEPS}"
