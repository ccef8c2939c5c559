"""Slices: parts of the holdout on which a challenger must not be proved worse, however good it is on the whole."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.gate import Clause, Outcome
from service.domain.policy import Gate
from service.domain.spec import Schema
from service.learning.metric import Metric
from service.learning.resampling import Answers, block_length, resampled_means, row_losses

__all__ = ["Slice", "holm", "judge_slices", "slices_of"]

Array = NDArray[Any]
MOST = 60
"""So many slices of one feature are looked at, the largest first."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some of the holdout's rows."""

    name: str
    rows: Array
    """Places, ascending."""


def slices_of(policy: Gate, schema: Schema, holdout: pd.DataFrame) -> tuple[Slice, ...]:
    """Return the declared slices of the holdout's rows.

    A number without bins is cut into four, unless it has but a few values; nulls are a slice of their own.
    """
    kinds = {feature.name: feature.kind for feature in schema.features}
    found: list[Slice] = []
    for one in policy.slices:
        name, bins = (one, None) if isinstance(one, str) else one
        if name not in kinds:
            msg = f"gate.slices names {name!r}, which is no feature of the model"
            raise ValueError(msg)
        column = holdout[name].reset_index(drop=True)
        is_cut = kinds[name] == "numeric" and (bins is not None or column.nunique() > 8)
        keys = _binned(column, bins or 4) if is_cut else column.map(_word, na_action="ignore")
        groups = [(f"{name} = {key}", np.flatnonzero(keys == key)) for key in sorted(keys.dropna().unique())]
        groups.append((f"{name} is null", np.flatnonzero(column.isna())))
        largest = sorted((g for g in groups if len(g[1])), key=lambda group: -len(group[1]))[:MOST]
        names = {group[0] for group in largest}
        found += [Slice(name=label, rows=rows) for label, rows in groups if label in names]
    return tuple(found)


def judge_slices(
    policy: Gate,
    metric: Metric,
    *,
    truth: Array,
    champion: Answers,
    challenger: Answers,
    slices: Sequence[Slice],
    seed: int,
) -> tuple[Clause, list[dict[str, Any]]]:
    """Return the clause, and a line for each slice.

    Parameters
    ----------
    truth, champion, challenger
        Of the rows that `slices` count, in time order.
    """
    alpha = (1 - policy.confidence) / 2
    before, words = row_losses(metric, truth, champion)
    after, _ = row_losses(metric, truth, challenger)
    gains = before - after
    margin = policy.slice_margin * float(before.mean())
    lines = [_line(policy, one, before, after, gains, margin, seed=seed) for one in slices]
    thick = [line for line in lines if line["p"] is not None]
    for line, harmed in zip(thick, holm([line["p"] for line in thick], alpha), strict=True):
        line["harmed"] = harmed and line["gain"] < -margin
    return _clause(policy, lines, words=words, margin=margin), lines


def holm(p: Sequence[float], alpha: float) -> list[bool]:
    """Return which hypotheses fall, so that the chance of even one false fall stays below `alpha`.

    Notes
    -----
    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03], 0.05)
    [True, False, False]
    """
    order = sorted(range(len(p)), key=lambda place: p[place])
    falls = [False] * len(p)
    for rank, place in enumerate(order):
        if p[place] > alpha / (len(p) - rank):
            break
        falls[place] = True
    return falls


def _line(
    policy: Gate, one: Slice, before: Array, after: Array, gains: Array, margin: float, *, seed: int
) -> dict[str, Any]:
    own = gains[one.rows]
    line: dict[str, Any] = {
        "slice": one.name, "n": len(own), "champion": float(before[one.rows].mean()),
        "challenger": float(after[one.rows].mean()), "gain": float(own.mean()), "low": None, "high": None, "p": None,
        "harmed": False,
    }  # fmt: skip
    if len(own) >= policy.slice_rows:
        draws = resampled_means(own, block_length(own), resamples=policy.resamples, seed=seed)
        tail = (1 - policy.confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        # The chance of so low a gain where the slice is worse by just the margin: where it is small, harm is proved.
        p = (1 + int((draws >= -margin).sum())) / (1 + len(draws))
        line |= {"low": float(low), "high": float(high), "p": p}
    return line


def _clause(policy: Gate, lines: list[dict[str, Any]], *, words: str, margin: float) -> Clause:
    thick = [line for line in lines if line["p"] is not None]
    thin = len(lines) - len(thick)
    harmed = [line for line in thick if line["harmed"]]
    worst = min(thick, key=lambda line: line["high"], default=None)
    reason = f"none of {len(thick)} slices is proved worse by more than {margin:.4g} ({words}, Holm)"
    if harmed:
        named = "; ".join(
            f"{line['slice']} ({line['n']} rows): gain {line['gain']:.4g}, interval up to {line['high']:.4g}"
            for line in harmed[:3]
        )
        reason = (
            f"{len(harmed)} of {len(thick)} slices are proved worse by more than {margin:.4g} ({words}, Holm): {named}"
        )
    if thin:
        reason += f"; {thin} with fewer than {policy.slice_rows} rows were not judged"
    return Clause(
        name="slices",
        value=None if worst is None else worst["high"],
        threshold=-margin,
        n=sum(line["n"] for line in thick),
        outcome=Outcome.FAIL if harmed else Outcome.PASS,
        reason=reason,
    )


def _binned(column: pd.Series, bins: int) -> pd.Series:
    values = column.astype(np.float64)
    edges: Array = (
        np.unique(np.quantile(values.dropna(), np.linspace(0, 1, bins + 1)[1:-1]))
        if values.notna().any()
        else np.empty(0)
    )
    place = np.searchsorted(edges, values.to_numpy(), side="left").astype(float)
    names = [f"bin {i + 1} of {len(edges) + 1}{_span(edges, i)}" for i in range(len(edges) + 1)]
    return pd.Series([None if math.isnan(v) else names[int(i)] for v, i in zip(values, place, strict=True)])


def _span(edges: Any, place: int) -> str:
    low = None if place == 0 else edges[place - 1]
    high = None if place == len(edges) else edges[place]
    if low is None and high is None:
        return ""
    return f" (≤ {high:.4g})" if low is None else f" (> {low:.4g})" if high is None else f" ({low:.4g} to {high:.4g})"


def _word(value: Any) -> str:
    is_whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if is_whole else str(value)[:60]
