"""What a new version's drift is measured by: its clean windows, its features' weights, its answers to unseen rows."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.errors import TrainingFailed
from service.domain.spec import ModelSpec
from service.learning.blocks import Block
from service.learning.calibration import ROWS, Calibration, calibrate
from service.learning.candidates import fit
from service.learning.columns import thinned, values_of
from service.learning.distances import distances_of
from service.learning.frames import EVENT_TIME, LABEL, OUTPUT, labels
from service.learning.metric import Metric, metric_of
from service.learning.predictor import Predictor

__all__ = ["calibrated", "importance", "optimism"]

_JUDGED = 2_000
"""Held-out rows that show what a feature is worth."""
_REPEATS = 2
_STRETCHES = 8
"""Stretches of the reference, every second of which a second fit does not see."""


def calibrated(
    spec: ModelSpec, predictor: Predictor, rows: pd.DataFrame, *, holdout: pd.DataFrame, seed: int
) -> Calibration:
    """Return the calibration of a version.

    Parameters
    ----------
    spec
        Its policies and its recipe.
    predictor
        The version.
    rows
        All that it learned from, labelled; not changed.
    holdout
        Newest labelled rows: what its features are worth is measured on them.
    seed
        Of permutations and of the second fit.
    """
    ordered = rows.sort_values(EVENT_TIME, kind="stable")
    kept = thinned(ordered, ROWS * spec.drift.sample).reset_index(drop=True)
    kept = kept.assign(**{OUTPUT: predictor.answer(kept)[0]})
    return calibrate(
        predictor.schema,
        spec.drift,
        kept,
        importance(predictor, metric_of(spec.metric, predictor.schema), holdout, seed=seed),
        shift=optimism(spec, predictor, thinned(kept, spec.drift.sample), seed=seed),
        rows=len(ordered),
    )


def importance(predictor: Predictor, metric: Metric, rows: pd.DataFrame, *, seed: int) -> dict[str, float]:
    """Return by how much the loss rises when a feature's values are dealt out anew; empty where it can't be told."""
    known = thinned(rows[rows[LABEL].notna()], _JUDGED)
    if known.empty:
        return {}
    random, truth = np.random.default_rng(seed), labels(predictor.schema, known)
    try:
        before = metric.loss(truth, *predictor.answer(known))
        return {
            feature.name: float(
                np.mean(
                    [
                        metric.loss(truth, *predictor.answer(_shuffled(known, feature.name, random))) - before
                        for _ in range(_REPEATS)
                    ]
                )
            )
            for feature in predictor.schema.features
        }
    except ValueError:
        return {}  # not defined on these rows, such as a rank among one class only: all features count alike


def optimism(spec: ModelSpec, predictor: Predictor, rows: pd.DataFrame, *, seed: int) -> float:
    """Return how far the version's answers lie from those of a second fit that has not seen the rows.

    An estimator that knows its rows by heart answers them more boldly than new ones, and every window is of new ones:
    without this a forest's answers drift from the first day on. Both distances are metrics, so that a window's may be
    longer by no more than this.
    """
    stretch = np.arange(len(rows)) * _STRETCHES // max(len(rows), 1) % 2 == 1
    unseen = rows.loc[stretch]
    try:
        second, _ = fit(spec, predictor.schema, rows.loc[~stretch], seed=seed)
        new, _ = second.answer(unseen)
    except (TrainingFailed, ValueError, IndexError):
        return 0.0  # too few rows for a second fit
    both = pd.concat([unseen, unseen.assign(**{OUTPUT: new})], ignore_index=True)
    *_, output = values_of(predictor.schema, both)
    if output.kind == "categorical" and spec.drift.categorical == "TVD":
        return 0.0
    own: NDArray[np.bool_] = np.arange(len(both)) >= len(unseen)
    return distances_of(output, spec.drift).distance(Block(place=0, own=own, rest=~own)) or 0.0


def _shuffled(rows: pd.DataFrame, name: str, random: np.random.Generator) -> pd.DataFrame:
    return rows.assign(**{name: rows[name].to_numpy()[random.permutation(len(rows))]})
