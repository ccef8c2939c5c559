"""Policies: the numbers an operator may set per model. Leave one out and its default applies.

Durations are event time (the time at which things happened, which the rows carry), never the time at which Retrue
happens to look at them, so that a replay of a year behaves as the year did.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from service.domain.budget import parse_budget
from service.domain.duration import parse_duration, parse_window
from service.domain.history import parse_history

__all__ = ["Drift", "Gate", "Probation", "Quality", "Recording", "Retention", "Retrain", "Training"]


def _text(parse: Callable[[str], object], *words: str) -> AfterValidator:
    """Return what holds a text to be one of `words`, or one that `parse` takes; the text stays as it was written."""

    def hold(text: str) -> str:
        if text not in words:
            parse(text)
        return text

    return AfterValidator(hold)


def _embargo(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError as error:
        msg = f"{text!r} is no embargo: write 'delay', 'none', or a duration such as '2d'"
        raise ValueError(msg) from error


def _slice_of(one: str | tuple[str, int]) -> str | tuple[str, int]:
    if not isinstance(one, str) and not 2 <= one[1] <= MOST_BINS:
        msg = f"the slice {one[0]!r} has {one[1]} bins: write 2 to {MOST_BINS}"
        raise ValueError(msg)
    return one


MOST_BINS = 20
DurationText = Annotated[str, _text(parse_duration)]
TrainingText = Annotated[str, _text(parse_history)]
EmbargoText = Annotated[str, _text(_embargo, "delay", "none")]
SliceOf = Annotated[str | tuple[str, int], AfterValidator(_slice_of)]
WindowText = Annotated[str, _text(parse_window)]
HistoryText = Annotated[str, _text(parse_duration, "all")]
BudgetText = Annotated[str, _text(parse_budget)]
WholeBudgetText = Annotated[str, _text(functools.partial(parse_budget, whole=True))]
Share = Annotated[float, Field(ge=0, le=1)]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Training:
    """How a version is learned."""

    initial: DurationText | None = None
    """How much of the source version 1 learns from, counted from its first row; all of it when left out."""
    windows: Annotated[tuple[TrainingText, ...], Field(min_length=1)] = ("56d", "168d", "all", "all, half-life 112d")
    """Histories that candidates are fitted on; the holdout chooses. ``all`` is everything known; with ``half-life``
    older rows weigh less, where the estimator takes weights."""
    holdout: DurationText = "14d"
    """The newest labelled stretch, kept from fitting; candidates and champion are compared on it."""
    embargo: EmbargoText = "delay"
    """What is left out between the rows that are fitted on and the holdout. ``delay``: what labels take to come
    (their median, at most the holdout's length), for a version that was trained then had not known these yet."""
    min_rows: Annotated[int, Field(ge=10)] = 200
    """Fewer labelled rows to fit on than this: the run waits for labels."""
    refit: bool = True
    """Fit the chosen recipe again with the holdout included before it is promoted. Where the refit does not agree with
    the judged fit on older rows, the judged one is promoted instead."""
    seed: Annotated[int, Field(ge=0)] = 0
    deadline: DurationText = "15m"
    """Wall-clock time after which a trainer is stopped."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Quality:
    """What counts as data that are broken upstream. A window that breaks one of these is quarantined."""

    null_rise: Share = 0.2
    """Highest rise of a column's share of nulls over its reference share."""
    unseen: Share = 0.2
    """Highest share of rows with a category that the reference has not."""
    out_of_range: Share = 0.2
    """Highest share of rows outside a feature's declared bounds."""
    constant: bool = True
    """Whether a column that varied in the reference and stands still in the window is broken."""
    scale: Annotated[float, Field(gt=1)] = 8.0
    """All quantiles of a column multiplied by at least this factor (or its inverse): a change of unit."""
    atom: Share = 0.05
    """Highest share of rows at one value that stands out and that the reference hardly knew: a sentinel, a clipped
    range."""
    clock: Share = 0.05
    """Highest share of rows in which a column that follows the time of day does not, by more than an hour."""
    swapped: Annotated[float, Field(gt=1)] = 3.0
    """Two columns or more, each so many times nearer to another column's reference than to its own: swapped."""
    renamed: Share = 0.05
    """Highest share of rows with new categories while steady old ones of about that share are gone."""
    permuted: Share = 0.3
    """Highest share of rows in other categories than in the reference while the frequencies are the same by rank."""
    duplicates: Share = 0.4
    """Highest rise of the share of rows that repeat an earlier one, event time included, over the reference's."""
    future: Share = 0.05
    """Highest share of rows whose event time lies after they were answered."""
    late: Share = 0.3
    """Highest share of rows that came when newer ones had come already..."""
    late_by: DurationText = "1d"
    """...newer by more than this, in event time."""
    clean_windows: Annotated[int, Field(ge=1)] = 1
    """So many clean windows in a row end a quarantine."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Drift:
    """How served data are compared with the champion's reference."""

    window: WindowText = "7d"
    """What one check looks at: the newest stretch of event time, or the newest so many rows."""
    every: DurationText | None = None
    """Event time from check to check; the window's own length when left out."""
    numeric: Literal["wasserstein", "ks", "psi", "jensenshannon"] = "wasserstein"
    """Evidently's method for numeric columns. Pinned: its automatic choice flips with the reference's size."""
    categorical: Literal["jensenshannon", "psi", "TVD"] = "jensenshannon"
    """Evidently's method for categorical and boolean columns."""
    false_alarms: BudgetText = "1 per 90d"
    """Budget of confirmed alarms on data that have not changed. Each version's thresholds follow from it, by what clean
    windows of its reference show; where the reference is too short for that, the state is `uncalibrated`."""
    numeric_threshold: Annotated[float, Field(gt=0)] | None = None
    """Set for all numeric columns instead of calibrated ones; exceeded, the window has drifted."""
    categorical_threshold: Annotated[float, Field(gt=0)] | None = None
    """The same for categorical and boolean columns."""
    thresholds: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """The same for single columns, by feature name (``prediction`` for the output)."""
    share: Share = 0.3
    """Where nothing at all could be calibrated, fixed thresholds apply: 0.25 for distances, 0.001 for `ks`, 0.002 for
    `TVD`. A window has drifted then when at least this share of the columns has, or the prediction column has."""
    confirm: Annotated[int, Field(ge=1)] = 2
    """So many drifted windows in a row are confirmed drift. The budget counts confirmed alarms."""
    min_rows: Annotated[int, Field(ge=20)] = 100
    """A window with fewer rows gets the verdict `insufficient`."""
    sample: Annotated[int, Field(ge=500)] = 20_000
    """At most so many rows a side are compared. With 20,000 of 200,000 a distance is off by 0.007 (median),
    0.03 at most: `bench/decisions.py --part cost`."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Retrain:
    """When a run is started."""

    mode: Literal["off", "suggest", "auto"] = "auto"
    degradation: Annotated[float, Field(ge=0)] = 0.1
    """Realised loss this share above the champion's own holdout loss calls for a run."""
    confirm: Annotated[int, Field(ge=1)] = 1
    """In so many checks one after the other."""
    min_labels: Annotated[int, Field(ge=1)] = 100
    """Labels that must have arrived since the last training cut-off."""
    cooldown: DurationText = "21d"
    """After a promotion, no run is started for so long. Not shorter than the holdout, or the new champion would have
    learned part of the rows on which it is to be judged."""
    retry: DurationText = "7d"
    """After a run that promoted nothing, none is started for so long."""
    backoff: Annotated[float, Field(ge=1, le=10)] = 2.0
    """By this factor that pause grows with each further rejection in a row for the same cause, as long as nothing new
    is known: another cause, or a loss that has risen further, waits only for `retry`, and so does a loss that lies five
    times as far above the reference as is tolerated. 1: it never grows."""
    retry_cap: DurationText = "28d"
    """The longest that it grows."""
    cooldown_cap: DurationText = "56d"
    """The longest that a run waits for labels."""
    budget: WholeBudgetText = "1 per day"
    """At most so many runs that no person asked for, in any stretch of event time that long."""
    breaker: Annotated[int, Field(ge=1)] = 3
    """After so many runs that broke, one after the other, runs are only suggested, until one promotes or a person
    clears the switch `breaker`."""
    on_drift: bool = False
    """Whether confirmed drift alone, with realised quality unharmed, starts a run; only where the drift test is
    calibrated, and once `min_labels` rows after its beginning are labelled."""
    max_age: DurationText | None = "42d"
    """So long after its promotion a champion is due for a challenger, however well it does."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Gate:
    """What a challenger must show before it may answer."""

    floor: float | None = None
    """Absolute floor of the metric (a ceiling for errors: give the metric's own value, such as 60 for an error)."""
    margin: Annotated[float, Field(ge=0)] = 0.05
    """How much worse, as a share of the champion's loss, the lower end of the interval may be."""
    min_gain: Annotated[float, Field(ge=0)] = 0.1
    """By how much, as a share of the champion's loss, the challenger must be better on the rows themselves."""
    mode: Literal["improve", "non_inferior"] = "non_inferior"
    """What the lower end of the interval must clear: nought, or nought less the margin."""
    changed: Literal["improve", "non_inferior"] = "improve"
    """The same for a challenger whose model file or schema is not the champion's: another recipe must prove itself."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    """Of the two-sided bootstrap interval."""
    resamples: Annotated[int, Field(ge=100, le=10_000)] = 1000
    min_rows: Annotated[int, Field(ge=10)] = 100
    """Labelled holdout rows below which the verdict is `inconclusive`."""
    min_class: Annotated[int, Field(ge=0)] = 5
    """Two classes must have so many holdout rows each, else the verdict is `inconclusive`; classification only."""
    coverage: Share = 0.05
    """Share of the answered holdout rows whose label must be known, else the verdict is `inconclusive`."""
    slices: tuple[SliceOf, ...] = ()
    """Features on whose values the challenger must not be proved worse; ``("temp", 4)``: a number in 4 bins."""
    slice_rows: Annotated[int, Field(ge=10)] = 50
    """Slices with fewer rows are told and not judged."""
    slice_margin: Annotated[float, Field(ge=0)] = 0.1
    """How much worse a slice may be, as a share of the champion's loss on all rows."""
    old_margin: Annotated[float, Field(ge=0)] | None = 1.0
    """On the oldest rows of all, by what share the challenger's loss may lie above the champion's or the best
    constant's, whichever is higher, unless it is proved better on the new ones; None: this is told and not judged."""
    approval: bool = False
    """Whether a person must approve a challenger that passed."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Probation:
    """How a new champion is watched before it is kept for good. A breach takes it back."""

    duration: DurationText | None = "7d"
    """Event time that it is watched for; None: not at all."""
    errors: Share = 0.01
    """Highest rise of the share of rows that were not answered over that of the champion before."""
    latency: Annotated[float, Field(gt=1)] = 3.0
    """Highest ratio of its seconds per batch to those of the champion before."""
    outputs: Annotated[float, Field(gt=0)] = 0.5
    """Highest distance between its answers and those of the champion before, on the same rows: Jensen-Shannon for
    classes, Wasserstein in standard deviations for values."""
    degradation: Annotated[float, Field(ge=0)] = 0.25
    """Highest share by which its realised loss may exceed that of the champion before, on the same labelled rows."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    """Of the interval around that excess: all of it must lie above nought, too."""
    min_rows: Annotated[int, Field(ge=1)] = 100
    """Answered rows, or labelled rows, below which nothing is concluded from them."""
    extensions: Annotated[int, Field(ge=0)] = 3
    """So often the watch is prolonged by its own length while there are too few rows; then it is kept, unproven."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Recording:
    """What becomes of an answer that can't be written down, because the disk or the spool is full."""

    when_full: Literal["refuse", "answer"] = "refuse"
    """``refuse`` answers 503 and loses nothing; ``answer`` answers, and counts every row that was not recorded.
    Labels are refused in either case: whoever sent them still has them."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Retention:
    """How long things are kept. What a champion, a rollback, a pin or a run under way needs is always kept."""

    predictions: HistoryText = "all"
    """Event time before the model's newest prediction; ``all`` keeps every one."""
    labels: HistoryText = "all"
    """The same, for labels, counted by when they were observed."""
    artifacts: Annotated[int, Field(ge=1)] = 10
    """So many of the newest versions keep their artifact."""
