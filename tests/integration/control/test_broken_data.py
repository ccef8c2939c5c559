"""Broken upstream data train nothing: every kind of breakage goes through the real loop, with its real processes."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.api.metrics import samples
from service.control.quarantine import spans
from service.control.rows import frame_of, without
from service.domain.run import RunState, Trigger
from service.domain.spec import Schema
from service.storage import audit, checks, models, runs, versions
from service.storage.lake import Lake
from tests.looped import WEEK, Loop

SPEC = """
from sklearn.tree import DecisionTreeClassifier
from service.spec import Drift, Feature, Gate, ModelSpec, Quality, Retrain, Training
spec = ModelSpec(
    name="meter", task="classification", target="y", timestamp="at", metric="accuracy", source="data/meter.parquet",
    features=[
        Feature("price", low=-20, high=500, nullable=True), Feature("load", nullable=True), Feature("flow"),
        Feature("tariff", kind="categorical"), Feature("hour", kind="categorical"),
    ],
    build=lambda: DecisionTreeClassifier(max_depth=3, random_state=0),
    training=Training(initial="56d", windows=("42d",), holdout="7d", min_rows=100), gate=Gate(floor=0.5),
    drift=Drift(window="7d"), quality=Quality(clean_windows=2),
    # A challenger is due each week, so that nothing but the quarantine stands in a run's way.
    retrain=Retrain(mode="suggest", max_age="1d", min_labels=20, cooldown="1d", retry="1d"),
)
"""
WEEKS = 30


def a_project(folder: Path) -> None:
    """Write the model and its hourly source."""
    (folder / "models").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "models" / "meter.py").write_text(SPEC)
    n = 24 * 7 * WEEKS
    rng = np.random.default_rng(1)
    at = pd.date_range("2025-01-01", periods=n, freq="1h", tz="UTC")
    load = rng.normal(size=n)
    frame = {
        "at": at,
        "price": 50 + 20 * np.sin(np.arange(n) / 24 * 2 * np.pi) + rng.normal(size=n),
        "load": load,
        "flow": 300 + 40 * rng.normal(size=n),
        "tariff": rng.choice([1, 2, 3], n, p=[0.6, 0.3, 0.1]),
        "hour": at.hour.to_numpy() // 4,
        "y": np.where(load + 0.3 * rng.normal(size=n) > 0, "up", "down"),
    }
    pd.DataFrame(frame).to_parquet(folder / "data" / "meter.parquet")


class Meter(Loop):
    """The loop, with a pointer at the week that comes next."""

    def __init__(self, folder: Path) -> None:
        a_project(folder / "project")
        super().__init__(folder, "meter")
        self.champion(1)
        with self.database.read() as conn:
            self.schema = Schema.from_json(versions.get(conn, "meter", 1).manifest["schema"])
            self.first: datetime = versions.get(conn, "meter", 1).learned_until
        self.now = self.first

    def next_week(self) -> pd.DataFrame:
        """Return the week's rows, and let it be the present one."""
        self.now += WEEK
        return self.week(self.now)

    def seen(self, rows: pd.DataFrame) -> checks.Check:
        """Answer the rows; return the check of the present week."""
        self.stream(rows)
        return self.checked(self.now)

    def switches(self) -> dict[str, models.Switch]:
        with self.database.read() as conn:
            return models.switches(conn, "meter")

    def metrics(self) -> dict[tuple[str, tuple[str, ...]], float]:
        with self.database.read() as conn:
            return {(name, labels): value for name, labels, value in samples(conn)}

    def training_rows(self) -> pd.DataFrame:
        """Return what a run would learn from now."""
        until = self.now + timedelta(days=1)
        table, _ = Lake(self.home / "lake").training_rows(
            "meter", self.schema, after=None, until=until, observed_until=until
        )
        with self.database.read() as conn:
            return without(frame_of(table, self.schema), spans(conn, "meter"))

    def asked_run(self, *, until: datetime | None = None) -> runs.Run:
        """Ask for a run as an operator does; return it when it has ended."""
        with self.database.write() as conn:
            at = self.database.now(conn)
            run = runs.create(
                conn, "meter", trigger=Trigger.MANUAL, actor="me", reason="try", force=True, until=until, at=at
            )
        return self.ended(run.id)


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    loop = Meter(tmp_path_factory.mktemp("meter"))
    yield loop
    loop.close()


def found(check: checks.Check) -> list[tuple[str, str | None]]:
    return [(finding["check"], finding["column"]) for finding in (check.examination or {})["findings"]]


def assert_quarantined(meter: Meter, check: checks.Check) -> None:
    assert check.verdict == "quarantined"
    assert (check.decision or {})["code"] == "quarantined"
    assert check.run_id is None
    switch = meter.switches()["quarantine"]
    assert switch.actor == "controller"
    assert switch.reason == check.reason
    metrics = meter.metrics()
    assert metrics["check_verdict", ("meter", "quarantined")] == 1
    assert metrics["switch", ("meter", "quarantine")] == 1
    assert metrics["check_findings", ("meter",)] >= 1
    inside = meter.training_rows()["event_time"]
    assert not ((inside > meter.now - WEEK) & (inside <= meter.now)).any()


def test_sound_weeks_call_for_a_challenger(meter: Meter) -> None:
    """The control: without a quarantine, what follows a check is a suggestion to train."""
    check = meter.seen(meter.next_week())
    assert (check.verdict, (check.decision or {})["code"]) == ("clean", "mode_suggest")
    assert meter.metrics()["check_verdict", ("meter", "quarantined")] == 0


