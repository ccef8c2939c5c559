"""Broken data are found, with words and figures; seasons, holidays and a market that opens are not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.domain.errors import CheckFailed
from service.domain.spec import Feature, Schema
from service.learning.quality import look
from service.spec import Quality

SCHEMA = Schema(
    model="small",
    task="regression",
    timestamp="at",
    label="number",
    features=(
        Feature("price", low=0, high=1000, nullable=True),
        Feature("change"),
        Feature("colour", kind="categorical", nullable=True),
        Feature("weekday", kind="categorical", categories=(0, 1, 2, 3, 4, 5, 6)),
        Feature("holiday", kind="boolean"),
        Feature("dead"),
        Feature("size", kind="categorical", categories=("s", "m", "l")),
    ),
    integer_categories=("weekday",),
)


def _rows(days: int, *, start: str = "2026-01-05", seed: int = 0) -> pd.DataFrame:
    n = days * 24
    random = np.random.default_rng(seed)
    times = pd.date_range(start, periods=n, freq="1h", tz="UTC")
    return pd.DataFrame(
        {
            "event_time": times,
            "price": 50 + 20 * np.sin(np.arange(n) / 24 * 2 * np.pi) + random.normal(size=n),
            "change": random.normal(size=n),
            "colour": random.choice(["red", "green"], n).astype(object),
            "weekday": times.dayofweek.to_numpy(),
            "holiday": times.dayofyear.to_numpy() % 30 == 10,
            "dead": 7.0,
            "size": random.choice(["s", "m", "l"], n, p=[0.6, 0.3, 0.1]).astype(object),
        }
    )


REFERENCE = _rows(56)
WINDOW = _rows(7, start="2026-03-02", seed=1)


def _as_it_came(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the moments of a replay in this very order, years after they happened."""
    moments = pd.date_range("2030-01-01", periods=len(rows), freq="1ms", tz="UTC")
    return rows.assign(answered_at=moments).sort_values("event_time")


def _names(
    window: pd.DataFrame,
    policy: Quality | None = None,
    stragglers: pd.DataFrame | None = None,
    *,
    reference: pd.DataFrame = REFERENCE,
) -> list[tuple[str, str | None]]:
    findings = look(SCHEMA, policy or Quality(), reference=reference, window=window, stragglers=stragglers)
    for finding in findings:
        assert any(character.isdigit() for character in finding.reason), finding.reason
        assert finding.value is not None
        assert finding.limit is not None
    return [(finding.check, finding.column) for finding in findings]


