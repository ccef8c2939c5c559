"""Labels that are broken: other names, another unit, other rows' labels, or one and the same for all.

Told from a world that changed by a coincidence: put right, they fit the answers as labels always did. Labels that fit
nothing any more are no finding: that is what concept drift looks like, too.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.check import Finding
from service.domain.policy import Quality
from service.domain.spec import Schema
from service.learning.frames import EVENT_TIME, LABEL, OUTPUT
from service.learning.metric import metric_of

__all__ = ["mislabelled"]

Array = NDArray[Any]

_FEWEST = 50
_FEWEST_CLASSES = 3
"""Two classes that are exchanged are as well a world that turned round, and a model that is kept from learning it would
stay wrong for ever: the check calls that concept drift, and asks to look at the labels' pipe first."""

_MOST_CLASSES = 6
"""With more classes, the orders to try are too many."""

_APART = 0.2
"""Put right, so much more of the answers must be right..."""

_AGAIN = 0.8
"""...and nearly as much as ever: this share of what the holdout showed; of errors, its inverse."""

_LAGS = 24
"""Rows by which labels may have slipped."""

_MUCH = 2.0
"""An error is only explained by a slip if it is so many times as large as without it."""


def mislabelled(
    schema: Schema, policy: Quality, metric: str, *, answered: pd.DataFrame, reference_loss: float | None
) -> list[Finding]:
    """Return what is wrong with the labels of the rows that a champion answered; at most one finding.

    Parameters
    ----------
    schema
        With classes.
    policy
        `scale` limits factors.
    metric
        The model's: its loss must be a share of wrong answers, or a mean error, for slips to be told.
    answered
        `event_time`, `output`, `label` (null while unknown).
    reference_loss
        Of the champion's holdout; None: nothing is told.
    """
    if reference_loss is None:
        return []
    known = answered[answered[LABEL].notna()].sort_values(EVENT_TIME, kind="stable")
    name = metric_of(metric, schema).name
    find: Callable[[Array, Array], list[Finding]]
    if schema.task == "regression":
        truth, output = known[LABEL].to_numpy(dtype=np.float64), known[OUTPUT].to_numpy(dtype=np.float64)
        find = partial(_numbers, policy, name, reference_loss)
    else:
        names, truth, output = _coded(known)
        find = partial(_classes, schema, name, reference_loss, names)
    for start in (0, len(known) // 2):  # labels that broke half-way fit as a whole to nothing
        found = find(truth[start:], output[start:]) if len(known) - start >= _FEWEST else []
        if found:
            return found
    return []


def _coded(known: pd.DataFrame) -> tuple[list[str], Array, Array]:
    """Return the classes by name, and of each row the label's and the answer's place among them.

    A million texts are slow to make and to compare, a million numbers are not.
    """
    sides = [pd.factorize(known[column], use_na_sentinel=False) for column in (LABEL, OUTPUT)]
    told = [pd.Series(values).astype(str).tolist() for _, values in sides]
    places = {name: place for place, name in enumerate(sorted({*told[0], *told[1]}))}
    truth, output = (
        np.array([places[name] for name in ours], dtype=np.int64)[codes]
        for (codes, _), ours in zip(sides, told, strict=True)
    )
    return list(places), truth, output


def _classes(
    schema: Schema, metric: str, reference_loss: float, names: Sequence[str], truth: Array, output: Array
) -> list[Finding]:
    if (truth == truth[0]).all() and (output != output[0]).any():
        share = float((output == truth[0]).mean())
        frozen = names[truth[0]]
        words = f"all {len(truth)} labels are {frozen!r}, which {share:.0%} of the answers are: labels frozen?"
        return [_finding("labels_constant", 1 - share, 0.5, words)] if share < 0.5 else []
    classes = [str(label) for label in schema.classes]
    right = float((output == truth).mean())
    usual = 1 - reference_loss if metric == "accuracy" else None
    slip = _slipped(output, truth, right, usual)
    if slip:
        return [_finding("labels_slipped", float(slip[0]), 0.0, slip[1])]
    if usual is None or not _FEWEST_CLASSES <= len(classes) <= _MOST_CLASSES:
        return []
    table = _table(classes, names, truth, output)
    best = max(permutations(range(len(classes))), key=lambda order: sum(table[i, j] for i, j in enumerate(order)))
    mended = float(sum(table[i, j] for i, j in enumerate(best))) / len(truth)
    if mended - right < _APART or mended < _AGAIN * usual:
        return []
    names = ", ".join(f"{classes[j]} for {classes[i]}" for i, j in enumerate(best) if i != j)
    words = (
        f"{right:.0%} of the answers are right by the labels as they stand, {mended:.0%} if the labels {names} were "
        f"exchanged (on the holdout: {usual:.0%}): labels under other names?"
    )
    return [_finding("labels_permuted", mended - right, _APART, words)]


def _table(classes: list[str], names: Sequence[str], truth: Array, output: Array) -> Array:
    """Return how many rows have which answer (down) and which label (across); labels of no class count nowhere."""
    size = len(classes) + 1
    place = np.array([classes.index(name) if name in classes else size - 1 for name in names], dtype=np.int64)
    counts = np.bincount(place[output] * size + place[truth], minlength=size**2)
    return counts.reshape(size, size)[:-1, :-1]


def _slipped(output: Array, truth: Array, right: float, usual: float | None) -> tuple[int, str] | None:
    if usual is None:
        return None
    shares = {lag: float((output[:-lag] == truth[lag:]).mean()) for lag in range(1, _LAGS + 1)}
    lag = max(shares, key=lambda one: shares[one])
    if shares[lag] - right < _APART or shares[lag] < _AGAIN * usual:
        return None
    words = (
        f"{right:.0%} of the answers are right as the labels stand and {shares[lag]:.0%} by the label {lag} rows on "
        f"(on the holdout: {usual:.0%}): other rows' labels?"
    )
    return lag, words


def _numbers(policy: Quality, metric: str, reference_loss: float, truth: Array, output: Array) -> list[Finding]:
    if np.ptp(truth) == 0 and np.ptp(output) > 0:
        words = f"all {len(truth)} labels are {truth[0]:g}, and the answers range from {output.min():.4g} to "
        return [_finding("labels_constant", float(len(truth)), 1.0, words + f"{output.max():.4g}: labels frozen?")]
    middle = float(np.median(np.abs(output)))
    factor = float(np.median(np.abs(truth))) / middle if middle > 0 else 1.0
    alike = float(np.corrcoef(np.argsort(np.argsort(truth)), np.argsort(np.argsort(output)))[0, 1])
    if alike >= 0.5 and (factor >= policy.scale or 0 < factor <= 1 / policy.scale):
        words = (
            f"the labels are about {factor:.3g} times the answers (limit {policy.scale:g} times) and rank the rows as "
            f"they do (correlation {alike:.2f}): labels in another unit?"
        )
        return [_finding("labels_scale", factor, policy.scale, words)]
    if metric != "mean_absolute_error":
        return []
    error = float(np.abs(truth - output).mean())
    errors = {lag: float(np.abs(output[:-lag] - truth[lag:]).mean()) for lag in range(1, _LAGS + 1)}
    lag = min(errors, key=lambda one: errors[one])
    if error < _MUCH * errors[lag] or errors[lag] > reference_loss / _AGAIN:
        return []
    words = (
        f"the error is {error:.4g} as the labels stand and {errors[lag]:.4g} by the label {lag} rows on (on the "
        f"holdout: {reference_loss:.4g}): other rows' labels?"
    )
    return [_finding("labels_slipped", float(lag), 0.0, words)]


def _finding(check: str, value: float, limit: float, reason: str) -> Finding:
    return Finding(check=check, column=None, value=value, limit=limit, reason=reason)
