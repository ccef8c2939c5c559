"""Recent rows: a few blocks that were answered lately, by which a challenger is warmed before it may answer."""

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from service.serving.block import Block, Layout, join
from service.serving.bundle import Answers, Bundle

__all__ = ["Recent", "parsed", "written"]

BLOCKS, ROWS = 8, 32
"""So many blocks are kept, of each so many rows: enough to meet the common values, and never much memory."""
EVERY = 16
"""One batch in so many is kept."""


class Recent:
    """The rows of one model's latest answers. Written by its batcher, read by whoever loads a version."""

    def __init__(self) -> None:
        self._kept: deque[tuple[Layout, Block]] = deque(maxlen=BLOCKS)
        self._turn: Callable[[], int] = count().__next__

    def note(self, bundle: Bundle, block: Block, answers: Answers) -> None:
        """Keep a batch that was answered, now and then."""
        if self._turn() % EVERY == 0 and _is_finite(answers):
            self._kept.append((bundle.layout, _first(block)))

    def rows(self, layout: Layout) -> Block | None:
        """Return the kept rows that a version with `layout` would answer too; None if there are none."""
        fitting = [_taken(layout, block) for seen, block in list(self._kept) if _is_alike(seen, layout)]
        fitting = [block for block in fitting if len(block)]
        return join(fitting) if fitting else None


def written(block: Block | None) -> Any:
    """Return the rows as JSON has them; `parsed` reads them."""
    return None if block is None else {"numeric": block.numeric.tolist(), "text": block.text}


def parsed(plain: Any, layout: Layout) -> Block | None:
    """Return the rows that `written` wrote."""
    if plain is None:
        return None
    width = len(layout.names)
    return Block(np.array(plain["numeric"], dtype=np.float64).reshape(len(plain["numeric"]), width), plain["text"])


def _is_finite(answers: Answers) -> bool:
    return not (answers.outputs.dtype.kind == "f" and not np.isfinite(answers.outputs).all())


def _first(block: Block) -> Block:
    if len(block) <= ROWS:
        return Block(block.numeric, block.text)
    # A copy: a view would keep the whole of a large request.
    return Block(block.numeric[:ROWS].copy(), {name: words[:ROWS] for name, words in block.text.items()})


def _is_alike(seen: Layout, wanted: Layout) -> bool:
    return (
        seen.names == wanted.names
        and seen.kinds == wanted.kinds
        and [feature.name for feature in seen.text] == [feature.name for feature in wanted.text]
    )


def _taken(layout: Layout, block: Block) -> Block:
    """Return the rows without those that the version may refuse: a null or a category that is new to it."""
    bad = {odd.row for odd in layout.odd(block) if odd.signal == "unseen" or odd.feature in layout.refusing}
    for place, feature in enumerate(layout.numeric):
        if not feature.nullable:
            bad.update(np.flatnonzero(np.isnan(block.numeric[:, place])).tolist())
    for feature in layout.text:
        if not feature.nullable:
            bad.update(row for row, word in enumerate(block.text[feature.name]) if word is None)
    if not bad:
        return block
    kept = [row for row in range(len(block)) if row not in bad]
    return Block(block.numeric[kept], {name: [words[row] for row in kept] for name, words in block.text.items()})
