"""Compiled models: a version as an ONNX graph, worth having only where it is proved to answer as the original does.

A conversion can fail in every way that somebody's estimator can; none of them may cost a run. All end as a refusal
whose reason a person can read, and the original serves.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.domain.answer import answers
from service.domain.spec import Schema
from service.learning.frames import design
from service.learning.graph import INPUT, PROBABILITIES, VALUE, Graph, open_graph
from service.learning.predictor import Predictor

__all__ = ["ATOL", "LIBRARIES", "RTOL", "Compiled", "compile_", "compiled", "prove"]

RTOL, ATOL = 1e-9, 1e-12
"""How far an answer may lie from the original's: relative to it, and absolute (for values: of the largest one)."""

LIBRARIES = ("onnx", "skl2onnx", "onnxruntime")
NAME = "retrue"
"""Of every graph: skl2onnx would name each at random, and equal versions shall have equal bytes."""
OPSETS = {"": 18, "ai.onnx.ml": 3}
"""What skl2onnx may use; trees take a later release of the second."""

MOST_BYTES = 512 << 20
PROBES = 256
"""Rows out of the holdout that are asked again with nulls and with values out of range."""
CHUNK = 4096

Outcome = Literal["proved", "refused", "unavailable"]


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What came of compiling one version.

    Attributes
    ----------
    outcome
        ``proved``; ``refused`` with the reason; ``unavailable`` where the extra is not installed or is switched off.
    max_difference
        Largest distance to one of the original's probabilities or values, on golden rows and holdout.
    rows
        On which both were asked: these, and rows with nulls and with values that no row had.
    labels_differ
        Rows that got another class: each a tie within the tolerance, or there would be no proof.
    content
        The graph's bytes where it is proved.
    """

    outcome: Outcome
    reason: str = ""
    max_difference: float | None = None
    rows: int = 0
    labels_differ: int = 0
    seconds: float = 0.0
    bytes_: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        if self.outcome != "proved":
            return {"outcome": self.outcome, "reason": self.reason, "seconds": round(self.seconds, 3)}
        return {
            "outcome": self.outcome,
            "rows": self.rows,
            "max_difference": self.max_difference,
            "labels_differ": self.labels_differ,
            "tolerance": {"relative": RTOL, "absolute": ATOL},
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes_,
            "format": "onnx",
            "opsets": self.opsets,
            "libraries": {name: version(name) for name in LIBRARIES},
        }


class _Refused(Exception):
    """The graph is not to be used; says why."""


def compiled(
    predictor: Predictor,
    *,
    golden: pd.DataFrame,
    holdout: pd.DataFrame,
    budget_s: float,
    clock: Callable[[], float],
) -> Compiled:
    """Return the verdict on compiling `predictor`; never raises.

    Parameters
    ----------
    predictor
        The version.
    golden
        Rows whose answers a worker compares at each load.
    holdout
        Rows on which the version was judged.
    budget_s
        After so many seconds it is refused.
    clock
        Seconds that only grow.
    """
    began = clock()
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        return Compiled(outcome="unavailable", reason=f"retrue[onnx] is not installed ({', '.join(missing)})")
    found: list[Compiled] = []

    def work() -> None:
        found.append(_attempt(predictor, golden, holdout, lambda: clock() - began > budget_s))

    # skl2onnx cannot be told to stop. A thread that is left behind ends with the trainer, soon after.
    thread = threading.Thread(target=work, name="compile", daemon=True)
    thread.start()
    thread.join(budget_s)
    verdict = found[0] if found else _late(budget_s)
    return replace(verdict, seconds=clock() - began)


def compile_(predictor: Predictor) -> bytes:
    """Return the ONNX graph of `predictor`, with what `answers` needs and no more.

    Raises
    ------
    Exception
        Whatever the conversion says of an estimator that it does not know.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType

    from service.learning.converters import TREES_DOMAIN, Waiting, converters, settle

    _require_answers(predictor)
    estimator, is_classifier = predictor.estimator, bool(predictor.schema.classes)
    waiting: Waiting = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = convert_sklearn(
            estimator,
            name=NAME,
            initial_types=[(INPUT, DoubleTensorType([None, len(predictor.schema.features)]))],
            target_opset=OPSETS | {TREES_DOMAIN: 1},
            options={id(estimator): {"zipmap": False}} if is_classifier else None,
            **converters(waiting),
        )
    settle(model, waiting)
    # A classifier's graph gives the class first, which here is told by the probabilities.
    _keep_only(model, model.graph.output[-1].name, PROBABILITIES if is_classifier else VALUE)
    content: bytes = model.SerializeToString()
    return content


def prove(predictor: Predictor, content: bytes, *, golden: pd.DataFrame, holdout: pd.DataFrame) -> Compiled:
    """Return the verdict on `content`, which claims to be `predictor`."""
    try:
        return _prove(predictor, content, golden, holdout, lambda: False)
    except _Refused as refusal:
        return Compiled(outcome="refused", reason=str(refusal))


def _attempt(
    predictor: Predictor, golden: pd.DataFrame, holdout: pd.DataFrame, is_late: Callable[[], bool]
) -> Compiled:
    try:
        return _prove(predictor, compile_(predictor), golden, holdout, is_late)
    except _Refused as refusal:
        return Compiled(outcome="refused", reason=str(refusal))
    except Exception as error:  # noqa: BLE001  somebody's estimator, three libraries: the original serves
        words = " ".join(str(error).split("You may raise an issue")[0].split())[:300]
        return Compiled(outcome="refused", reason=f"it can't be converted: {type(error).__name__}: {words}")


