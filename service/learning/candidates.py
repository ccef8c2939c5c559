"""Candidates: the same recipe fitted on histories of different length, told apart by the holdout."""

import warnings
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from service.domain.duration import parse_duration
from service.domain.errors import TrainingFailed
from service.domain.spec import ModelSpec, Schema
from service.learning.frames import EVENT_TIME, between, design, labels
from service.learning.metric import metric_of
from service.learning.predictor import Predictor, output_mode_of
from service.learning.resampling import Answers

__all__ = ["Candidate", "Fitted", "answers_of", "choose", "fit", "fit_candidates", "seeded", "start_of"]

Progress = Callable[[str, int, int, str], None]

_MODE_ROWS = 500
"""Rows on which `argmax` is proved to be what `predict` says."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One row of the run's table of candidates."""

    window: str
    """Length of history, as the training policy names it."""
    rows: int
    """Rows it was fitted on."""
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


def start_of(window: str, end: datetime) -> datetime | None:
    """Return the moment after which rows of `window` lie that ends at `end`; None for all rows."""
    return None if window == "all" else end - parse_duration(window)


def fit(spec: ModelSpec, schema: Schema, rows: pd.DataFrame, *, seed: int) -> tuple[Predictor, tuple[str, ...]]:
    """Return a fresh estimator fitted on `rows`, and the warnings it gave.

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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.fit(X, y)
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
        rows = between(past, after=start_of(window, end), until=None)
        twin = next((other for other in fitted if len(other.rows) == len(rows)), None)
        if twin is not None:
            table.append(Candidate(window=window, rows=len(rows), loss=None, note=f"the same rows as {twin.window}"))
            continue
        if len(rows) < spec.training.min_rows:
            words = f"fewer than {spec.training.min_rows} rows"
            table.append(Candidate(window=window, rows=len(rows), loss=None, note=words))
            continue
        try:
            predictor, warned = fit(spec, schema, rows, seed=seed)
            answers = answers_of(predictor, holdout)
            metric = metric_of(spec.metric, predictor.schema)
            loss = metric.loss(labels(schema, holdout), answers.output, answers.probabilities)
        except (TrainingFailed, ValueError) as error:
            table.append(Candidate(window=window, rows=len(rows), loss=None, note=str(error).splitlines()[0]))
            continue
        fitted.append(Fitted(window=window, rows=rows, predictor=predictor, answers=answers, loss=loss))
        table.append(Candidate(window=window, rows=len(rows), loss=loss, warnings=warned))
    return fitted, table


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
