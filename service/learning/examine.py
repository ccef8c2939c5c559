"""One look at one window, in the order that matters: quality, drift, realised performance."""

import pandas as pd

from service.domain.check import ColumnDrift, DriftTest, Examination, verdict_of
from service.domain.duration import parse_window
from service.domain.policy import Drift, Quality
from service.domain.spec import Schema
from service.learning.blocks import is_short
from service.learning.calibration import ROWS, Calibration
from service.learning.columns import thinned
from service.learning.drift import compare
from service.learning.frames import EVENT_TIME, OUTPUT
from service.learning.performance import realised
from service.learning.predictor import Predictor
from service.learning.quality import look

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
