"""Trees as tables: every tree of an ensemble in the arrays that ONNX's operator `TreeEnsemble` takes.

Thresholds and leaves stay doubles. With the float32 thresholds of older operators, rows beside a split change sides.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_NODES", "Ensemble", "boosted_trees", "of_boosting", "of_forest"]

MOST_NODES = 500_000
"""Beyond it an ensemble is not compiled: so many take 90 MiB in each worker, and 330 while they are opened."""

LESS_OR_EQUAL, MEMBER = 0, 6
"""What a node asks, in the operator's numbers."""

NAMES = {
    "roots": "tree_roots",
    "features": "nodes_featureids",
    "yes": "nodes_truenodeids",
    "no": "nodes_falsenodeids",
    "yes_is_leaf": "nodes_trueleafs",
    "no_is_leaf": "nodes_falseleafs",
    "null_yes": "nodes_missing_value_tracks_true",
    "targets": "leaf_targetids",
    "splits": "nodes_splits",
    "modes": "nodes_modes",
    "weights": "leaf_weights",
}
"""Ours and the operator's."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One tree by node number; a leaf's children and question mean nothing.

    Attributes
    ----------
    weights
        What a leaf adds.
    target
        To which sum.
    categories
        By node: a split by category, the values that go left.
    others
        By node: the known values that go right.
    """

    left: Ints
    right: Ints
    feature: Ints
    threshold: Floats
    null_left: NDArray[np.bool_]
    is_leaf: NDArray[np.bool_]
    weights: Floats
    target: int = 0
    categories: dict[int, Floats] = field(default_factory=dict)
    others: dict[int, Floats] = field(default_factory=dict)


class Ensemble:
    """Trees, one after the other, as the attributes of one `TreeEnsemble`."""

    def __init__(self) -> None:
        self.trees = 0
        self.nodes = 0
        self._leaves = 0
        self._columns: dict[str, list[NDArray[Any]]] = {}
        self._members: list[float] = []

    def add(self, tree: Tree) -> None:
        """Append `tree`.

        Raises
        ------
        ValueError
            If that makes the ensemble too large to compile.
        """
        self.trees += 1
        if bool(tree.is_leaf[0]):
            self._add_constant(tree)
            return
        inner = np.flatnonzero(~tree.is_leaf)
        place = np.empty(len(tree.is_leaf), dtype=np.int64)
        place[inner] = self.nodes + np.arange(len(inner))
        leaves = np.flatnonzero(tree.is_leaf)
        place[leaves] = self._leaves + np.arange(len(leaves))
        yes, no = tree.left[inner].copy(), tree.right[inner].copy()
        null_yes, modes = tree.null_left[inner].copy(), np.full(len(inner), LESS_OR_EQUAL, dtype=np.uint8)
        thresholds = tree.threshold[inner].copy()
        for at, node in enumerate(inner.tolist()):
            if node not in tree.categories:
                continue
            # A value that is no known category goes where null goes, so the question names the other side's values.
            modes[at], thresholds[at] = MEMBER, 0.0
            if null_yes[at]:
                yes[at], no[at], null_yes[at] = no[at], yes[at], False
                self._name_members(tree.others[node])
            else:
                self._name_members(tree.categories[node])
        self._put(
            roots=np.array([self.nodes]),
            features=tree.feature[inner],
            splits=thresholds,
            modes=modes,
            null_yes=null_yes.astype(np.int64),
            yes=place[yes],
            no=place[no],
            yes_is_leaf=tree.is_leaf[yes].astype(np.int64),
            no_is_leaf=tree.is_leaf[no].astype(np.int64),
            targets=np.full(len(leaves), tree.target, dtype=np.int64),
            weights=tree.weights[leaves],
        )
        self._grow(len(inner), len(leaves))

    def attributes(self, *, targets: int) -> dict[str, Any]:
        """Return the operator's attributes: numbers, int64 arrays for lists of numbers, other arrays for tensors."""
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        plain = {"n_targets": targets, "aggregate_function": 1, "post_transform": 0}  # the sum, as it is
        members = {"membership_values": np.array(self._members)} if self._members else {}
        return plain | {NAMES[name]: column for name, column in columns.items()} | members

    def _add_constant(self, tree: Tree) -> None:
        # The operator knows no tree without a node: one whose answers are the same.
        self._put(
            roots=np.array([self.nodes]),
            features=np.zeros(1, dtype=np.int64),
            splits=np.zeros(1),
            modes=np.full(1, LESS_OR_EQUAL, dtype=np.uint8),
            null_yes=np.zeros(1, dtype=np.int64),
            yes=np.array([self._leaves]),
            no=np.array([self._leaves + 1]),
            yes_is_leaf=np.ones(1, dtype=np.int64),
            no_is_leaf=np.ones(1, dtype=np.int64),
            targets=np.full(2, tree.target, dtype=np.int64),
            weights=np.repeat(tree.weights[:1], 2),
        )
        self._grow(1, 2)

    def _name_members(self, values: Floats) -> None:
        self._members += [*values.tolist(), np.nan]  # NaN ends a node's list

    def _put(self, **columns: NDArray[Any]) -> None:
        for name, column in columns.items():
            self._columns.setdefault(name, []).append(column)

    def _grow(self, nodes: int, leaves: int) -> None:
        self.nodes += nodes
        self._leaves += leaves
        if self.nodes > MOST_NODES:
            msg = f"its trees have more than {MOST_NODES:,} splits"
            raise ValueError(msg)


