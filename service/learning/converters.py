"""How trees and imputers are written as ONNX: in double precision throughout, which skl2onnx's own converters are not.

They are handed to skl2onnx for one conversion at a time; its registry of converters stays as it is.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from service.learning.trees import Ensemble, Tree, boosted_trees, of_boosting, of_forest, plain_tree

__all__ = ["TREES_DOMAIN", "Waiting", "converters", "settle"]

ML, TREES_DOMAIN = "ai.onnx.ml", "retrue.trees"
"""skl2onnx refuses the release of the operators that has double trees, so they wait under a name of their own."""
TREES_OPSET = 5
"""Of the first `TreeEnsemble`, which has double thresholds and double answers."""

Waiting = list[dict[str, Any]]
"""Attributes of the trees of one conversion: they go into the graph last, for skl2onnx would copy them often."""


class Writer:
    """Appends nodes to the graph that skl2onnx builds, and thinks of their names.

    Parameters
    ----------
    waiting
        Takes the trees.
    scope, operator, container
        As skl2onnx hands them to a converter.
    """

    def __init__(self, waiting: Waiting, scope: Any, operator: Any, container: Any) -> None:
        self._waiting, self._scope, self._container = waiting, scope, container
        self.estimator = operator.raw_operator
        self.input: str = operator.inputs[0].full_name
        self.outputs: list[str] = [output.full_name for output in operator.outputs]

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node with one output and return that output's name."""
        name = output or self._scope.get_unique_variable_name(kind.lower())
        options = {"op_domain": TREES_DOMAIN, "op_version": 1} if kind == "TreeEnsemble" else {}
        unique = self._scope.get_unique_operator_name(kind)
        self._container.add_node(kind, list(inputs), [name], name=unique, **options, **attributes)
        return str(name)

    def constant(self, values: Any, kind: int = TensorProto.DOUBLE) -> str:
        """Return the name of a constant."""
        array = np.asarray(values)
        content = [str(value).encode() for value in array] if kind == TensorProto.STRING else array.ravel().tolist()
        name = self._scope.get_unique_variable_name("constant")
        self._container.add_initializer(name, kind, list(array.shape), content)
        return str(name)

    def doubles(self, *, rounded: bool) -> str:
        """Return the input as doubles; `rounded` to the floats that scikit-learn's own trees compare."""
        name = self.node("Cast", self.input, to=TensorProto.FLOAT) if rounded else self.input
        return self.node("Cast", name, to=TensorProto.DOUBLE)

    def trees(self, X: str, trees: Iterable[Tree], *, targets: int) -> str:
        """Append an ensemble and return the name of its sums."""
        ensemble = Ensemble()
        for tree in trees:
            ensemble.add(tree)
        self._waiting.append(ensemble.attributes(targets=targets))
        return self.node("TreeEnsemble", X, place=len(self._waiting) - 1)

    def two_classes(self, second: str) -> None:
        """Write the answers of a classifier, given the second class's probabilities as a column."""
        first = self.node("Sub", self.constant([1.0]), second)
        self.classes(self.node("Concat", first, second, axis=1))

    def classes(self, probabilities: str) -> None:
        """Write the answers of a classifier, given its probabilities."""
        best = self.node("ArgMax", probabilities, axis=1, keepdims=0)
        is_text = self.estimator.classes_.dtype.kind in "OUS"
        known = self.constant(self.estimator.classes_, TensorProto.STRING if is_text else TensorProto.INT64)
        self.node("Gather", known, best, output=self.outputs[0], axis=0)
        self.node("Identity", probabilities, output=self.outputs[1])


def settle(model: Any, waiting: Waiting) -> None:
    """Put the trees into `model`, and the operators under the names that they have."""
    for node in model.graph.node:
        if node.domain == TREES_DOMAIN:
            _fill(node, waiting[node.attribute[0].i])
            node.domain = ML
    opsets = {one.domain: one.version for one in model.opset_import}
    if opsets.pop(TREES_DOMAIN, None) is not None:
        opsets[ML] = TREES_OPSET
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, number) for domain, number in opsets.items())


