"""A bundle: what a process holds in memory to answer with one version under one generation. Immutable."""

import io
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version as installed
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.domain.answer import OutputMode, answers
from service.domain.errors import ArtifactInvalid, InvalidRequest, InvalidRows
from service.domain.spec import Schema
from service.serving.block import Block, Layout, join
from service.serving.compiled import load_compiled
from service.serving.decode import Decoder
from service.serving.imports import import_learners, named_in
from service.serving.table import Table
from service.storage.artifacts import ArtifactStore
from service.storage.versions import VersionRow

__all__ = ["Answers", "Bundle", "Cost", "load"]

FORMAT = 1
MANY = 64
"""Rows of the larger of the two blocks that the cost is measured with."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a bundle answers to a block."""

    outputs: NDArray[Any]
    probabilities: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Measured time of a predict: a fixed part and a part per row, seconds."""

    fixed_s: float
    row_s: float

    def of(self, rows: int) -> float:
        """Return the seconds that `rows` rows are expected to take."""
        return self.fixed_s + self.row_s * rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """All that answers a request; a request keeps one from start to end, and its last user frees it."""

    model: str
    version: int
    generation: int
    schema: Schema
    estimator: Any = field(repr=False)
    output_mode: OutputMode
    classes: tuple[str, ...] | tuple[int, ...]
    decoder: Decoder = field(repr=False)
    golden: Block = field(repr=False)
    cost: Cost
    head: bytes = field(repr=False)
    """The answer's first fields, which are the same for every request."""
    engine: Literal["onnx", "scikit-learn"] = "scikit-learn"
    fallback: str | None = None
    """Why a version that was compiled is answered by scikit-learn all the same."""

    @property
    def layout(self) -> Layout:
        """Which feature stands where."""
        return self.decoder.layout

    @cached_property
    def table(self) -> Table:
        """Reads Open Inference tensors; made when the first one comes."""
        return Table(self.schema)

    @cached_property
    def has_probabilities(self) -> bool:
        """Whether its answers have probabilities."""
        return bool(self.classes) and hasattr(self.estimator, "predict_proba")

    def answer(self, block: Block) -> Answers:
        """Return the version's answers to `block`."""
        return Answers(*answers(self.estimator, self.output_mode, self.classes, self.layout.design(block)))

    def warm(self, recent: Block | None) -> None:
        """Answer rows that were answered lately, before anybody waits for it.

        Raises
        ------
        ArtifactInvalid
            If it raises, or answers with what is no finite number.
        """
        if recent is None:
            return
        try:
            found = self.answer(recent)
        except Exception as error:
            detail = f"it can't answer rows that were answered lately ({type(error).__name__})"
            raise _invalid(self, "warm", detail) from error
        numbers = found.outputs if found.probabilities is None else found.probabilities
        if len(found.outputs) != len(recent) or (numbers.dtype.kind == "f" and not np.isfinite(numbers).all()):
            detail = "to rows that were answered lately it answers with what is no finite number"
            raise _invalid(self, "warm", detail)

    def under(self, generation: int) -> "Bundle":
        """Return the same version under another generation."""
        return replace(self, generation=generation, head=_head(self.model, self.version, generation, self.classes))


def load(
    store: ArtifactStore, row: VersionRow, *, generation: int, clock: Callable[[], float] = time.perf_counter
) -> Bundle:
    """Return the bundle of a version: digest-checked, proved by its golden rows, and warm.

    A version that was compiled is answered by its graph, and by scikit-learn where the graph is not what it should be.

    Parameters
    ----------
    store
        Verifies the artifact's digest.
    row
        The version.
    generation
        Under which it will answer.
    clock
        Seconds that only grow, for the measured cost.

    Raises
    ------
    ArtifactInvalid
        If anything is not as the manifest says; ``facts["reason"]`` is a slug.
    """
    schema, golden = _read(row, row.manifest)
    bundle = _empty(row, schema, golden, generation)
    if row.compiled == "proved":
        try:
            graph = load_compiled(store, row)
            return _proved(row, replace(bundle, estimator=graph, engine="onnx"), golden, clock)
        except ArtifactInvalid as error:
            bundle = replace(bundle, fallback=error.detail)
    _check_libraries(row, row.manifest)
    estimator = _unpickle(row, store.read(row.artifact))
    _check_features(row, schema, estimator)
    return _proved(row, replace(bundle, estimator=estimator), golden, clock)


def _empty(row: VersionRow, schema: Schema, golden: dict[str, Any], generation: int) -> Bundle:
    return Bundle(
        model=row.model,
        version=row.version,
        generation=generation,
        schema=schema,
        estimator=None,
        output_mode=row.manifest["output"],
        classes=schema.classes,
        decoder=(decoder := Decoder(schema)),
        golden=_golden_block(row, decoder, golden),
        cost=Cost(0.0, 0.0),
        head=_head(row.model, row.version, generation, schema.classes),
    )


