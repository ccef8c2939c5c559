"""Realised performance: the answers that were given against the labels that have arrived since."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from service.domain.check import Performance
from service.domain.duration import Window
from service.domain.spec import Schema
from service.learning.detector import change
from service.learning.frames import EVENT_TIME, LABEL, OUTPUT, between
from service.learning.losses import Blocks, blocks_of, by_words
from service.learning.maturity import mature_rows
from service.learning.metric import Metric, metric_of

__all__ = ["kappa_against_no_change", "newest", "no_change_accuracy", "realised"]

PROBABILITIES = "probabilities"


def realised(
    schema: Schema,
    metric: str,
    answered: pd.DataFrame,
    *,
    window: Window,
    reference_loss: float | None,
    min_rows: int,
    baseline: Mapping[str, Any] | None = None,
) -> Performance:
    """Return the performance on the newest stretch whose labels have mostly arrived.

    Parameters
    ----------
    schema
        With classes.
    metric
        Scorer name.
    answered
        Answers of the version that is judged: `event_time`, `output`, `label` (null while unknown), `observed_at`, and
        `probabilities` where there are any; not changed.
    window
        How long a stretch; it ends where the labels are mature, so that late labels shift it instead of thinning it.
    reference_loss
        The version's loss on its own holdout.
    min_rows
        Fewer labelled rows than this say nothing.
    baseline
        What the version took with it from its holdout; see `service.learning.baseline`. None: its losses are compared
        as a whole only.

    Returns
    -------
    Performance
        With value None where there are too few labels, or where the metric is not defined on them; `worse` as the
        detector says.
    """
    judged = metric_of(metric, schema)
    mature, reached = mature_rows(answered, window) if len(answered) else (answered, 0.0)
    stretch = newest(mature, window)
    known = stretch[stretch[LABEL].notna()] if len(stretch) else stretch
    value = loss = worse = None
    reason = f"{len(known)} labelled rows whose labels are mature; {min_rows} are needed"
    extra = _maturity(answered, stretch, known, reached)
    if len(known) >= min_rows:
        value, loss = _scored(schema, judged, known)
        extra |= _extra(schema, known)
        risen = change((baseline or {}).get("blocks"), _blocks(schema, judged, known, window))
        worse, reason = risen.worse, risen.reason
    return Performance(
        metric=judged.name,
        value=value,
        loss=loss,
        reference_loss=reference_loss,
        rows=len(stretch),
        labelled=len(known),
        delay_p50_s=_delay(known),
        extra=extra,
        worse=worse,
        reason=reason,
    )


def no_change_accuracy(truth: pd.Series) -> float:
    """Return how often a label equals the one before it, in time order: what saying "as before" would score."""
    values = truth.to_numpy()
    return float((values[1:] == values[:-1]).mean())


def kappa_against_no_change(truth: pd.Series, output: pd.Series) -> float:
    """Return accuracy put between that of "the same as before" (0) and perfect (1); negative when worse than it.

    The first row has no row before it and is left out on both sides.

    Notes
    -----
    Source: Bifet et al., Pitfalls in benchmarking data stream classification, ECML PKDD 2013 (kappa temporal).
    """
    idle = no_change_accuracy(truth)
    own = float((truth.to_numpy()[1:] == output.to_numpy()[1:]).mean())
    return (own - idle) / (1 - idle) if idle < 1 else (1.0 if own == 1 else float("-inf"))


def newest(mature: pd.DataFrame, window: Window) -> pd.DataFrame:
    """Return the newest stretch of rows in time order, as long as a window."""
    if mature.empty:
        return mature
    if window.duration is None:
        return mature.tail(window.rows or 0)
    return between(mature, after=mature[EVENT_TIME].iloc[-1] - window.duration, until=None)


def _blocks(schema: Schema, metric: Metric, known: pd.DataFrame, window: Window) -> Blocks | None:
    truth, output, probabilities = _arrays(schema, known)
    losses = metric.row_losses(truth, output, probabilities)
    if losses is None:
        return None
    return blocks_of(known[EVENT_TIME], np.asarray(losses, dtype=np.float64), by=by_words(window))


def _arrays(schema: Schema, known: pd.DataFrame) -> tuple[Any, Any, Any]:
    kind = {"number": np.float64, "integer": np.int64, "string": object}[schema.label]
    truth, output = known[LABEL].to_numpy(dtype=kind), known[OUTPUT].to_numpy(dtype=kind)
    probabilities = None
    if PROBABILITIES in known.columns and known[PROBABILITIES].notna().all():
        probabilities = np.array(known[PROBABILITIES].tolist(), dtype=np.float64)
    return truth, output, probabilities


def _scored(schema: Schema, metric: Metric, known: pd.DataFrame) -> tuple[float | None, float | None]:
    truth, output, probabilities = _arrays(schema, known)
    try:
        value = metric.value(truth, output, probabilities)
    except ValueError:
        return None, None  # one class only in the window, or no probabilities: the metric is not defined here
    return value, metric.loss(truth, output, probabilities)


def _extra(schema: Schema, known: pd.DataFrame) -> dict[str, float]:
    if schema.task == "regression" or len(known) < 2:
        return {}
    idle = no_change_accuracy(known[LABEL])
    figures = {"no_change": idle, "kappa_no_change": kappa_against_no_change(known[LABEL], known[OUTPUT])}
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def _maturity(answered: pd.DataFrame, stretch: pd.DataFrame, known: pd.DataFrame, reached: float) -> dict[str, float]:
    """Return how ripe the judged rows are: what a reader needs to trust the figures beside them."""
    if stretch.empty:
        return {"coverage_reached": reached}
    newest, until = answered[EVENT_TIME].max(), stretch[EVENT_TIME].iloc[-1]
    figures = {
        "coverage_reached": reached,
        "immature_rows": float((answered[EVENT_TIME] > until).sum()),
        "immature_s": float((newest - until).total_seconds()),
    }
    if "observed_at" in known.columns and known["observed_at"].notna().any():
        late = (known["observed_at"] - known[EVENT_TIME]).dt.total_seconds().quantile(0.9)
        figures["delay_p90_s"] = float(late)
    return figures


def _delay(known: pd.DataFrame) -> float | None:
    if "observed_at" not in known.columns or known.empty:
        return None
    delays = (known["observed_at"] - known[EVENT_TIME]).dt.total_seconds()
    return float(delays.median()) if delays.notna().any() else None