def _fill(node: Any, attributes: dict[str, Any]) -> None:
    del node.attribute[:]
    for name, value in attributes.items():
        one = node.attribute.add()
        one.name = name
        if isinstance(value, int):
            one.type, one.i = AttributeProto.INT, value
        elif value.dtype == np.int64:
            one.type = AttributeProto.INTS
            one.ints.extend(value)
        else:
            one.type = AttributeProto.TENSOR
            one.t.CopyFrom(numpy_helper.from_array(value))


def _forest_of(estimator: Any) -> list[Any]:
    _one_output(estimator)
    return list(getattr(estimator, "estimators_", (estimator,)))


def _one_output(estimator: Any) -> None:
    if getattr(estimator, "n_outputs_", 1) != 1:
        msg = "it has several outputs"
        raise ValueError(msg)


def _forest_classifier(writer: Writer) -> None:
    members = _forest_of(writer.estimator)
    X, n = writer.doubles(rounded=True), float(len(members))
    n_classes = len(writer.estimator.classes_)
    if n_classes == 2:
        # The sums are divided last, as scikit-learn does: a forest of whole votes has exact ties.
        trees = (plain_tree(tree.tree_, tree.tree_.value[:, 0, 1]) for tree in members)
        second = writer.trees(X, trees, targets=1)
        first = writer.node("Sub", writer.constant([n]), second)
        votes = writer.node("Concat", first, second, axis=1)
    else:
        votes = _votes(writer, X, members)
    writer.classes(writer.node("Div", votes, writer.constant([n])))


def _votes(writer: Writer, X: str, members: list[Any]) -> str:
    """Append what finds each tree's leaf and adds up the leaves' shares of the classes.

    A leaf of the operator adds one number; an ensemble a class would walk every tree once for each class.
    """
    trees, shares = of_forest(members)
    found = writer.trees(X, _numbered(trees, shares), targets=len(members))
    rows = writer.node("Cast", found, to=TensorProto.INT64)
    table = writer.constant(np.concatenate(shares))
    return _sum(writer, writer.node("Gather", table, rows, axis=0))


def _numbered(trees: Iterable[Tree], shares: list[NDArray[np.float64]]) -> Iterable[Tree]:
    """Yield `trees` with leaves that say their own number, each tree as a target of its own."""
    start = 0
    for target, (tree, values) in enumerate(zip(trees, shares, strict=True)):
        numbers = np.zeros(len(tree.is_leaf))
        numbers[tree.is_leaf] = start + np.arange(len(values))
        start += len(values)
        yield Tree(
            left=tree.left,
            right=tree.right,
            feature=tree.feature,
            threshold=tree.threshold,
            null_left=tree.null_left,
            is_leaf=tree.is_leaf,
            weights=numbers,
            target=target,
        )


def _sum(writer: Writer, votes: str) -> str:
    return writer.node("ReduceSum", votes, writer.constant([1], TensorProto.INT64), keepdims=0)


def _forest_regressor(writer: Writer) -> None:
    members = _forest_of(writer.estimator)
    trees, _ = of_forest(members)
    total = writer.trees(writer.doubles(rounded=True), trees, targets=1)
    writer.node("Div", total, writer.constant([float(len(members))]), output=writer.outputs[0])


def _boosting_classifier(writer: Writer) -> None:
    raw = _raw(writer)
    if len(writer.estimator.classes_) == 2:
        _require_loss(writer.estimator, "HalfBinomialLoss", "ExponentialLoss")
        if type(writer.estimator._loss).__name__ == "ExponentialLoss":
            raw = writer.node("Mul", raw, writer.constant([2.0]))  # its link is half the logit
        writer.two_classes(writer.node("Sigmoid", raw))
    else:
        _require_loss(writer.estimator, "HalfMultinomialLoss")
        writer.classes(writer.node("Softmax", raw, axis=1))


def _boosting_regressor(writer: Writer) -> None:
    raw = _raw(writer)
    link = type(writer.estimator._loss.link).__name__
    if link not in {"IdentityLink", "LogLink"}:
        msg = f"its link {link} is unknown"
        raise ValueError(msg)
    writer.node("Exp" if link == "LogLink" else "Identity", raw, output=writer.outputs[0])