def _late(budget_s: float) -> Compiled:
    return Compiled(outcome="refused", reason=f"it took longer than {budget_s:.0f} s")


def _opsets(content: bytes) -> dict[str, int]:
    from onnx import load_model_from_string

    return {one.domain or "ai.onnx": one.version for one in load_model_from_string(content).opset_import}


def _require_answers(predictor: Predictor) -> None:
    if predictor.schema.frame:
        msg = "it takes a frame with named columns"
        raise _Refused(msg)
    if predictor.schema.classes and predictor.output_mode != "argmax":
        msg = "its classes do not follow from probabilities, so nothing shows how close a compiled one comes"
        raise _Refused(msg)


def _keep_only(model: Any, old: str, new: str) -> None:
    """Make `old` the graph's one output, called `new`, and drop what nothing needs any more."""
    from onnx import helper

    graph = model.graph
    output = next(one for one in graph.output if one.name == old)
    output.name = new
    graph.node.append(helper.make_node("Identity", [old], [new], name=f"give_{new}"))
    needed = {new}
    for place in range(len(graph.node) - 1, -1, -1):
        if needed.intersection(graph.node[place].output):
            needed.update(graph.node[place].input)
        else:
            del graph.node[place]
    for named in (graph.initializer, graph.output):
        for place in range(len(named) - 1, -1, -1):
            if named[place].name not in needed:
                del named[place]


def _prove(
    predictor: Predictor, content: bytes, golden: pd.DataFrame, holdout: pd.DataFrame, is_late: Callable[[], bool]
) -> Compiled:
    if len(content) > MOST_BYTES:
        msg = f"its graph has {len(content) >> 20} MiB"
        raise _Refused(msg)
    graph = open_graph(content)
    schema = predictor.schema
    verdict = Compiled(outcome="proved", content=content, bytes_=len(content), opsets=_opsets(content))
    X = design(schema, golden)
    asked, (difference, differ) = len(X), _compare(predictor, graph, X, is_strict=True)
    X = design(schema, holdout) if len(holdout) else X
    for at in range(0, len(X), CHUNK):
        if is_late():
            msg = "there was no time to ask it all the rows of the holdout"
            raise _Refused(msg)
        part = X[at : at + CHUNK]
        gap, ties = _compare(predictor, graph, part)
        asked, difference, differ = asked + len(part), max(difference, gap), differ + ties
    for what, rows in _probes(schema, X):
        try:
            predictor.estimator.predict(rows)
        except Exception as error:
            if what == "null":
                msg = "the original fails on null, which its schema allows"
                raise _Refused(msg) from error
            continue  # what the original refuses is nobody's answer
        asked, differ = asked + len(rows), differ + _compare(predictor, graph, rows)[1]
    return replace(verdict, rows=asked, max_difference=difference, labels_differ=differ)


def _compare(
    predictor: Predictor, graph: Graph, X: NDArray[np.float64], *, is_strict: bool = False
) -> tuple[float, int]:
    """Return the largest difference, and how many rows got another class in a tie; refuse what is too far off."""
    mode, classes = predictor.output_mode, predictor.schema.classes  # compiled classifiers are of argmax alone
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs, probabilities = answers(predictor.estimator, mode, classes, X)
    found, likely = answers(graph, mode, classes, X)
    if probabilities is None:
        return _distance("value", outputs, found, floor=1.0 if is_strict else _scale(outputs)), 0
    difference = _distance("probability", probabilities, likely, floor=1.0)
    differ = np.asarray(outputs != found)
    best = np.sort(probabilities, axis=1)[:, -2:]
    is_clear = is_strict | (best[:, 1] - best[:, 0] > 2 * (ATOL + RTOL * best[:, 1]))
    clear = int((differ & is_clear).sum())
    if clear:
        msg = f"{clear} of {len(X)} rows get another class"
        raise _Refused(msg)
    return difference, int(differ.sum())


def _scale(values: NDArray[np.float64]) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return max(float(finite.max()), 1.0) if len(finite) else 1.0


def _distance(what: str, expected: Any, found: Any, *, floor: float) -> float:
    if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
        msg = f"it answers no {what} of the original's shape"
        raise _Refused(msg)
    is_far = ~np.isclose(found, expected, rtol=RTOL, atol=ATOL * floor, equal_nan=True)
    with np.errstate(invalid="ignore"):
        gap = np.abs(found - expected)
    gap = gap[np.isfinite(gap)]
    largest = float(gap.max()) if gap.size else 0.0
    if is_far.any():
        rows = int(is_far.reshape(len(expected), -1).any(axis=1).sum())
        msg = f"in {rows} of {len(expected)} rows a {what} differs by up to {largest:.3g}"
        raise _Refused(msg)
    return largest


def _probes(schema: Schema, X: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield rows like `X` with nulls where the schema allows them, and with values that no row had."""
    rows = X[np.linspace(0, len(X) - 1, min(PROBES, len(X))).astype(int)]
    nullable = [place for place, feature in enumerate(schema.features) if feature.nullable]
    for places in [*([place] for place in nullable), *([nullable] if len(nullable) > 1 else [])]:
        changed = rows.copy()
        changed[:, places] = np.nan
        yield "null", changed
    low, high = np.nanmin(X, axis=0, initial=0.0), np.nanmax(X, axis=0, initial=0.0)
    span = np.maximum(high - low, 1.0)
    for place in range(X.shape[1]):
        for value in (low[place] - 1, high[place] + 1, low[place] - 10 * span[place], high[place] + 10 * span[place]):
            changed = rows[:: max(len(rows) // 16, 1)].copy()
            changed[:, place] = value
            yield "odd", changed
    for factor in (-1e6, 1e6):
        yield "odd", rows * factor
