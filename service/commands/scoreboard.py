"""What a replay was worth: weekly scores of the champion and of version 1 on the same rows, and request latencies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import mean
from typing import Any

from service.replay import Answer, Rows

__all__ = ["Score", "Scoreboard", "Week", "percentile"]

Score = Callable[[Sequence[Any], Sequence[Any]], float]
"""Of labels and predictions: accuracy or mean absolute error."""

AROUND_SWAP_S = 1.0
"""A request that starts within this many wall-clock seconds of a swap counts as one during the swap."""


@dataclass(frozen=True, kw_only=True)
class Week:
    """One week of the stream."""

    until: datetime
    rows: int
    champion: float
    first: float
    """Score of version 1, never retrained, on the same rows."""
    version: int
    """The version that answered last."""


class Scoreboard:
    """Collects answers as they come and scores them week by week.

    Parameters
    ----------
    rows
        The stream.
    first_answers
        What version 1 answers for every row of it.
    start
        Weeks are counted from this event time.
    """

    def __init__(self, rows: Rows, *, first_answers: Sequence[Any], start: datetime, score: Score) -> None:
        self._rows = rows
        self._first = first_answers
        self._score = score
        self._predictions: list[Any] = [None] * len(rows)
        self._answered = [False] * len(rows)
        self._week_begins = 0
        self._week_ends = start + timedelta(days=7)
        self._latencies: list[tuple[float, float]] = []
        self._swaps: list[float] = []
        self._version: int | None = None
        self.weeks: list[Week] = []

    def add(self, answer: Answer) -> list[Week]:
        """Take one answer; return the weeks that it completed."""
        done = []
        while self._rows.times[answer.first] > self._week_ends:
            week = self._close_week(answer.first)
            if week is not None:
                done.append(week)
        self._latencies.append((answer.started_at, answer.latency_s))
        if answer.answer is not None:
            version = int(answer.answer["version"])
            if self._version is not None and version != self._version:
                self._swaps.append(answer.started_at)
            self._version = version
            for offset, prediction in enumerate(answer.answer["predictions"]):
                self._predictions[answer.first + offset] = prediction
                self._answered[answer.first + offset] = True
        return done

    def finish(self) -> list[Week]:
        """Close the last, possibly shorter week."""
        week = self._close_week(len(self._rows))
        return [week] if week is not None else []

    def _close_week(self, end: int) -> Week | None:
        until, self._week_ends = self._week_ends, self._week_ends + timedelta(days=7)
        chosen = [row for row in range(self._week_begins, end) if self._answered[row]]
        self._week_begins = end
        if not chosen or self._version is None:
            return None
        truth = [self._rows.labels[row] for row in chosen]
        week = Week(
            until=until,
            rows=len(chosen),
            champion=self._score(truth, [self._predictions[row] for row in chosen]),
            first=self._score(truth, [self._first[row] for row in chosen]),
            version=self._version,
        )
        self.weeks.append(week)
        return week

    def weekly_means(self) -> tuple[float, float]:
        """Return the mean weekly score of the champion and of version 1."""
        return mean(week.champion for week in self.weeks), mean(week.first for week in self.weeks)

    def against_no_change(self) -> tuple[float, float]:
        """Return Cohen's kappa of champion and version 1 against saying the label of the row before."""
        chosen = [row for row in range(1, len(self._rows)) if self._answered[row]]
        n = len(chosen)
        labels = self._rows.labels
        same = sum(labels[row] == labels[row - 1] for row in chosen) / n
        champion = sum(labels[row] == self._predictions[row] for row in chosen) / n
        first = sum(labels[row] == self._first[row] for row in chosen) / n
        return (champion - same) / (1 - same), (first - same) / (1 - same)

    @property
    def swaps(self) -> int:
        """How many times the answering version changed."""
        return len(self._swaps)

    def latencies(self) -> tuple[list[float], list[float]]:
        """Return request latencies in seconds: away from swaps, and around them."""
        calm: list[float] = []
        around: list[float] = []
        for started, latency in self._latencies:
            near = any(abs(started - swap) <= AROUND_SWAP_S for swap in self._swaps)
            (around if near else calm).append(latency)
        return calm, around


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of `values` lies (nearest rank); nan when there is none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
