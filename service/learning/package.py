"""A version's file: joblib bytes with a manifest that says how to prove that a load is the version that was judged."""

import hashlib
import io
import math
import pickle
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from typing_extensions import override

from service.domain.errors import ArtifactInvalid, TrainingFailed
from service.domain.spec import Feature, Schema
from service.learning.compiled import Compiled
from service.learning.lineage import libraries
from service.learning.predictor import Predictor

__all__ = ["GOLDEN_ROWS", "Package", "golden_frame", "package", "predictor_of", "unpack", "with_compiled"]

GOLDEN_ROWS = 32
"""Rows whose answers are kept with a version: enough to notice a wrong load, few enough to check at every load."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """An artifact, its digest, and its manifest (JSON).

    Attributes
    ----------
    graph
        The same version compiled, where that is proved; the manifest names its digest.
    compiled
        What came of compiling it, for the lineage.
    """

    artifact: bytes
    sha256: str
    manifest: dict[str, Any]
    graph: bytes | None = None
    compiled: dict[str, Any] | None = None


def package(predictor: Predictor, sample: pd.DataFrame) -> Package:
    """Return the file of a version, proved by loading it back.

    Parameters
    ----------
    predictor
        The fitted version.
    sample
        Rows with its features, out of which the golden rows are taken.

    Raises
    ------
    TrainingFailed
        If the file does not come back as what was packed.
    """
    artifact = _dump(predictor.estimator)
    rows = _golden_rows(predictor.schema, sample)
    frame = pd.DataFrame(rows, columns=list(predictor.schema.names))
    outputs, probabilities = predictor.answer(frame)
    loaded = Predictor(estimator=unpack(artifact), schema=predictor.schema, output_mode=predictor.output_mode)
    again, again_probabilities = loaded.answer(frame)
    if not _same(outputs, again) or not _same(probabilities, again_probabilities):
        msg = "the artifact answers otherwise after it was loaded back: the estimator does not survive joblib"
        raise TrainingFailed(msg, reason="round_trip")
    estimator = predictor.estimator
    manifest = {
        "format": 1,
        "schema": predictor.schema.to_json(),
        "output": predictor.output_mode,
        "classes": list(predictor.schema.classes),
        "golden": {
            "rows": rows,
            "outputs": outputs.tolist(),
            "probabilities": None if probabilities is None else probabilities.tolist(),
        },
        "libraries": libraries(),
        "estimator": {
            "class": f"{type(estimator).__module__}.{type(estimator).__qualname__}",
            "params": str(estimator),
        },
    }
    return Package(artifact=artifact, sha256=hashlib.sha256(artifact).hexdigest(), manifest=manifest)


def golden_frame(packed: Package, predictor: Predictor) -> pd.DataFrame:
    """Return the golden rows as a frame."""
    return pd.DataFrame(packed.manifest["golden"]["rows"], columns=list(predictor.schema.names))


def with_compiled(packed: Package, verdict: Compiled) -> Package:
    """Return `packed` with what came of compiling it: the manifest says what a worker needs, the lineage all of it."""
    told = verdict.to_json()
    if verdict.content is None:
        manifest = {**packed.manifest, "compiled": {verdict.outcome: verdict.reason}}
        return replace(packed, manifest=manifest, compiled=told)
    sha256 = hashlib.sha256(verdict.content).hexdigest()
    needed = {name: told[name] for name in ("format", "opsets", "tolerance", "libraries")}
    return replace(
        packed,
        manifest={**packed.manifest, "compiled": {"artifact": sha256, **needed}},
        graph=verdict.content,
        compiled={"sha256": sha256, **told},
    )


def unpack(artifact: bytes) -> Any:
    """Return the estimator in `artifact`. Only for bytes whose digest the store has verified: joblib runs code.

    Raises
    ------
    ArtifactInvalid
        If they cannot be loaded.
    """
    try:
        return joblib.load(io.BytesIO(artifact))
    except Exception as error:
        msg = f"the artifact cannot be loaded: {type(error).__name__}"
        raise ArtifactInvalid(msg) from error


def predictor_of(
    artifact: bytes, manifest: dict[str, Any], *, version: int | None = None, learned_until: datetime | None = None
) -> Predictor:
    """Return the version that `artifact` and `manifest` describe."""
    return Predictor(
        estimator=unpack(artifact),
        schema=Schema.from_json(manifest["schema"]),
        output_mode=manifest["output"],
        version=version,
        learned_until=learned_until,
    )


def _dump(estimator: Any) -> bytes:
    """Return the same bytes for the same fitted values.

    Pickle writes an object that is met twice as a back reference, so bytes depend on which equal strings happen to be
    one object; loading back and writing again settles that. And scikit-learn's trees never write the gaps between the
    fields of their nodes, so these hold whatever was in memory; in the copy they become zero.
    """
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    buffer.seek(0)
    copy = joblib.load(buffer)
    _GapCleaner(io.BytesIO()).dump(copy)
    settled = io.BytesIO()
    joblib.dump(copy, settled)
    return settled.getvalue()


class _GapCleaner(pickle.Pickler):
    """Meets every object of an estimator, as a pickler does, and zeroes the gaps in the nodes of its trees."""

    @override
    def persistent_id(self, obj: Any) -> None:
        if type(obj).__module__ == "sklearn.tree._tree" and type(obj).__name__ == "Tree":
            _zero_gaps(obj.__getstate__()["nodes"])  # a view of the tree's own memory


def _zero_gaps(nodes: NDArray[Any]) -> None:
    used = np.zeros(nodes.dtype.itemsize, dtype=bool)
    for kind, offset, *_ in (nodes.dtype.fields or {}).values():
        used[offset : offset + kind.itemsize] = True
    raw = nodes.view(np.uint8).reshape(len(nodes), nodes.dtype.itemsize)
    raw[:, ~used] = 0


def _golden_rows(schema: Schema, sample: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows spread evenly over `sample`, and the first ones with a null, as a request would carry them."""
    if sample.empty:
        msg = "there is no row to take golden rows from"
        raise TrainingFailed(msg, reason="no_rows")
    features = sample[list(schema.names)]
    places = set(np.linspace(0, len(features) - 1, min(GOLDEN_ROWS, len(features))).astype(int).tolist())
    places |= set(np.flatnonzero(features.isna().any(axis=1).to_numpy())[:4].tolist())
    chosen = features.iloc[sorted(places)]
    return [
        {feature.name: _json(schema, feature, value) for feature, value in zip(schema.features, row, strict=True)}
        for row in chosen.itertuples(index=False, name=None)
    ]


def _json(schema: Schema, feature: Feature, value: Any) -> Any:
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and math.isnan(value)):
        return None
    if feature.kind == "boolean":
        return bool(value)
    if schema.is_text(feature):
        return str(value)
    return int(value) if feature.kind == "categorical" else float(value)


def _same(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
