"""Recent rows: few, bounded, and only such as a challenger would answer."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from service.serving.block import Block, Layout
from service.serving.bundle import Answers, Bundle, load
from service.serving.recent import BLOCKS, EVERY, ROWS, Recent, parsed, written
from service.storage.artifacts import ArtifactStore
from tests.served import FLIP, flip, pack


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    store = ArtifactStore(tmp_path_factory.mktemp("artifacts"))
    return load(store, pack(store, FLIP, flip()), generation=1)


def rows(n: int, zone: float = 1.0) -> Block:
    return Block(np.tile([0.0, 0.0, 0.5, 1.0, zone], (n, 1)), {})


FINE = Answers(np.array(["UP"], dtype=object), None)


def test_one_batch_in_so_many_is_kept_and_of_it_so_many_rows(bundle: Bundle) -> None:
    recent = Recent()
    large = rows(10_000)
    for _ in range(1000):
        recent.note(bundle, large, FINE)
    kept = recent.rows(bundle.layout)
    assert kept is not None
    assert len(kept) == BLOCKS * ROWS
    assert len(recent._kept) == BLOCKS < 1000 / EVERY
    assert not any(np.shares_memory(block.numeric, large.numeric) for _, block in recent._kept)


def test_a_batch_that_was_answered_with_no_number_is_not_kept(bundle: Bundle) -> None:
    recent = Recent()
    recent.note(bundle, rows(1), Answers(np.array([np.nan]), None))
    assert recent.rows(bundle.layout) is None


def test_rows_of_other_columns_are_left_out(bundle: Bundle) -> None:
    recent = Recent()
    recent.note(bundle, rows(3), FINE)
    fewer = replace(FLIP, features=FLIP.features[:4], integer_categories=())
    assert recent.rows(Layout(fewer)) is None


def test_rows_with_a_category_or_a_null_that_the_version_does_not_know_are_left_out(bundle: Bundle) -> None:
    recent = Recent()
    block = rows(4)
    block.numeric[0, 4] = 9  # no such zone
    block.numeric[1, 0] = np.nan  # a takes no null
    block.numeric[2, 2] = np.nan  # n does
    block.numeric[3, 1] = 50  # out of range, and answered all the same
    recent.note(bundle, block, FINE)
    kept = recent.rows(bundle.layout)
    assert kept is not None
    np.testing.assert_array_equal(kept.numeric, block.numeric[2:])


def test_rows_come_out_of_their_written_form_as_they_went_in(bundle: Bundle) -> None:
    block = rows(3)
    block.numeric[1, 2] = np.nan
    again = parsed(msgspec.json.decode(msgspec.json.encode(written(block))), bundle.layout)
    assert again is not None
    np.testing.assert_array_equal(again.numeric, block.numeric)
    assert parsed(None, bundle.layout) is None
