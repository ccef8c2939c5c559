"""Columns that stand in each other's place, and categories under other codes: broken joins and changed exports.

Both are told from drift by a coincidence that the world does not bring about: the values are all there, as they always
were, only under another name. What the reference itself did from window to window is the measure of how far is far.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.check import Finding
from service.domain.policy import Quality
from service.domain.spec import Feature, Schema
from service.learning.stretches import FEWEST_STRETCHES, FEWEST_VALUES, LEVELS

__all__ = ["recoded", "swapped"]

Floats = NDArray[np.float64]
Shares = Mapping[str, float]

_FITS = 0.25
"""A column fits a reference when its quantiles lie so near, as a share of the reference's spread."""

_FAR = 0.5
"""A column can only have left its place when its quantiles moved by this share of the reference's spread."""

_USUAL = 2.0
"""What moved no more than so many times as far as the reference itself ever did has not left its place."""

_MOST = 999.0
"""Ratios are told up to this: infinity is no JSON."""

_STEADY = 0.02
"""A category is steady when it held this share of every stretch of the reference."""

_PRESENT, _LEFT = 0.05, 0.25
"""A category with this share of every stretch of the reference is missed where less than that share of it is left."""

_LINGERS = 4
"""A column lingers when it keeps a value for so many rows on average."""

_ALIKE = 0.1
"""Frequencies are the same ones under other names when no more than this share of the rows lies otherwise."""


def swapped(
    schema: Schema, policy: Quality, *, reference: pd.DataFrame, window: pd.DataFrame, parts: list[slice]
) -> tuple[list[Finding], frozenset[str]]:
    """Find columns that hold each other's values, or those of the column beside them.

    Returns
    -------
    list of Finding
        At most one: a swap is one cause.
    frozenset of str
        The columns that it is about.

    Notes
    -----
    One column that happens to look like another is drift. Two that left their places, the one for the place that the
    other left, are a broken export.
    """
    then, now = _shapes(schema, reference), _shapes(schema, window)
    names = [name for name in then if name in now and _spread(then[name]) > 0]
    own = {name: _distance(now[name], then[name]) for name in names}
    moved: dict[str, str] = {}
    for name in names:
        others = {other: _distance(now[name], then[other]) for other in names if other != name}
        nearest = min(others, key=lambda other: others[other], default=name)
        if own[name] < _FAR or nearest == name or others[nearest] > min(_FITS, own[name] / policy.swapped):
            continue
        usual = max((_distance(_shape(reference[name].iloc[part]), then[name]) for part in parts), default=0.0)
        if own[name] >= _USUAL * usual:
            moved[name] = nearest
    moved = {name: place for name, place in moved.items() if place in moved or name in moved.values()}
    if len(moved) < 2:
        return [], frozenset()
    ratio = min(own[name] / max(_distance(now[name], then[place]), own[name] / _MOST) for name, place in moved.items())
    pairs = ", ".join(f"{name} like {place}" for name, place in list(moved.items())[:4])
    words = (
        f"{len(moved)} columns look like other columns of the reference and no more like themselves ({pairs}), each at "
        f"least {ratio:.3g} times nearer to it (limit {policy.swapped:g}): columns swapped or shifted?"
    )
    return [Finding(check="swapped", column=None, value=ratio, limit=policy.swapped, reason=words)], frozenset(moved)


def recoded(
    policy: Quality, feature: Feature, *, reference: pd.Series, window: pd.Series, parts: list[slice]
) -> list[Finding]:
    """Find categories that are the old ones under other codes, as far as their frequencies can tell.

    Parameters
    ----------
    reference, window
        The feature's column, nulls among it.
    parts
        As `stretches` gave them.
    """
    then, now = _shares(reference), _shares(window)
    declared = {str(value) for value in feature.categories or ()}
    strangers = {value: share for value, share in now.items() if value not in then and value not in declared}
    if sum(strangers.values()) > policy.unseen:
        return []  # told already
    history = _history(reference, parts)
    if len(history) < FEWEST_STRETCHES or not now:
        return []
    gone = {
        value: share
        for value, share in then.items()
        if value not in now and all(part.get(value, 0.0) >= _STEADY for part in history)
    }
    return (
        _renamed(policy, feature, strangers, gone)
        or _permuted(policy, feature, then, now, history)
        or _missing(feature, reference, now, history, len(window))
    )


def _renamed(policy: Quality, feature: Feature, strangers: Shares, gone: Shares) -> list[Finding]:
    new, old = sum(strangers.values()), sum(gone.values())
    if min(new, old) < policy.renamed or max(new, old) > _USUAL * min(new, old):
        return []
    words = (
        f"{feature.name} holds {_named(strangers)} in {new:.1%} of the rows, which the reference has not, and no more "
        f"{_named(gone)}, which was there all the time with {old:.1%} (limit {policy.renamed:.1%}): renamed?"
    )
    return [_finding("recoded", feature, new, policy.renamed, words)]


