"""One look at one window, in the order that matters: quality, drift, realised performance."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from service.domain.check import ColumnDrift, DriftTest, Examination, Performance, verdict_of
from service.domain.duration import parse_window
from service.domain.policy import Drift, Quality
from service.domain.spec import Schema
from service.learning.blocks import is_short
from service.learning.calibration import ROWS, Calibration
from service.learning.columns import thinned
from service.learning.drift import compare
from service.learning.estimate import estimated
from service.learning.frames import EVENT_TIME, OUTPUT
from service.learning.maturity import mature_rows
from service.learning.metric import metric_of
from service.learning.performance import newest, realised
from service.learning.predictor import Predictor
from service.learning.quality import look
from service.learning.truths import mislabelled

__all__ = ["examine", "reference_rows"]


def reference_rows(policy: Drift, rows: pd.DataFrame, champion: Predictor) -> pd.DataFrame:
    """Return the reference of a version: what it learned from, and what it answers there.

    Parameters
    ----------
    policy
        Bounds the number of rows.
    rows
        Those that `champion` learned from, in canonical columns.
    champion
        The version.

    Returns
    -------
    pandas.DataFrame
        At most `policy.sample` rows spread evenly in time, with `output`; more of them where a window is shorter than a
        week and is compared with like hours. It belongs to the version: make it once.
    """
    most = policy.sample * (ROWS if is_short(parse_window(policy.window)) else 1)
    reference = thinned(rows.sort_values(EVENT_TIME, kind="stable"), most).reset_index(drop=True)
    outputs, _ = champion.answer(reference)
    return reference.assign(**{OUTPUT: outputs})


def examine(
    schema: Schema,
    *,
    quality: Quality,
    drift: Drift,
    metric: str,
    reference: pd.DataFrame,
    window: pd.DataFrame,
    answered: pd.DataFrame,
    reference_loss: float | None,
    stragglers: pd.DataFrame | None = None,
    calibration: Calibration | None = None,
    baseline: Mapping[str, Any] | None = None,
    version: int | None = None,
    tolerated: float = 0.1,
) -> Examination:
    """Return all that a check sees; the decision is `service.domain.decision`'s.

    Parameters
    ----------
    schema
        The champion's.
    quality, drift
        The model's policies.
    metric
        Scorer name.
    reference
        As `reference_rows` gave it.
    window
        Newest rows with `output` (and `answered_at`), whatever version answered them.
    answered
        Rows that the present champion answered, joined with labels; see `service.learning.performance.realised`.
    reference_loss
        The champion's loss on its own holdout.
    stragglers
        Rows that came with the window's and lie before it.
    calibration
        Of the version, as `service.learning.calibration.calibrate` gave it; without it drift is `uncalibrated`.
    baseline
        What the champion took with it from its holdout; None for a version without one.
    version
        The champion's number: of the window's rows only those that it answered say what its loss may be.
    tolerated
        Rise of an estimated loss that is no harm, as a share of the reference loss.

    Returns
    -------
    Examination
        A window with broken data has no drift figures: what is broken was not evaluated, which is not "no drift".

    Raises
    ------
    CheckFailed
        If a feature's column is missing.
    """
    # Sorting copies: a million rows of fifty columns are 400 MB.
    is_sorted = EVENT_TIME in window.columns and window[EVENT_TIME].is_monotonic_increasing
    ordered = window if is_sorted else window.sort_values(EVENT_TIME, kind="stable")
    findings = look(schema, quality, reference=reference, window=ordered, stragglers=stragglers)
    mature, _ = mature_rows(answered, parse_window(drift.window)) if len(answered) else (answered, 0.0)
    stretch = newest(mature, parse_window(drift.window))
    findings += tuple(mislabelled(schema, quality, metric, answered=stretch, reference_loss=reference_loss))
    columns: tuple[ColumnDrift, ...] = ()
    tested: DriftTest | None = None
    if not findings and len(ordered) >= drift.min_rows:
        columns, tested = compare(schema, drift, reference=reference, window=ordered, calibration=calibration)
    verdict, reason = verdict_of(
        rows=len(ordered), min_rows=drift.min_rows, findings=findings, columns=columns, drift=tested
    )
    performance = realised(
        schema,
        metric,
        answered,
        window=parse_window(drift.window),
        reference_loss=reference_loss,
        min_rows=drift.min_rows,
        baseline=baseline,
    )
    if not findings and baseline is not None:
        own = ordered[ordered["version"] == version] if version is not None and "version" in ordered else ordered
        performance = _with_estimate(
            performance, schema, metric, baseline, drift, reference=reference, window=own, tolerated=tolerated
        )
    return Examination(
        verdict=verdict,
        reason=reason,
        rows=len(ordered),
        findings=findings,
        columns=columns,
        performance=performance,
        drift=tested,
    )


def _with_estimate(
    performance: Performance,
    schema: Schema,
    metric: str,
    baseline: Mapping[str, Any],
    drift: Drift,
    *,
    reference: pd.DataFrame,
    window: pd.DataFrame,
    tolerated: float,
) -> Performance:
    try:
        estimate, why_not = estimated(
            schema,
            metric_of(metric, schema),
            baseline.get("estimator"),
            reference=reference,
            window=window,
            tolerated=tolerated,
            min_rows=drift.min_rows,
        )
    except Exception as error:  # noqa: BLE001  an estimate is an aid: what was realised stands without it
        estimate, why_not = None, f"{type(error).__name__}: {error}"
    if estimate is not None:
        return replace(performance, estimate=estimate)
    return replace(performance, reason=f"{performance.reason}; no estimate: {why_not}")
