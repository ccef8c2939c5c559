"""The gate's false promotions stay where they are said to be, measured with the bench's own simulation."""

import pytest

from bench.decisions_gate import Case, measure

WORLDS = 60


@pytest.mark.parametrize(("rows", "most"), [(200, 0.20), (1000, 0.05)])
def test_an_equal_challenger_seldom_passes_a_gate(rows: int, most: float) -> None:
    share, _ = measure(Case(rows=rows, rule="non_inferior"), worlds=WORLDS, seed=0)
    naive, _ = measure(Case(rows=rows, rule="point"), worlds=WORLDS, seed=0)
    assert share < most
    assert share < naive / 2


def test_rows_that_were_seen_before_fool_no_more_often_than_new_ones() -> None:
    rolled, _ = measure(Case(rows=200, rule="improve"), worlds=WORLDS, seed=0)
    shared, _ = measure(Case(rows=200, rule="improve", overlap=0.5), worlds=WORLDS, seed=0)
    assert shared <= rolled + 0.02


def test_what_is_worse_passes_next_to_never_and_what_is_better_with_enough_rows_mostly_does() -> None:
    worse, _ = measure(Case(rows=200, rule="non_inferior", better=-0.03), worlds=WORLDS, seed=0)
    better, _ = measure(Case(rows=1000, rule="non_inferior", better=0.05), worlds=WORLDS, seed=0)
    assert worse < 0.02
    assert better > 0.9
