"""Drift by Evidently's statistics: every column has a verdict, and the report shows the verdict's own numbers."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from service.domain.check import ColumnDrift, Verdict
from service.domain.errors import CheckFailed
from service.domain.spec import Feature, Schema
from service.learning.columns import pairs_of
from service.learning.drift import compare
from service.learning.examine import examine
from service.learning.report import html, statistics
from service.spec import Drift, Quality

SCHEMA = Schema(
    model="small",
    task="classification",
    timestamp="at",
    label="string",
    features=(
        Feature("price"),
        Feature("tiny"),
        Feature("dead"),
        Feature("gaps", nullable=True),
        Feature("colour", kind="categorical", nullable=True),
        Feature("level", kind="categorical"),
        Feature("flag", kind="boolean", nullable=True),
    ),
    integer_categories=("level",),
    classes=("DOWN", "UP"),
)


def _rows(n: int, *, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    gaps = random.normal(size=n)
    gaps[::5] = np.nan
    flag = pd.Series(random.random(n) < 0.3, dtype=object)
    flag[::17] = None
    colour = random.choice(["red", "green", "blue"], n).astype(object)
    colour[::19] = None
    return pd.DataFrame(
        {
            "event_time": pd.date_range("2026-01-01", periods=n, freq="30min", tz="UTC"),
            "price": random.lognormal(size=n),
            "tiny": random.normal(size=n) * 1e-6,
            "dead": 3.5,
            "gaps": gaps,
            "colour": colour,
            "level": random.integers(1, 5, n),
            "flag": flag,
            "output": random.choice(["UP", "DOWN"], n).astype(object),
        }
    )


REFERENCE, WINDOW = _rows(2688, seed=0), _rows(336, seed=1)
PINNED = [
    Drift(),
    Drift(numeric="ks", categorical="psi"),
    Drift(numeric="psi"),
    Drift(numeric="jensenshannon"),
]


def _by_name(window: pd.DataFrame, policy: Drift | None = None) -> dict[str, ColumnDrift]:
    columns = compare(SCHEMA, policy or Drift(), reference=REFERENCE, window=window)[0]
    return {column.column: column for column in columns}


@pytest.mark.parametrize("policy", PINNED, ids=lambda policy: f"{policy.numeric}-{policy.categorical}")
def test_every_column_has_a_verdict_and_the_same_world_has_not_moved(policy: Drift) -> None:
    columns = _by_name(WINDOW, policy)
    assert list(columns) == [*SCHEMA.names, "prediction"]
    assert [name for name, column in columns.items() if column.drifted is not False] == []


@pytest.mark.parametrize("policy", PINNED, ids=lambda policy: f"{policy.numeric}-{policy.categorical}")
def test_the_report_shows_the_numbers_of_the_verdict(policy: Drift) -> None:
    shifted = WINDOW.assign(price=WINDOW["price"] + 1, colour="red")
    pairs = pairs_of(SCHEMA, policy, reference=REFERENCE, window=shifted)
    shown = statistics(policy, pairs)
    for column in compare(SCHEMA, policy, reference=REFERENCE, window=shifted)[0]:
        assert column.statistic is not None
        assert shown[column.column] == pytest.approx(column.statistic, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("price", lambda w: w["price"] + 2),
        ("tiny", lambda w: w["tiny"] + 1e-6),  # a whole deviation; Evidently's own floor hides it
        ("dead", lambda w: np.linspace(0, 1, len(w))),
        ("gaps", lambda w: w["gaps"] * 3),
        ("colour", "red"),
        ("colour", "violet"),
        ("colour", lambda w: w["colour"].where(w.index % 3 > 0, None)),
        ("level", 1),
        ("flag", True),
        ("output", "UP"),
    ],
)
@pytest.mark.parametrize("policy", PINNED[:2], ids=["distances", "p-values"])
def test_a_shift_is_seen_in_its_own_column_only(
    policy: Drift, column: str, change: Callable[[pd.DataFrame], object] | object
) -> None:
    new = change(WINDOW) if callable(change) else change
    columns = _by_name(WINDOW.assign(**{column: new}), policy)  # type: ignore[arg-type]
    moved = [name for name, found in columns.items() if found.drifted]
    assert moved == ["prediction" if column == "output" else column]


def test_one_row_of_a_new_category_is_no_drift() -> None:
    colour = WINDOW["colour"].copy()
    colour.iloc[3] = "violet"
    found = _by_name(WINDOW.assign(colour=colour))["colour"]
    assert found.drifted is False
    assert "has not" in found.reason


def test_one_other_value_in_a_dead_column_is_no_drift() -> None:
    dead = WINDOW["dead"].copy()
    dead.iloc[3] = 1e9
    found = _by_name(WINDOW.assign(dead=dead))["dead"]
    assert found.drifted is False
    assert "stood still" in found.reason


@pytest.mark.parametrize("column", ["price", "gaps", "colour", "flag"])
def test_a_column_without_values_is_not_evaluated_and_says_so(column: str) -> None:
    found = _by_name(WINDOW.assign(**{column: None}))[column]
    assert found.statistic is None
    assert found.drifted is None
    assert found.reason == "not evaluated: the window holds no value"


def test_a_handful_of_rows_is_not_evaluated() -> None:
    assert {column.drifted for column in _by_name(WINDOW.head(5)).values()} == {None}


def test_nullable_and_small_types_are_compared_like_any_other() -> None:
    typed = WINDOW.astype({"price": "Float64", "level": "uint8", "flag": "boolean"})
    plain = _by_name(WINDOW)
    for name, column in _by_name(typed).items():
        assert column.statistic == pytest.approx(plain[name].statistic)


def test_true_and_one_are_the_same_boolean() -> None:
    spelled = WINDOW["flag"].map(lambda value: None if value is None else str(value).lower())
    assert _by_name(WINDOW.assign(flag=spelled))["flag"].drifted is False


def test_infinite_values_do_not_blind_the_statistic() -> None:
    price = WINDOW["price"] + 2
    price.iloc[:10] = np.inf
    assert _by_name(WINDOW.assign(price=price))["price"].drifted is True


def test_a_missing_column_is_an_error_that_names_it() -> None:
    with pytest.raises(CheckFailed, match="tiny"):
        compare(SCHEMA, Drift(), reference=REFERENCE, window=WINDOW.drop(columns="tiny"))


def test_single_thresholds_leave_the_others_alone() -> None:
    columns = _by_name(WINDOW, Drift(thresholds={"price": 9.0, "prediction": 0.5}))
    assert (columns["price"].threshold, columns["prediction"].threshold, columns["gaps"].threshold) == (9.0, 0.5, 0.25)


def test_neither_the_frames_nor_the_global_random_state_are_touched() -> None:
    reference, window = REFERENCE.copy(deep=True), WINDOW.copy(deep=True)
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    compare(SCHEMA, Drift(categorical="TVD"), reference=REFERENCE, window=WINDOW)
    assert np.array_equal(np.random.random(3), expected)
    pd.testing.assert_frame_equal(REFERENCE, reference)
    pd.testing.assert_frame_equal(WINDOW, window)


def test_the_page_stands_on_its_own_and_names_what_was_not_evaluated() -> None:
    page = html(SCHEMA, Drift(), reference=REFERENCE, window=WINDOW.assign(price=None), title="small <1>")
    assert page.count("<html") == 1
    assert "small &lt;1&gt;" in page
    assert "not evaluated: the window holds no value" in page


def test_a_page_of_nothing_comparable_is_still_a_page() -> None:
    page = html(SCHEMA, Drift(), reference=REFERENCE, window=WINDOW.head(3), title="thin")
    assert "not evaluated" in page


def _examined(window: pd.DataFrame) -> object:
    answered = window.assign(label=window["output"], observed_at=window["event_time"])
    return examine(
        SCHEMA,
        quality=Quality(),
        drift=Drift(),
        metric="accuracy",
        reference=REFERENCE,
        window=window,
        answered=answered,
        reference_loss=0.2,
    )


@pytest.mark.parametrize(
    ("window", "verdict", "columns"),
    [
        (WINDOW, Verdict.CLEAN, 8),
        (WINDOW.assign(price=WINDOW["price"] * 100), Verdict.QUARANTINED, 0),
        (WINDOW.assign(output="UP"), Verdict.DRIFTED, 8),
        (WINDOW.head(30), Verdict.INSUFFICIENT, 0),
        (WINDOW.head(0), Verdict.INSUFFICIENT, 0),
    ],
)
def test_quality_comes_before_drift(window: pd.DataFrame, verdict: Verdict, columns: int) -> None:
    found = _examined(window)
    assert (found.verdict, len(found.columns)) == (verdict, columns)  # type: ignore[attr-defined]
    assert found.reason  # type: ignore[attr-defined]
