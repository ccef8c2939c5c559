"""Where shifts are injected: synthetic rows with memory, and the shipped tables, shuffled and in their own order."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.inspection import permutation_importance

from bench.decisions_rivals import Kind
from bench.decisions_rows import Shift, answer, columns_of, rows_of, schema_of, weights
from service.domain.spec import ModelSpec, Schema
from service.learning.frames import EVENT_TIME, OUTPUT, canonical, design, labels
from service.learning.schema import infer

__all__ = ["NAMES", "Source", "shifts_of", "source_of"]

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    "AR 0.5", "AR 0.9", "electricity, shuffled", "electricity, in order", "bikes, shuffled", "bikes, in order",
)  # fmt: skip
SHARES = (0.1, 0.5, 1.0)
SHAPES: tuple[Any, ...] = ("abrupt", "gradual")
_DAY_ROWS = {"electricity": 48, "bikes": 24}
_JOINED = 17_424
"""Before this row three of electricity's columns stand still: the market of Victoria had not joined."""
_REFERENCE = 0.58
"""Share of a table's rows that is the reference."""
_TREES = 30
_ASKED = 2_000
_VARIED = 20
"""A number with fewer values than this is no number that could shift by a deviation."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A reference and the rows after it, both with a model's answers; a window is a week: all hours are in it."""

    name: str
    schema: Schema
    reference: pd.DataFrame
    later: pd.DataFrame
    rows: int
    """Rows a window."""
    weights: dict[str, float]
    answer: Callable[[pd.DataFrame], NDArray[Any]]

    @property
    def kinds(self) -> dict[str, Kind]:
        """Columns that are compared."""
        return columns_of(self.schema)


def source_of(name: str, *, seed: int) -> Source:
    """Return the source of that name."""
    random = np.random.default_rng([seed, NAMES.index(name)])
    if name.startswith("AR"):
        return _synthetic(name, random)
    table, order = name.split(", ")
    return _table(table, order, random)


def _synthetic(name: str, random: np.random.Generator) -> Source:
    rows, reference, later = 500, 84, 60
    frame = rows_of(name, reference + later, rows=rows, random=random, length=pd.Timedelta(days=7))
    return Source(
        name=name,
        schema=schema_of(name),
        reference=frame.iloc[: reference * rows],
        later=frame.iloc[reference * rows :],
        rows=rows,
        weights=weights(),
        answer=answer,
    )


def _table(name: str, order: str, random: np.random.Generator) -> Source:
    spec: ModelSpec = importlib.import_module(f"models.{name}").spec
    source = pd.read_parquet(ROOT / spec.source)
    schema = infer(spec, source)
    rows = canonical(spec, schema, source)
    if name == "electricity":
        rows = rows.iloc[_JOINED:]
    if order == "shuffled":
        times = rows[EVENT_TIME].to_numpy()
        rows = rows.iloc[random.permutation(len(rows))].assign(**{EVENT_TIME: times})
        rows[EVENT_TIME] = pd.to_datetime(rows[EVENT_TIME], utc=True).astype("datetime64[us, UTC]")
    rows = rows.reset_index(drop=True)
    many = round(_REFERENCE * len(rows))
    learned = rows.iloc[:many]
    estimator = clone(spec.build()).set_params(max_iter=_TREES).fit(design(schema, learned), labels(schema, learned))

    def answered(frame: pd.DataFrame) -> NDArray[Any]:
        answers: NDArray[Any] = np.asarray(estimator.predict(design(schema, frame)))
        return answers

    rows[OUTPUT] = answered(rows)
    asked = learned.iloc[random.permutation(many)[:_ASKED]]
    found = permutation_importance(
        estimator, design(schema, asked), labels(schema, asked), n_repeats=3, random_state=0
    ).importances_mean
    parts = np.clip(found, 0, None)
    shares = dict(zip(schema.names, (parts / max(parts.sum(), 1e-12)).tolist(), strict=True))
    return Source(
        name=f"{name}, {order}",
        schema=schema,
        reference=rows.iloc[:many],
        later=rows.iloc[many:],
        rows=7 * _DAY_ROWS[name],
        weights=shares,
        answer=answered,
    )


def shifts_of(source: Source) -> list[Shift]:
    """Return every shift that is tried on a source: the most and the least important column of each kind."""
    numbers = [
        feature.name
        for feature in source.schema.features
        if feature.kind == "numeric" and source.reference[feature.name].nunique() >= _VARIED
    ]
    categories = [feature.name for feature in source.schema.features if feature.kind != "numeric"]
    found = []
    for what, names in (("mean", numbers), ("variance", numbers), ("category", categories)):
        ranked = sorted(names, key=lambda name: -source.weights[name])
        roles = {"important": ranked[0]} | ({"unimportant": ranked[-1]} if len(ranked) > 1 else {})
        found += [
            Shift(column=column, role=role, what=what, share=share, shape=shape)  # type: ignore[arg-type]
            for role, column in roles.items()
            for share in SHARES
            for shape in SHAPES
        ]
    return found