def _permuted(
    policy: Quality, feature: Feature, then: Shares, now: Shares, history: list[dict[str, float]]
) -> list[Finding]:
    if sum(share >= _STEADY for share in then.values()) < 3:
        return []  # two frequencies that change places are as well a world that changes its mind
    moved, left = _variation(then, now), _ranked(then, now)
    if left > min(_ALIKE, moved / 4):
        return []
    limit = max(policy.permuted, _USUAL * max(_variation(then, part) for part in history))
    if moved < limit:
        return []
    words = (
        f"the categories of {feature.name} have the frequencies of the reference, but others have them: {moved:.1%} of "
        f"the rows lie otherwise (limit {limit:.1%}), {left:.1%} by rank alone: codes permuted?"
    )
    return [_finding("recoded", feature, moved, limit, words)]


def _missing(
    feature: Feature, reference: pd.Series, now: Shares, history: list[dict[str, float]], rows: int
) -> list[Finding]:
    """Find a category that was there all the time and is not any more, while the others are what they were.

    A column that stays the same for hours belongs to the calendar or the weather: a weekday is missing where a day is.
    """
    values = reference.dropna().to_numpy()
    if len(values) >= _LINGERS * (1 + int((values[1:] != values[:-1]).sum())):
        return []
    least = {value: min(part.get(value, 0.0) for part in history) for value in history[0]}
    steady = {value: share for value, share in least.items() if share >= _telling(rows)}
    absent = {value: share for value, share in steady.items() if now.get(value, 0.0) < _LEFT * share}
    others = {value: share for value, share in least.items() if share > 0 and value not in absent}
    if not absent or len(others) < 2:
        return []
    rest = sum(now.get(value, 0.0) for value in others)
    if rest <= 0 or any(not _in_proportion(value, others, now, history) for value in others):
        return []
    words = (
        f"{feature.name} holds {_named(absent)} in {sum(now.get(value, 0.0) for value in absent):.1%} of the rows, "
        f"which was there all the time with {sum(absent.values()):.1%} at least, and the other categories as ever: "
        "a source that is missing?"
    )
    value = sum(absent.values())
    return [_finding("missing", feature, value, min(absent.values()), words)]


def _telling(rows: int) -> float:
    """Return the share that a category needs before its absence among so many rows says anything."""
    return max(_PRESENT, FEWEST_VALUES / max(rows, 1))


def _in_proportion(value: str, others: Shares, now: Shares, history: list[dict[str, float]]) -> bool:
    """Return whether a category has, among the others, a share that it had before."""
    usual = [part.get(value, 0.0) / max(sum(part.get(one, 0.0) for one in others), 1e-9) for part in history]
    share = now.get(value, 0.0) / sum(now.get(one, 0.0) for one in others)
    room = max(usual) - min(usual) + 0.1 * max(usual)
    return min(usual) - room <= share <= max(usual) + room


def _shares(column: pd.Series) -> dict[str, float]:
    return next(iter(_history(column, [slice(0, len(column))])), {})


def _history(column: pd.Series, parts: list[slice]) -> list[dict[str, float]]:
    """Return the categories' shares in each part, the most frequent first; parts without any value are left out."""
    # Told apart once for all parts: a year of days asks for the shares of hundreds of them at every check.
    codes, categories = pd.factorize(column)
    # The lake may bring integers as floats, where one is null.
    keys = [str(int(value)) if isinstance(value, (int, float)) else str(value) for value in categories.tolist()]
    found = []
    for part in parts:
        counts = np.bincount(codes[part] + 1, minlength=len(keys) + 1)[1:]  # nulls have the code -1
        held = np.flatnonzero(counts)
        order = held[np.argsort(-counts[held], kind="stable")]
        whole = counts.sum()
        if whole:
            found.append({keys[place]: float(counts[place] / whole) for place in order})
    return found


def _variation(one: Shares, other: Shares) -> float:
    return sum(abs(one.get(value, 0.0) - other.get(value, 0.0)) for value in {*one, *other}) / 2


def _ranked(one: Shares, other: Shares) -> float:
    size = max(len(one), len(other))
    first, second = (np.sort(np.pad(list(side.values()), (0, size - len(side)))) for side in (one, other))
    return float(np.abs(first - second).sum() / 2)


def _named(shares: Shares) -> str:
    return ", ".join(repr(value) for value in list(shares)[:3]) + (" …" if len(shares) > 3 else "")


def _shapes(schema: Schema, frame: pd.DataFrame) -> dict[str, Floats]:
    numeric = [feature.name for feature in schema.features if feature.kind == "numeric"]
    return {name: shape for name in numeric if len(shape := _shape(frame[name]))}


def _shape(column: pd.Series) -> Floats:
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    values = values[np.isfinite(values)]
    return np.quantile(values, LEVELS) if len(values) >= FEWEST_VALUES else np.empty(0)


def _spread(shape: Floats) -> float:
    return float(shape[-1] - shape[0])


def _distance(shape: Floats, reference: Floats) -> float:
    """Return the mean distance of quantiles as a share of the reference's spread."""
    return float(np.abs(shape - reference).mean() / _spread(reference)) if len(shape) else 0.0


def _finding(check: str, feature: Feature, value: float, limit: float, reason: str) -> Finding:
    return Finding(check=check, column=feature.name, value=value, limit=limit, reason=reason)