def _proved(row: VersionRow, bundle: Bundle, golden: dict[str, Any], clock: Callable[[], float]) -> Bundle:
    _check_golden(row, bundle, golden)
    return replace(bundle, cost=_measure(bundle, bundle.golden, clock))


def _invalid(row: VersionRow | Bundle, reason: str, detail: str) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"{row.model} version {row.version}: {detail}", model=row.model, version=row.version, reason=reason
    )


def _read(row: VersionRow, manifest: dict[str, Any]) -> tuple[Schema, dict[str, Any]]:
    if manifest.get("format") != FORMAT:
        detail = f"its manifest has format {manifest.get('format')!r}; this release reads {FORMAT}"
        raise _invalid(row, "format", detail)
    try:
        schema = Schema.from_json(manifest["schema"])
        golden = manifest["golden"]
        is_whole = bool(golden["rows"]) and manifest["output"] in {"argmax", "predict"} and "outputs" in golden
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid(row, "manifest", "its manifest can't be read") from error
    if not is_whole or list(schema.classes) != list(manifest.get("classes", ())):
        raise _invalid(row, "manifest", "its manifest is incomplete")
    return schema, golden


def _check_libraries(row: VersionRow, manifest: dict[str, Any]) -> None:
    made_with, here = manifest.get("libraries", {}).get("scikit-learn"), installed("scikit-learn")
    if made_with != here:
        detail = f"it was made with scikit-learn {made_with}, here is {here}: retrain it"
        raise _invalid(row, "libraries", detail)


def _unpickle(row: VersionRow, content: bytes) -> Any:
    import joblib

    try:
        import_learners(named_in(content))
        with warnings.catch_warnings():
            # scikit-learn says so where an estimator comes from another release, and goes on; we do not.
            warnings.filterwarnings("error", message="Trying to unpickle estimator")
            return joblib.load(io.BytesIO(content))
    except Exception as error:
        raise _invalid(row, "unpickle", f"its artifact can't be loaded ({type(error).__name__})") from error


def _check_features(row: VersionRow, schema: Schema, estimator: Any) -> None:
    width = getattr(estimator, "n_features_in_", None)
    if width is not None and width != len(schema.features):
        raise _invalid(row, "features", f"it takes {width} features, its manifest names {len(schema.features)}")
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None and list(names) != list(schema.names):
        raise _invalid(row, "features", "its features are not those that its manifest names")


def _golden_block(row: VersionRow, decoder: Decoder, golden: dict[str, Any]) -> Block:
    body = msgspec.json.encode({"instances": golden["rows"]})
    try:
        return decoder.decode(body, max_rows=len(golden["rows"]), is_strict=False)
    except (InvalidRequest, InvalidRows) as error:
        raise _invalid(row, "features", "its golden rows do not fit its own schema") from error


def _check_golden(row: VersionRow, bundle: Bundle, golden: dict[str, Any]) -> None:
    try:
        found = bundle.answer(bundle.golden)
    except Exception as error:
        raise _invalid(row, "golden", f"it can't answer its golden rows ({type(error).__name__})") from error
    expected = golden["outputs"]
    is_same = found.outputs.tolist() == expected if bundle.classes else _is_close(found.outputs, expected)
    probabilities = golden.get("probabilities")
    if (probabilities is None) != (found.probabilities is None):
        is_same = False
    elif found.probabilities is not None:
        is_same = is_same and _is_close(found.probabilities, probabilities)
    if not is_same:
        raise _invalid(row, "golden", "it does not answer its golden rows as it did when it was made")


def _is_close(found: NDArray[np.float64], expected: Any) -> bool:
    # Another processor's numeric kernels may differ in the last bits; a wrong artifact differs in the first.
    wanted = np.array(expected, dtype=np.float64)
    return wanted.shape == found.shape and np.allclose(found, wanted, rtol=1e-9, atol=1e-12, equal_nan=True)


def _measure(bundle: Bundle, golden: Block, clock: Callable[[], float]) -> Cost:
    one = _rows(golden, 1)
    many = join([golden] * (MANY // len(golden) + 1))
    many = _rows(many, MANY)
    small, large = (_best(bundle, block, clock) for block in (one, many))
    row_s = max((large - small) / (MANY - 1), 0.0)
    return Cost(fixed_s=max(small - row_s, 0.0), row_s=row_s)


def _rows(block: Block, n: int) -> Block:
    return Block(block.numeric[:n].copy(), {name: column[:n] for name, column in block.text.items()})


def _best(bundle: Bundle, block: Block, clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(5):
        before = clock()
        bundle.answer(block)
        taken.append(clock() - before)
    return min(taken)


def _head(model: str, version: int, generation: int, classes: tuple[Any, ...]) -> bytes:
    named: dict[str, Any] = {"model": model, "version": version, "generation": generation}
    if classes:
        named["classes"] = classes
    return msgspec.json.encode(named)[:-1]
