"""Candidates: the same recipe fitted on histories of different length and weighting, told apart by the holdout."""

import inspect
import warnings
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter
from sklearn.pipeline import Pipeline

from service.domain.duration import format_duration
from service.domain.errors import TrainingFailed
from service.domain.history import parse_history
from service.domain.spec import ModelSpec, Schema
from service.learning.frames import EVENT_TIME, between, design, labels
from service.learning.metric import metric_of
from service.learning.predictor import Predictor, output_mode_of
from service.learning.resampling import Answers

__all__ = [
    "Candidate",
    "Fitted",
    "answers_of",
    "choose",
    "fit",
    "fit_candidates",
    "seeded",
    "start_of",
    "weight_parameter",
    "weights_of",
]

Progress = Callable[[str, int, int, str], None]

_MODE_ROWS = 500
"""Rows on which `argmax` is proved to be what `predict` says."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One row of the run's table of candidates."""

    window: str
    """The history, as the training policy names it."""
    rows: int
    """Rows it was fitted on."""
    weighting: str = "none"
    """How older rows lost weight: ``half-life`` with its length, or ``none``."""
    effective_rows: int | None = None
    """What these rows count for together where some weigh less: (sum of weights)² / sum of squares."""
    loss: float | None
    """On the holdout; None where it could not be fitted or judged."""
    chosen: bool = False
    note: str = ""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = TypeAdapter(Candidate).dump_python(self, mode="json")
        return plain


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A candidate with what was fitted."""

    window: str
    rows: pd.DataFrame
    predictor: Predictor
    answers: Answers
    loss: float
    half_life: timedelta | None = None


def start_of(window: str, end: datetime) -> datetime | None:
    """Return the moment after which rows of `window` lie that ends at `end`; None for all rows."""
    return parse_history(window).start(end)


def weight_parameter(estimator: Any) -> str | None:
    """Return the name under which `estimator.fit` takes a weight for each row; None if it takes none.

    Of a Pipeline the last step takes them: the steps before it see the rows as they are.
    """
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        inner = None if last is None or isinstance(last, str) else weight_parameter(last)
        return None if inner is None else f"{name}__{inner}"
    try:
        return "sample_weight" if "sample_weight" in inspect.signature(estimator.fit).parameters else None
    except (AttributeError, TypeError, ValueError):  # no signature to be had, or no fit at all
        return None


def weights_of(rows: pd.DataFrame, half_life: timedelta) -> NDArray[np.float64]:
    """Return each row's weight: half of it is lost with every `half_life` before the newest row; their mean is 1.

    The mean, because some estimators weigh their regularisation against the sum of the weights.
    """
    times = rows[EVENT_TIME]
    age = (times.max() - times).dt.total_seconds().to_numpy() / half_life.total_seconds()
    weights = np.exp2(-age)
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def fit(
    spec: ModelSpec, schema: Schema, rows: pd.DataFrame, *, seed: int, half_life: timedelta | None = None
) -> tuple[Predictor, tuple[str, ...]]:
    """Return a fresh estimator fitted on `rows`, and the warnings it gave.

    With a `half_life` older rows weigh less, where the estimator takes weights; else all weigh the same.

    Raises
    ------
    TrainingFailed
        If the estimator raises, or the rows hold one class only.
    """
    estimator = seeded(spec.build(), seed)
    X, y = design(schema, rows), labels(schema, rows)
    if schema.task == "classification" and len(pd.unique(y)) < 2:
        msg = f"the {len(rows)} rows hold one class only"
        raise TrainingFailed(msg, reason="one_class")
    name = None if half_life is None else weight_parameter(estimator)
    weights = {} if half_life is None or name is None else {name: weights_of(rows, half_life)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.fit(X, y, **weights)
        except (MemoryError, BrokenProcessPool):
            raise  # memory ran out, here or in a process of the estimator's: another try may find the room
        except Exception as error:
            words = str(error).splitlines()[0] if str(error) else ""
            msg = f"the estimator could not be fitted: {type(error).__name__}: {words}"
            raise TrainingFailed(msg, reason="train_error") from error
    fitted = _with_classes(schema, estimator)
    predictor = Predictor(
        estimator=estimator,
        schema=fitted,
        output_mode=output_mode_of(estimator, fitted, rows.tail(_MODE_ROWS)),
        learned_until=rows[EVENT_TIME].iloc[-1].to_pydatetime(),
    )
    return predictor, tuple(sorted({f"{w.category.__name__}: {w.message}"[:300] for w in caught}))


def fit_candidates(
    spec: ModelSpec, schema: Schema, past: pd.DataFrame, holdout: pd.DataFrame, *, seed: int, progress: Progress
) -> tuple[list[Fitted], list[Candidate]]:
    """Fit one candidate per training window and score it on the holdout.

    Parameters
    ----------
    spec, schema
        The model.
    past
        Rows before the holdout, in time order.
    holdout
        Rows strictly later; no candidate sees them.
    seed
        Of every candidate alike.
    progress
        Is told of each fit.

    Returns
    -------
    list of Fitted, list of Candidate
        What could be judged, and the whole table, both in the order of the policy's windows.
    """
    fitted: list[Fitted] = []
    table: list[Candidate] = []
    end = past[EVENT_TIME].iloc[-1].to_pydatetime()
    windows = spec.training.windows
    for position, window in enumerate(windows):
        progress("training", position, len(windows), f"fitting on {window}")
        history = parse_history(window)
        rows = between(past, after=history.start(end), until=None)
        half_life = history.half_life if history.half_life and weight_parameter(spec.build()) else None
        line = _line(window, rows, half_life)
        unweighted = "the estimator takes no weights: " if history.half_life != half_life else ""
        line = replace(line, note=f"{unweighted}fitted without" if unweighted else "")
        twin = _twin(fitted, rows, half_life)
        if twin is not None:
            line = replace(line, note=f"{unweighted}the same rows as {twin.window}")
        elif len(rows) < spec.training.min_rows:
            line = replace(line, note=f"fewer than {spec.training.min_rows} rows")
        else:
            line, one = _tried(spec, schema, line, rows, holdout, half_life=half_life, seed=seed)
            fitted += [] if one is None else [one]
        table.append(line)
    return fitted, table


def _line(window: str, rows: pd.DataFrame, half_life: timedelta | None) -> Candidate:
    if half_life is None or rows.empty:
        return Candidate(window=window, rows=len(rows), loss=None)
    weights = weights_of(rows, half_life)
    effective = round(float(weights.sum() ** 2 / (weights**2).sum()))
    words = f"half-life {format_duration(half_life)}"
    return Candidate(window=window, rows=len(rows), loss=None, weighting=words, effective_rows=effective)


def _twin(fitted: list[Fitted], rows: pd.DataFrame, half_life: timedelta | None) -> Fitted | None:
    """Return what was fitted on the same rows with the same weights already."""
    return next((other for other in fitted if len(other.rows) == len(rows) and other.half_life == half_life), None)


def _tried(
    spec: ModelSpec,
    schema: Schema,
    line: Candidate,
    rows: pd.DataFrame,
    holdout: pd.DataFrame,
    *,
    half_life: timedelta | None,
    seed: int,
) -> tuple[Candidate, Fitted | None]:
    """Fit and score one candidate; one that can't be is a line with a note, and the others go on."""
    try:
        predictor, warned = fit(spec, schema, rows, seed=seed, half_life=half_life)
        answers = answers_of(predictor, holdout)
        metric = metric_of(spec.metric, predictor.schema)
        loss = metric.loss(labels(schema, holdout), answers.output, answers.probabilities)
    except (TrainingFailed, ValueError) as error:
        return replace(line, note=str(error).splitlines()[0]), None
    one = Fitted(window=line.window, half_life=half_life, rows=rows, predictor=predictor, answers=answers, loss=loss)
    return replace(line, loss=loss, warnings=warned), one


def choose(fitted: list[Fitted]) -> Fitted:
    """Return the candidate with the lowest loss; of equals the first, so that the policy's order decides."""
    return min(fitted, key=lambda candidate: candidate.loss)


def answers_of(predictor: Predictor, rows: pd.DataFrame) -> Answers:
    """Return what `predictor` answers to `rows`, as the gate takes it."""
    output, probabilities = predictor.answer(rows)
    return Answers(output=output, probabilities=probabilities)


def seeded(estimator: Any, seed: int) -> Any:
    """Return `estimator` with `seed` in every `random_state` that was left open, nested ones included."""
    open_states = {
        name: seed
        for name, value in estimator.get_params(deep=True).items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    }
    return estimator.set_params(**open_states) if open_states else estimator


def _with_classes(schema: Schema, estimator: Any) -> Schema:
    if schema.task == "regression":
        return schema
    known = np.asarray(estimator.classes_)
    classes = [str(label) for label in known] if schema.label == "string" else [int(label) for label in known]
    return Schema.from_json(schema.to_json() | {"classes": classes})