def of_forest(trees: list[Any]) -> tuple[Iterator[Tree], list[NDArray[np.float64]]]:
    """Return scikit-learn's own trees, whose leaves add 1 × their first value, and each tree's values by leaf.

    Parameters
    ----------
    trees
        Fitted ``DecisionTree*`` or ``ExtraTree*`` with one output; they compare float32 values with double thresholds.
    """
    values = [_values(tree.tree_)[_is_leaf(tree.tree_)] for tree in trees]
    return (plain_tree(tree.tree_, _values(tree.tree_)[:, 0]) for tree in trees), values


def plain_tree(tree: Any, weights: Floats, *, target: int = 0) -> Tree:
    """Return one of scikit-learn's own trees, with the leaves' `weights` by node."""
    nodes = tree.__getstate__()["nodes"]
    return Tree(
        left=nodes["left_child"].astype(np.int64),
        right=nodes["right_child"].astype(np.int64),
        feature=nodes["feature"].astype(np.int64),
        threshold=nodes["threshold"].astype(np.float64),
        null_left=nodes["missing_go_to_left"].astype(bool),
        is_leaf=_is_leaf(tree),
        weights=weights,
        target=target,
    )


def boosted_trees(estimator: Any) -> Iterator[Tree]:
    """Yield the trees of a ``GradientBoosting*``: they compare as a forest's do, and add scaled values."""
    for stage in estimator.estimators_:
        for target, tree in enumerate(stage):
            yield plain_tree(tree.tree_, estimator.learning_rate * _values(tree.tree_)[:, 0], target=target)


def of_boosting(estimator: Any) -> Iterator[Tree]:
    """Yield the trees of a ``HistGradientBoosting*``, asking about the raw features.

    The estimator sees its categories as codes and before the numbers; here a split by category names raw values.
    """
    order, categories = _as_it_sees(estimator)
    for stage in estimator._predictors:
        for target, predictor in enumerate(stage):
            yield _boosted(predictor, order, categories, target)


def _boosted(predictor: Any, order: Ints, categories: dict[int, Floats], target: int) -> Tree:
    nodes = predictor.nodes
    by_category: dict[int, Floats] = {}
    others: dict[int, Floats] = {}
    for node in np.flatnonzero(nodes["is_categorical"] & ~nodes["is_leaf"].astype(bool)).tolist():
        known = categories[int(nodes["feature_idx"][node])]
        goes_left = _bits(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])[: len(known)]
        by_category[node], others[node] = known[goes_left], known[~goes_left]
    return Tree(
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        feature=order[nodes["feature_idx"]],
        threshold=nodes["num_threshold"].astype(np.float64),
        null_left=nodes["missing_go_to_left"].astype(bool),
        is_leaf=nodes["is_leaf"].astype(bool),
        weights=nodes["value"].astype(np.float64),
        target=target,
        categories=by_category,
        others=others,
    )


def _as_it_sees(estimator: Any) -> tuple[Ints, dict[int, Floats]]:
    """Return which raw column stands at which place, and the raw categories by place in the order of their codes."""
    is_category = estimator.is_categorical_
    if is_category is None:
        return np.arange(estimator.n_features_in_), {}
    order = np.concatenate([np.flatnonzero(is_category), np.flatnonzero(~is_category)])
    encoder = estimator._preprocessor.named_transformers_["encoder"]
    known = [np.asarray(values, dtype=np.float64) for values in encoder.categories_]
    return order, {place: values[~np.isnan(values)] for place, values in enumerate(known)}


def _bits(words: NDArray[np.uint32]) -> NDArray[np.bool_]:
    return np.unpackbits(np.ascontiguousarray(words).astype("<u4").view(np.uint8), bitorder="little").astype(bool)


def _is_leaf(tree: Any) -> NDArray[np.bool_]:
    return np.asarray(tree.children_left == -1)


def _values(tree: Any) -> NDArray[np.float64]:
    """Return each node's values: the classes' shares, or the one number."""
    return np.asarray(tree.value[:, 0, :], dtype=np.float64)