SHIFT = ["price", "load", "flow"]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        pytest.param(lambda w: w.assign(price=np.nan), [("all_null", "price")], id="nulls"),
        pytest.param(lambda w: w.assign(load=w["load"].where(w.index % 3 == 0)), [("nulls", "load")], id="some nulls"),
        pytest.param(lambda w: w.assign(flow=300.0), [("constant", "flow")], id="constant"),
        pytest.param(lambda w: w.assign(flow=w["flow"] * 100), [("scale", "flow")], id="unit"),
        pytest.param(lambda w: w.assign(flow=w["flow"] * 1.8 + 32), [("conversion", "flow")], id="Fahrenheit"),
        pytest.param(
            lambda w: w.assign(load=w["load"].where(w.index % 6 > 0, -999.0)), [("sentinel", "load")], id="sentinel"
        ),
        pytest.param(lambda w: w.assign(price=w["flow"], flow=w["price"]), [("swapped", None)], id="two swapped"),
        pytest.param(
            lambda w: w.assign(**dict(zip(SHIFT, w[[*SHIFT[1:], SHIFT[0]]].to_numpy().T, strict=True))),
            [("swapped", None)],
            id="moved by one column",
        ),
        pytest.param(lambda w: w.assign(tariff=w["tariff"] + 10), [("unseen", "tariff")], id="renamed"),
        pytest.param(lambda w: w.assign(hour=w["hour"] + 1), [("recoded", "hour")], id="counted from one"),
        pytest.param(lambda w: w.assign(tariff=w["tariff"] % 3 + 1), [("recoded", "tariff")], id="permuted codes"),
        pytest.param(
            lambda w: pd.concat([w, w]).sort_values("event_time"), [("duplicates", None)], id="a batch sent twice"
        ),
    ],
)
def test_broken_values_are_quarantined_and_call_for_no_run(
    meter: Meter, broken: Callable[[pd.DataFrame], pd.DataFrame], expected: list[Any]
) -> None:
    check = meter.seen(broken(meter.next_week()))
    assert found(check) == expected
    assert_quarantined(meter, check)


def test_an_old_batch_that_is_sent_again_is_quarantined_with_the_rows_that_lie_before_the_window(meter: Meter) -> None:
    week = meter.next_week()
    good_before = len(meter.training_rows())
    meter.stream(week.iloc[:72])
    meter.stream(meter.week(meter.first + WEEK))  # a sound week of long ago: new ids, old event times
    check = meter.seen(week.iloc[72:])
    assert found(check) == [("late", None)]
    assert_quarantined(meter, check)
    assert len(meter.training_rows()) == good_before  # no row of the week, no row of the old batch; the old week stays


def test_rows_from_the_future_are_quarantined(meter: Meter) -> None:
    rows = meter.next_week()
    meter.stream(rows.iloc[:100])
    late_clock = rows["event_time"].iloc[100].to_pydatetime() - timedelta(hours=10)
    real, meter.traffic.clock = meter.traffic.clock, lambda: late_clock
    meter.stream(rows.iloc[100:140])
    meter.traffic.clock = real
    check = meter.seen(rows.iloc[140:])
    assert found(check) == [("future", None)]
    assert_quarantined(meter, check)


def test_clean_windows_end_a_quarantine_and_what_was_broken_stays_out(meter: Meter) -> None:
    broken = len(meter.training_rows())
    first = meter.seen(meter.next_week())
    assert (first.verdict, (first.decision or {})["code"]) == ("clean", "quarantined")  # one of the two that it takes
    assert "quarantine" in meter.switches()
    second = meter.seen(meter.next_week())
    assert (second.verdict, (second.decision or {})["code"]) == ("clean", "mode_suggest")
    assert "quarantine" not in meter.switches()
    assert meter.metrics()["switch", ("meter", "quarantine")] == 0
    with meter.database.read() as conn:
        ended = next(entry for entry in audit.list_of(conn, "meter") if entry.action == "quarantine_cleared")
        assert (ended.actor, ended.subject) == ("controller", f"check {second.id}")
        assert len(spans(conn, "meter")) == 14
    rows = meter.training_rows()
    assert len(rows) > broken + WEEK // timedelta(hours=1)
    run = meter.asked_run(until=meter.now)
    assert run.state in {RunState.SUCCEEDED, RunState.REJECTED, RunState.PROMOTING}, run.detail
    assert run.snapshot is not None
    assert len(run.snapshot["excluded"]) == 14
    assert run.snapshot["used_rows"] < run.snapshot["rows"] - 13 * 24 * 6


def test_what_nobody_has_checked_yet_blocks_the_run_that_meets_it(meter: Meter) -> None:
    week = meter.next_week()
    meter.stream(week.iloc[:-2].assign(price=lambda rows: rows["price"] * 100))  # the window is not over: no check yet
    run = meter.asked_run()
    assert (run.state, run.code) == (RunState.BLOCKED_DATA, "blocked_data")
    assert run.version is None
    assert "price" in (run.detail or "")
    check = meter.seen(week.iloc[-2:])
    assert_quarantined(meter, check)


def test_a_person_who_accepts_the_data_ends_the_quarantine_for_good_and_is_audited(meter: Meter) -> None:
    before = len(meter.training_rows())
    with meter.api() as client:
        answer = client.delete("/v1/models/meter/quarantine", params={"reason": "cents instead of euros from now on"})
    assert answer.status_code == 204
    assert "quarantine" not in meter.switches()
    with meter.database.read() as conn:
        entry = audit.list_of(conn, "meter")[0]
        assert (entry.action, entry.subject) == ("switch_cleared", "quarantine")
        assert entry.reason == "cents instead of euros from now on"
        assert spans(conn, "meter") == ()
    assert len(meter.training_rows()) > before + WEEK // timedelta(hours=1) * 14
