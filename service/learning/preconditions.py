"""What must hold before a gate may compare anything: enough rows, ripe labels, a gap, rows that are not worn out."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.duration import format_duration
from service.domain.gate import Circumstances, Clause, Outcome, tightened
from service.domain.policy import Gate
from service.learning.ripeness import Maturity

__all__ = ["Stretch", "looks_at", "preconditions", "worn"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """How the holdout was cut out of what is known.

    Attributes
    ----------
    after, until
        Its ends in event time, exclusive and inclusive.
    learned_until
        Newest event time among the rows that the judged fit learned from.
    embargo
        What must lie between that and `after`.
    maturity
        How far labels had come in.
    answered, labelled
        Rows in it that were answered by the service, and those of them with a label.
    """

    after: datetime
    until: datetime
    learned_until: datetime
    embargo: timedelta = timedelta(0)
    maturity: Maturity = field(default_factory=Maturity)
    answered: int = 0
    labelled: int = 0


def preconditions(
    policy: Gate, truth: Array, stretch: Stretch, circumstances: Circumstances, *, is_classification: bool
) -> tuple[Clause, ...]:
    """Return the clauses that must pass before a comparison means anything."""
    n = len(truth)
    found = [_rows(policy, n), _coverage(policy, stretch), _maturity(stretch, n), _embargo(stretch, n)]
    if is_classification:
        found.insert(1, _classes(policy, truth))
    return (*found, _data(circumstances, n))


def looks_at(times: Array, circumstances: Circumstances) -> float:
    """Return how often these rows are looked at with this time, in whole holdouts: one that shares half counts half.

    Parameters
    ----------
    times
        Event times, shape (n_rows,), datetime64[us] in UTC.
    """
    shares = [float(((times > _plain(u.after)) & (times <= _plain(u.until))).mean()) for u in circumstances.uses]
    return 1.0 + sum(shares) if len(times) else 1.0


def worn(policy: Gate, times: Array, circumstances: Circumstances) -> Clause:
    """Return the clause that says how often these rows were judged on, and what that does to the interval."""
    looks = looks_at(times, circumstances)
    confidence = tightened(policy.confidence, looks, resamples=policy.resamples)
    runs = list(
        dict.fromkeys(
            u.run for u in circumstances.uses if ((times > _plain(u.after)) & (times <= _plain(u.until))).any()
        )
    )
    words = "no earlier gate has looked at these rows"
    if runs:
        named = ", ".join(runs[:3]) + ("" if len(runs) <= 3 else f" and {len(runs) - 3} more")
        words = (
            f"gates of {len(runs)} earlier runs ({named}) have looked at some of these rows, {looks - 1:.2g} times "
            f"over: intervals are {confidence:.1%} instead of {policy.confidence:.0%}, until the holdout has rolled on"
        )
    return Clause(name="uses", value=looks, threshold=None, n=len(times), outcome=Outcome.PASS, reason=words)


def _plain(moment: datetime) -> np.datetime64:
    """Return a moment as numpy compares it: UTC without saying so."""
    return np.datetime64(int(moment.timestamp() * 1_000_000), "us")


def _rows(policy: Gate, n: int) -> Clause:
    outcome = Outcome.PASS if n >= policy.min_rows else Outcome.INCONCLUSIVE
    return Clause(
        name="rows",
        value=float(n),
        threshold=float(policy.min_rows),
        n=n,
        outcome=outcome,
        reason=f"{n} labelled rows in the holdout; {policy.min_rows} are needed",
    )


def _classes(policy: Gate, truth: Array) -> Clause:
    """Two classes are there often enough: on one class alone, whoever says it always is right."""
    names, counts = np.unique(truth.astype(str), return_counts=True)
    second = int(np.sort(counts)[-2]) if len(counts) > 1 else 0
    rare = [str(name)[:40] for name, count in zip(names, counts, strict=True) if count < policy.min_class]
    words = f"the second most frequent class has {second} rows in the holdout; {policy.min_class} are needed"
    if rare and second >= policy.min_class:
        words += f"; few rows of {', '.join(rare[:5])}"
    return Clause(
        name="classes",
        value=float(second),
        threshold=float(policy.min_class),
        n=len(truth),
        outcome=Outcome.PASS if second >= policy.min_class else Outcome.INCONCLUSIVE,
        reason=words,
    )


def _coverage(policy: Gate, stretch: Stretch) -> Clause:
    if not stretch.answered:
        words = "no row of the holdout was answered by the service: all come from the starting data set"
        return Clause(name="coverage", value=None, threshold=policy.coverage, n=0, outcome=Outcome.PASS, reason=words)
    share = stretch.labelled / stretch.answered
    return Clause(
        name="coverage",
        value=share,
        threshold=policy.coverage,
        n=stretch.answered,
        outcome=Outcome.PASS if share >= policy.coverage else Outcome.INCONCLUSIVE,
        reason=f"{stretch.labelled} of {stretch.answered} answered rows in the holdout have a label, {share:.1%}; "
        f"{policy.coverage:.1%} are needed",
    )


def _maturity(stretch: Stretch, n: int) -> Clause:
    delay = None if stretch.maturity.delay is None else stretch.maturity.delay.total_seconds()
    words = stretch.maturity.reason
    return Clause(name="maturity", value=delay, threshold=None, n=n, outcome=Outcome.PASS, reason=words)


def _embargo(stretch: Stretch, n: int) -> Clause:
    """Hold what `train` has cut: a gap that is too small would be a leak, and no verdict on leaked rows is one."""
    gap = stretch.after - stretch.learned_until
    holds = gap >= stretch.embargo
    needed = format_duration(stretch.embargo) if stretch.embargo else "nothing"
    return Clause(
        name="embargo",
        value=gap.total_seconds(),
        threshold=stretch.embargo.total_seconds(),
        n=n,
        outcome=Outcome.PASS if holds else Outcome.FAIL,
        reason=f"{format_duration(gap) if gap > timedelta(0) else 'nothing'} lies between the newest row that was "
        f"fitted on and the holdout; {needed} must, for so long labels take to come",
    )


def _data(circumstances: Circumstances, n: int) -> Clause:
    tried = circumstances.tried
    words = "no earlier run tried these rows with this spec"
    if tried is not None:
        words = f"run {tried} tried these very rows with this very spec; this run was forced"
    return Clause(name="data", value=float(tried is not None), threshold=0.0, n=n, outcome=Outcome.PASS, reason=words)
