"""Small real versions, packed as a trainer would, for the tests of serving and of the api."""

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.domain.answer import answers
from service.domain.spec import Feature, ModelSpec, Schema
from service.domain.version import VersionState
from service.serving.decode import Decoder
from service.storage import champions, models, versions
from service.storage.artifacts import ArtifactStore
from service.storage.champions import SwapKind
from service.storage.database import Database
from service.storage.spool import SpoolWriter
from service.storage.versions import VersionRow

__all__ = ["AT", "FLIP", "PRICE", "crown", "flip", "instance", "named", "pack", "price", "register", "spool"]

AT = datetime(2026, 1, 1, tzinfo=UTC)

FLIP = Schema(
    model="flip",
    task="classification",
    timestamp="at",
    features=(
        Feature("a"),
        Feature("b", low=-5, high=5),
        Feature("n", nullable=True, low=0, high=1, refuse=True),
        Feature("on", kind="boolean"),
        Feature("zone", kind="categorical", categories=(1, 2, 3)),
    ),
    integer_categories=("zone",),
    label="string",
    classes=("DOWN", "UP"),
)
PRICE = Schema(
    model="price",
    task="regression",
    timestamp="at",
    features=tuple(Feature(f"f{place}") for place in range(8)),
    label="number",
)
POLICIES = ModelSpec(
    name="any", task="regression", target="y", timestamp="at", build=lambda: None, metric="r2", source="any.csv"
).policies()
"""The default ones."""


class NullsToZero:
    """A first pipeline step that takes nulls."""

    def fit(self, X: Any, y: Any = None) -> "NullsToZero":  # noqa: ARG002  scikit-learn's signature
        return self

    def transform(self, X: Any) -> Any:
        return np.nan_to_num(X)


NullsToZero.__module__ = "tests.served"
sys.modules.setdefault("tests.served", sys.modules[__name__])


def instance(**overrides: Any) -> dict[str, Any]:
    """Return a right row of `FLIP`."""
    return {"a": 0.5, "b": 1, "n": None, "on": True, "zone": 2, **overrides}


def named(schema: Schema, model: str) -> Schema:
    """Return the schema as another model's."""
    return replace(schema, model=model)


def flip(seed: int = 0) -> Any:
    """Return a fitted classifier for `FLIP`; another seed gives another one."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 5))
    y = np.where(X @ rng.normal(size=5) > 0, "UP", "DOWN")
    return make_pipeline(NullsToZero(), StandardScaler(), LogisticRegression()).fit(X, y)


def price(seed: int = 0) -> Any:
    """Return a fitted regressor for `PRICE`."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 8))
    return make_pipeline(StandardScaler(), LinearRegression()).fit(X, X @ rng.normal(size=8))


def pack(
    store: ArtifactStore, schema: Schema, estimator: Any, *, number: int = 1, rows: Sequence[Any] | None = None
) -> VersionRow:
    """Store `estimator` and return its version's row."""
    if rows is None:
        rows = [instance(a=step / 4, n=0.5) for step in range(8)] if schema is FLIP else _numbers(schema)
    block = Decoder(schema).decode(msgspec.json.encode({"instances": rows}), max_rows=100)
    outputs, probabilities = answers(estimator, "argmax", schema.classes, Decoder(schema).layout.design(block))
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return VersionRow(
        model=schema.model,
        version=number,
        state=VersionState.APPROVED,
        run_id=None,
        parent=None,
        artifact=store.put(buffer.getvalue()),
        manifest={
            "format": 1,
            "schema": schema.to_json(),
            "output": "argmax" if schema.classes else "predict",
            "classes": list(schema.classes),
            "golden": {
                "rows": list(rows),
                "outputs": outputs.tolist(),
                "probabilities": None if probabilities is None else probabilities.tolist(),
            },
            "libraries": {"scikit-learn": installed("scikit-learn")},
        },
        lineage={},
        metrics={"metric": "accuracy", "value": 0.7, "loss": 0.3},
        reference={},
        learned_until=AT,
        created_at=AT,
    )


def register(database: Database, schema: Schema) -> None:
    """Register the schema's model."""
    with database.write() as conn:
        spec = {"task": schema.task, "metric": "accuracy", "schema": schema.to_json(), "policies": POLICIES}
        models.register(conn, schema.model, spec_json=spec, file=f"models/{schema.model}.py", at=AT)


def crown(database: Database, row: VersionRow, *, kind: SwapKind = "promote") -> int:
    """Make the version champion, whatever stood before; return the generation."""
    with database.write() as conn:
        if versions.find(conn, row.model, row.version) is None:
            versions.insert(conn, row)
        current = champions.current(conn, row.model)
        return champions.swap(
            conn,
            row.model,
            version=row.version,
            expected_generation=current.generation if current else 0,
            actor="test",
            reason="test",
            kind=kind,
            run_id=None,
            event_time=None,
            at=AT,
        ).generation


def spool(folder: Path, *, cap_bytes: int = 1 << 30) -> SpoolWriter:
    """Return a writer on a spool in `folder`."""
    return SpoolWriter(folder, max_bytes=1 << 22, max_age_s=0.2, cap_bytes=cap_bytes, sync=False)


def _numbers(schema: Schema) -> list[dict[str, Any]]:
    return [{name: step + place / 8 for place, name in enumerate(schema.names)} for step in range(8)]