def test_clean_weeks_break_nothing() -> None:
    assert _names(WINDOW) == []
    assert not WINDOW["holiday"].any()  # a week without a holiday stands still, as many weeks of the reference did


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lambda w: w.assign(price=w["price"].where(w.index % 2 == 0)), ("nulls", "price")),
        (lambda w: w.assign(price=np.nan), ("all_null", "price")),
        (lambda w: w.assign(colour=None), ("all_null", "colour")),
        (lambda w: w.assign(price=w["price"].iloc[0]), ("constant", "price")),
        (lambda w: w.assign(weekday=3), ("constant", "weekday")),
        (lambda w: w.assign(price=w["price"] * 100), ("scale", "price")),
        (lambda w: w.assign(price=w["price"] / 1000), ("scale", "price")),
        (lambda w: w.assign(price=w["price"] * 9), ("scale", "price")),
        (lambda w: w.assign(change=w["change"] * 100), ("scale", "change")),
        (lambda w: w.assign(price=w["price"] - 60), ("out_of_range", "price")),
        (lambda w: w.assign(change=np.where(w.index % 2 == 0, np.inf, 0.1 * w.index)), ("infinite", "change")),
        (lambda w: w.assign(colour=w["colour"].str.upper()), ("unseen", "colour")),
        (lambda w: w.assign(weekday=w["weekday"] + 10), ("unseen", "weekday")),
        (lambda w: w.assign(price=w["change"], change=w["price"]), ("swapped", None)),
        (lambda w: w.assign(weekday=w["weekday"] + 1), ("recoded", "weekday")),
        (lambda w: w.assign(size=w["size"].map({"s": "l", "m": "s", "l": "m"})), ("recoded", "size")),
        (lambda w: pd.concat([w, w], ignore_index=True).sort_values("event_time"), ("duplicates", None)),
        (lambda w: w.assign(answered_at=w["event_time"] - pd.Timedelta("1h")), ("future", None)),
        (lambda w: _as_it_came(pd.concat([w.iloc[72:], w.iloc[:72]])), ("late", None)),
        (lambda w: w.assign(price=w["price"] * 1.8 + 32), ("conversion", "price")),
        (lambda w: w.assign(change=w["change"] - 273.15), ("conversion", "change")),
        (lambda w: w.assign(change=w["change"].where(w.index < 150, -999.0)), ("sentinel", "change")),
        (lambda w: w.assign(price=w["price"].where(w.index % 9 > 0, 0.0)), ("sentinel", "price")),
        (lambda w: w.assign(change=w["change"].where(w.index % 5 > 0, 0.0)), ("sentinel", "change")),
        (lambda w: w.assign(change=w["change"].clip(upper=1.0)), ("clipped", "change")),
        (lambda w: w.assign(price=w["price"].clip(40, 60)), ("clipped", "price")),
        (lambda w: w.assign(change=w["change"].where(w.index < 150, w["change"] * 1000)), ("beyond", "change")),
        (lambda w: w.assign(event_time=w["event_time"] + pd.Timedelta("8h")), ("clock", "weekday")),
        (lambda w: w.assign(weekday=(w["weekday"] + 1) % 7), ("clock", "weekday")),
        (lambda w: pd.concat([w, w.iloc[-30:]]).sort_values("event_time"), ("duplicates", None)),
        (lambda w: w[w["size"] != "m"], ("missing", "size")),
    ],
)
def test_each_breakage_is_found_alone(
    broken: Callable[[pd.DataFrame], pd.DataFrame], expected: tuple[str, str | None]
) -> None:
    assert _names(broken(WINDOW)) == [expected]


