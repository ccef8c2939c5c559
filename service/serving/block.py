"""A block: rows that were decoded and validated, as columns; and what of their values is odd."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.spec import Feature, Schema

__all__ = ["NOW", "Block", "Layout", "Odd", "join"]

NOW = np.iinfo(np.int64).min
"""Event time of a row that named none: it happens at the moment it is answered."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows as columns.

    Attributes
    ----------
    numeric
        float64, shape (n_rows, n_numeric): every feature that holds no text, in the schema's order; null is NaN.
    text
        Columns of string categories by name.
    event_time_us
        Microseconds since 1970, `NOW` where a row named none; None if no row did.
    """

    numeric: NDArray[np.float64]
    text: dict[str, list[str | None]]
    event_time_us: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.numeric)


@dataclass(frozen=True, slots=True)
class Odd:
    """One value that is answered, or refused where the feature says so."""

    row: int
    feature: str
    signal: str
    """``out_of_range`` or ``unseen``: a metric label."""


def join(blocks: Sequence[Block]) -> Block:
    """Return the rows of all `blocks`, which belong to one schema, one after the other."""
    if len(blocks) == 1:
        return blocks[0]
    text: dict[str, list[str | None]] = {
        name: [value for block in blocks for value in block.text[name]] for name in blocks[0].text
    }
    times = None
    if any(block.event_time_us is not None for block in blocks):
        times = np.concatenate(
            [
                np.full(len(block), NOW, dtype=np.int64) if block.event_time_us is None else block.event_time_us
                for block in blocks
            ]
        )
    return Block(np.concatenate([block.numeric for block in blocks]), text, times)


class Layout:
    """Which feature stands where in a block, and which of its values are odd.

    Parameters
    ----------
    schema
        The version's schema.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.numeric = tuple(feature for feature in schema.features if not schema.is_text(feature))
        self.text = tuple(feature for feature in schema.features if schema.is_text(feature))
        self.names = tuple(feature.name for feature in self.numeric)
        self.kinds = tuple(_kind(feature) for feature in self.numeric)
        self._low = np.array([-np.inf if f.low is None else f.low for f in self.numeric])
        self._high = np.array([np.inf if f.high is None else f.high for f in self.numeric])
        self._is_bounded = any(f.low is not None or f.high is not None for f in self.numeric)
        self._integers = [
            (place, np.array(f.categories, dtype=np.float64))
            for place, f in enumerate(self.numeric)
            if f.kind == "categorical" and f.categories is not None
        ]
        self._texts = [(f.name, frozenset(f.categories)) for f in self.text if f.categories is not None]
        self.refusing = frozenset(feature.name for feature in schema.features if feature.refuse)
        self.watches = self._is_bounded or bool(self._integers) or bool(self._texts)
        """Whether any value could be odd."""

    def odd(self, block: Block) -> list[Odd]:
        """Return every value that lies outside its bounds or among no known category."""
        found: list[Odd] = []
        if self._is_bounded:
            outside = (block.numeric < self._low) | (block.numeric > self._high)  # NaN is in no relation: never outside
            if outside.any():
                found += [Odd(row, self.names[place], "out_of_range") for row, place in np.argwhere(outside).tolist()]
        for place, known in self._integers:
            column = block.numeric[:, place]
            unseen = ~np.isin(column, known) & ~np.isnan(column)
            found += [Odd(row, self.names[place], "unseen") for row in np.flatnonzero(unseen).tolist()]
        for name, words in self._texts:
            said = block.text[name]
            if not words.issuperset(said):
                found += [
                    Odd(row, name, "unseen")
                    for row, value in enumerate(said)
                    if value is not None and value not in words
                ]
        return found

    def signals(self, block: Block) -> dict[str, int]:
        """Return how many values are odd, by ``feature:signal``."""
        if not self.watches:
            return {}
        return dict(Counter(f"{odd.feature}:{odd.signal}" for odd in self.odd(block)))

    def design(self, block: Block) -> Any:
        """Return what the estimator takes: the numeric block itself, or a DataFrame where it wants names."""
        if not self.schema.frame:
            return block.numeric
        import pandas as pd  # only a worker that serves a model with named columns pays for it

        columns: dict[str, Any] = {}
        place = 0
        for feature in self.schema.features:
            if self.schema.is_text(feature):
                words = np.empty(len(block), dtype=object)
                words[:] = block.text[feature.name]
                columns[feature.name] = words
            else:
                columns[feature.name] = _column(feature, block.numeric[:, place])
                place += 1
        return pd.DataFrame(columns, copy=False)


def _kind(feature: Feature) -> Any:
    return {"numeric": "numeric", "boolean": "boolean", "categorical": "integer"}[feature.kind]


def _column(feature: Feature, values: NDArray[np.float64]) -> NDArray[Any]:
    if feature.kind == "numeric":
        return values
    null = np.isnan(values)
    if feature.kind == "categorical":
        return values if null.any() else values.astype(np.int64)
    truths: NDArray[Any] = values == 1
    if null.any():
        truths = truths.astype(object)
        truths[null] = None
    return truths