def _raw(writer: Writer) -> str:
    """Append what gives the raw answers of boosted trees: start and sum."""
    estimator = writer.estimator
    if isinstance(estimator, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
        start = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(1, -1)
        X, trees = writer.doubles(rounded=False), of_boosting(estimator)
    else:
        if type(estimator.init_).__name__ not in {"DummyClassifier", "DummyRegressor", "str"}:
            msg = "it starts from an estimator of its own (init)"
            raise ValueError(msg)
        start = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), dtype=np.float32))
        X, trees = writer.doubles(rounded=True), boosted_trees(estimator)
    return writer.node("Add", writer.trees(X, trees, targets=start.shape[1]), writer.constant(start))


def _require_loss(estimator: Any, *known: str) -> None:
    loss = type(estimator._loss).__name__
    if loss not in known:
        msg = f"its loss {loss} is unknown"
        raise ValueError(msg)


def _imputer(writer: Writer) -> None:
    """Write a ``SimpleImputer``, whose operator in ONNX Runtime takes no doubles."""
    estimator = writer.estimator
    known = np.asarray(estimator.statistics_)
    is_plain = isinstance(estimator.missing_values, float) and np.isnan(estimator.missing_values)
    if not is_plain or known.dtype.kind != "f" or np.isnan(known).any():
        msg = "its SimpleImputer replaces something else than NaN, or drops columns"
        raise ValueError(msg)
    X = writer.doubles(rounded=False)
    is_null = writer.node("IsNaN", X)
    full = writer.node("Where", is_null, writer.constant(known), X)
    if estimator.indicator_ is not None:
        places = writer.constant(estimator.indicator_.features_, TensorProto.INT64)
        flags = writer.node("Cast", writer.node("Gather", is_null, places, axis=1), to=TensorProto.DOUBLE)
        full = writer.node("Concat", full, flags, axis=1)
    writer.node("Identity", full, output=writer.outputs[0])


def _imputer_shapes(operator: Any) -> None:
    indicator = operator.raw_operator.indicator_
    width = len(operator.raw_operator.statistics_) + (0 if indicator is None else len(indicator.features_))
    operator.outputs[0].type = DoubleTensorType([operator.inputs[0].get_first_dimension(), width])


def _classifier_shapes(operator: Any) -> None:
    classes = operator.raw_operator.classes_
    label = StringTensorType if classes.dtype.kind in "OUS" else Int64TensorType
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = label([rows])
    operator.outputs[1].type = DoubleTensorType([rows, len(classes)])


def _regressor_shapes(operator: Any) -> None:
    operator.outputs[0].type = DoubleTensorType([operator.inputs[0].get_first_dimension(), 1])


_CONVERTERS: dict[type, Callable[[Writer], None]] = {
    **dict.fromkeys(
        (DecisionTreeClassifier, ExtraTreeClassifier, RandomForestClassifier, ExtraTreesClassifier), _forest_classifier
    ),
    **dict.fromkeys(
        (DecisionTreeRegressor, ExtraTreeRegressor, RandomForestRegressor, ExtraTreesRegressor), _forest_regressor
    ),
    **dict.fromkeys((HistGradientBoostingClassifier, GradientBoostingClassifier), _boosting_classifier),
    **dict.fromkeys((HistGradientBoostingRegressor, GradientBoostingRegressor), _boosting_regressor),
    SimpleImputer: _imputer,
}

_SHAPES: dict[Callable[[Writer], None], Callable[[Any], None]] = {
    _forest_classifier: _classifier_shapes,
    _boosting_classifier: _classifier_shapes,
    _forest_regressor: _regressor_shapes,
    _boosting_regressor: _regressor_shapes,
    _imputer: _imputer_shapes,
}


def converters(waiting: Waiting) -> dict[str, Any]:
    """Return the converters as skl2onnx takes them, for one conversion, whose trees are put into `waiting`."""

    def bound(write: Callable[[Writer], None]) -> Callable[[Any, Any, Any], None]:
        return lambda scope, operator, container: write(Writer(waiting, scope, operator, container))

    return {
        "custom_conversion_functions": {kind: bound(write) for kind, write in _CONVERTERS.items()},
        "custom_shape_calculators": {kind: _SHAPES[write] for kind, write in _CONVERTERS.items()},
    }