@pytest.mark.parametrize(
    "drifted",
    [
        lambda w: w.assign(price=w["price"] * 2),
        lambda w: w.assign(price=w["price"] + 300),
        lambda w: w.assign(change=w["change"] + 3),
        lambda w: w.assign(colour="red"),
        lambda w: w.assign(dead=np.linspace(0, 5, len(w))),
        lambda w: w.assign(price=w["price"].where(w.index % 10 > 0)),
        lambda w: w.assign(colour=w["colour"].where(w.index % 10 > 0, "blue")),
        lambda w: w.assign(answered_at=w["event_time"] + pd.Timedelta("900d")),
        lambda w: w.assign(change=w["price"]),
        lambda w: w.assign(size=w["size"].map({"s": "m", "m": "s", "l": "l"}).where(w.index % 2 == 0, w["size"])),
        _as_it_came,
        lambda w: _as_it_came(w.iloc[np.argsort(w.index // 12 * 12 + np.arange(len(w)) * 7 % 12, kind="stable")]),
        lambda w: _as_it_came(pd.concat([w.iloc[-1:], w.iloc[:-1]])),
        lambda w: w.iloc[:5],
        lambda w: w.iloc[:0],
    ],
)
def test_drift_and_thin_windows_are_not_breakage(drifted: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    window = drifted(WINDOW)
    if (window["colour"] == "red").all() and len(window):
        # A colour that alternated hour by hour and now stands still for a week is broken by any measure.
        assert _names(window) == [("constant", "colour")]
    else:
        assert _names(window) == []


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lambda w, late: w["price"].where(~late, w["price"] * 100), ("scale", "price")),
        (lambda w, late: w["price"].where(~late, np.nan), ("all_null", "price")),
        (lambda w, late: w["price"].where(~late, 50.1), ("constant", "price")),
    ],
)
@pytest.mark.parametrize("hours", [17, 84])
def test_what_broke_inside_the_window_is_found_in_its_newest_rows_and_the_finding_says_since_when(
    broken: Callable[[pd.DataFrame, pd.Series], pd.Series], expected: tuple[str, str], hours: int
) -> None:
    late = pd.Series(np.arange(len(WINDOW)) >= len(WINDOW) - hours)
    window = WINDOW.assign(price=broken(WINDOW, late))
    policy = Quality(null_rise=0.6, atom=0.6)  # so that only the newest rows can tell
    found = look(SCHEMA, policy, reference=REFERENCE, window=window)
    if expected[0] == "scale":
        assert [one.column for one in found] == ["price"]
        assert found[0].check in {"scale", "beyond"}
    else:
        assert [(one.check, one.column) for one in found] == [expected]
        assert f"the newest {hours} rows, since 2026-03-0" in found[0].reason


def test_outages_that_the_reference_had_are_no_news_inside_a_window() -> None:
    gaps = np.arange(len(REFERENCE)) % 336 < 20
    reference = REFERENCE.assign(price=REFERENCE["price"].where(~gaps, np.nan))
    window = WINDOW.assign(price=WINDOW["price"].where(WINDOW.index < 151, np.nan))
    (finding,) = look(SCHEMA, Quality(), reference=REFERENCE, window=window)
    assert (finding.check, finding.column) == ("nulls", "price")
    assert look(SCHEMA, Quality(), reference=reference, window=window) == ()


def test_summer_time_is_no_other_time_zone_and_a_clock_among_the_columns_tells_one() -> None:
    schema = Schema(
        model="m", task="regression", timestamp="at", label="number", features=(Feature("hour"), Feature("change"))
    )
    reference = REFERENCE.assign(hour=REFERENCE["event_time"].dt.hour.astype(float))
    window = WINDOW.assign(hour=WINDOW["event_time"].dt.hour.astype(float))
    for hours, expected in ((0, []), (1, []), (-1, []), (5, ["clock"]), (-9, ["clock"])):
        moved = window.assign(event_time=window["event_time"] + pd.Timedelta(hours=hours))
        found = look(schema, Quality(), reference=reference, window=moved)
        assert [one.check for one in found] == expected, hours
    part = window["event_time"] + pd.to_timedelta(np.where(window.index >= 151, 7, 0), unit="h")
    (finding,) = look(schema, Quality(), reference=reference, window=window.assign(event_time=part))
    assert finding.check == "clock"


def test_columns_that_are_empty_together_are_one_join_that_missed() -> None:
    window = WINDOW.assign(price=np.nan, change=np.nan, colour=None)
    found = look(SCHEMA, Quality(), reference=REFERENCE, window=window)
    assert found[0].check == "join"
    assert "3 of 7 columns" in found[0].reason
    assert {one.check for one in found[1:]} == {"all_null"}


def test_a_column_on_a_grid_has_atoms_of_its_own() -> None:
    reference, window = (side.assign(change=side["change"].round(1)) for side in (REFERENCE, WINDOW))
    assert look(SCHEMA, Quality(), reference=reference, window=window) == ()
    days = window.assign(change=np.round(window["change"] / 4, 1))  # five times as narrow: few values, each frequent
    assert look(SCHEMA, Quality(), reference=reference, window=days) == ()


def test_a_price_that_is_agreed_on_for_days_is_no_sentinel_and_one_that_stood_as_never_before_is() -> None:
    """Each week knows a price of its own that a tenth of its rows have: no other week has ever shown that value."""

    def agreed(rows: pd.DataFrame, share: float) -> pd.DataFrame:
        week = (rows["event_time"] - REFERENCE["event_time"].iloc[0]).dt.days // 7
        is_agreed = np.random.default_rng(3).random(len(rows)) < share
        return rows.assign(price=rows["price"].mask(is_agreed, 50 + week / 7))

    reference = agreed(REFERENCE, 0.1)
    assert _names(agreed(WINDOW, 0.1), reference=reference) == []
    assert _names(agreed(WINDOW, 0.9), reference=reference) == [("sentinel", "price")]
    assert _names(agreed(WINDOW, 0.2)) == [("sentinel", "price")]


def test_days_hotter_than_any_before_are_no_sentinel() -> None:
    """On whole degrees each of the hottest values has many rows, and lies beyond the range; so do those just below."""
    reference = REFERENCE.assign(change=REFERENCE["change"].round())
    assert _names(WINDOW.assign(change=(WINDOW["change"] * 2 + 4).round()), reference=reference) == []
    hot = WINDOW.assign(change=np.where(WINDOW.index % 5 > 0, WINDOW["change"].round(), 9.0))
    assert _names(hot, reference=reference) == [("sentinel", "change")]


def test_a_price_that_spikes_passes_through_what_lies_between_and_another_unit_does_not() -> None:
    reach = float(REFERENCE["change"].max() - REFERENCE["change"].min())
    spikes = np.where(
        WINDOW.index % 8 == 0, np.random.default_rng(4).uniform(0.5, 5, len(WINDOW)) * reach, WINDOW["change"]
    )
    assert _names(WINDOW.assign(change=spikes)) == []
    jumped = np.where(WINDOW.index % 8 == 0, np.linspace(5, 6, len(WINDOW)) * reach, WINDOW["change"])
    assert _names(WINDOW.assign(change=jumped)) == [("beyond", "change")]


def test_old_rows_that_come_with_a_window_are_late_and_the_finding_says_when_they_came() -> None:
    week_before = _rows(7, start="2026-02-23", seed=2)
    came = _as_it_came(pd.concat([WINDOW.iloc[:100], week_before, WINDOW.iloc[100:]])).sort_values("answered_at")
    window, stragglers = came[came["event_time"] >= WINDOW["event_time"].iloc[0]], came.iloc[100 : 100 + 168]
    (finding,) = look(SCHEMA, Quality(), reference=REFERENCE, window=window, stragglers=stragglers)
    assert finding.check == "late"
    assert finding.value == pytest.approx(0.5, abs=0.01)
    assert finding.answered == (stragglers["answered_at"].iloc[0], stragglers["answered_at"].iloc[-1])
    assert _names(window, stragglers=stragglers.iloc[:60]) == []
    assert _names(window, replace(Quality(), late_by="30d"), stragglers) == []


def test_what_moved_often_before_is_not_taken_for_swapped() -> None:
    """Two columns that changed places for one week of the reference may do so again: that is drift's to tell."""
    week = np.arange(len(REFERENCE)) // (24 * 7) != 3
    a, b = REFERENCE["price"].to_numpy(), REFERENCE["change"].to_numpy()
    turns = REFERENCE.assign(price=np.where(week, a, b), change=np.where(week, b, a))
    window = WINDOW.assign(price=WINDOW["change"], change=WINDOW["price"])
    found = look(SCHEMA, Quality(), reference=turns, window=window)
    assert "swapped" not in {finding.check for finding in found}


def test_columns_that_look_like_others_which_stayed_are_drift() -> None:
    """Only a place that was left can have been taken: two copies are two columns that moved."""
    schema = Schema(
        model="four", task="regression", timestamp="at", label="number", features=tuple(map(Feature, "abcd"))
    )
    random, times = np.random.default_rng(0), REFERENCE["event_time"]
    reference = pd.DataFrame({name: random.normal(10 * place, size=len(times)) for place, name in enumerate("abcd")})
    reference["event_time"] = times
    week = reference.iloc[-168:]
    drifted = week.assign(a=week["c"] + 0.01, b=week["d"] - 0.01)
    assert look(schema, Quality(), reference=reference, window=drifted) == ()
    (finding,) = look(schema, Quality(), reference=reference, window=drifted.assign(c=week["a"]))
    assert finding.check == "swapped"


def test_a_check_can_be_switched_off() -> None:
    still = WINDOW.assign(price=1.0)
    assert ("constant", "price") in _names(still)
    assert ("constant", "price") not in _names(still, replace(Quality(), constant=False))


def test_a_column_that_is_gone_is_an_error_that_names_it() -> None:
    with pytest.raises(CheckFailed, match="price"):
        look(SCHEMA, Quality(), reference=REFERENCE, window=WINDOW.drop(columns="price"))


def test_the_frames_are_not_changed() -> None:
    reference: Any = REFERENCE.copy(deep=True)
    window: Any = WINDOW.copy(deep=True)
    look(SCHEMA, Quality(), reference=REFERENCE, window=WINDOW)
    pd.testing.assert_frame_equal(REFERENCE, reference)
    pd.testing.assert_frame_equal(WINDOW, window)
