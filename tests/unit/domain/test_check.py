"""Laws of verdicts."""

from typing import Any

from service.domain.check import ColumnDrift, DriftTest, Finding, Verdict, verdict_of

BROKEN = Finding(check="scale", column="demand", value=100.0, limit=8.0, reason="demand is 100 × its reference scale")


def a_column(name: str, statistic: float | None, *, role: Any = "feature") -> ColumnDrift:
    drifted = None if statistic is None else statistic >= 0.25
    return ColumnDrift(
        column=name, role=role, method="wasserstein", statistic=statistic, threshold=0.25, drifted=drifted, reason=""
    )


def a_test(*culprits: str, statistic: float = 1.0) -> DriftTest:
    return DriftTest(
        state="calibrated", statistic=statistic, threshold=3.0, blocks=60, level=0.02, expected_alarms=0.9,
        culprits=culprits, reason="a budget of 1 per 90d",
    )  # fmt: skip


def judged(
    *columns: ColumnDrift, rows: int = 500, findings: tuple[Finding, ...] = (), drift: DriftTest | None = None
) -> tuple[Verdict, str]:
    return verdict_of(rows=rows, min_rows=100, findings=findings, columns=columns, drift=drift)


def test_broken_data_is_quarantined_whatever_has_drifted_and_the_reason_says_so() -> None:
    verdict, reason = judged(a_column("demand", 9.0), findings=(BROKEN,), drift=a_test("demand"))
    assert verdict is Verdict.QUARANTINED
    assert reason == "quarantined: demand is 100 × its reference scale; not drift"


def test_a_handful_of_rows_proves_nothing_not_even_that_the_data_are_broken() -> None:
    verdict, reason = judged(a_column("demand", 9.0), rows=4, findings=(BROKEN,), drift=a_test("demand"))
    assert verdict is Verdict.INSUFFICIENT
    assert "4 rows" in reason
    assert BROKEN.reason in reason


def test_a_window_has_drifted_when_the_test_names_culprits_and_the_reason_has_the_figures() -> None:
    columns = a_column("a", 0.1), a_column("b", 0.5)
    verdict, reason = judged(*columns, drift=a_test("b", statistic=4.2))
    assert verdict is Verdict.DRIFTED
    assert "b 0.5 (threshold 0.25)" in reason
    assert "4.2 (threshold 3;" in reason
    assert "a budget of 1 per 90d" in reason
    assert judged(*columns, drift=a_test())[0] is Verdict.CLEAN


def test_predictions_that_moved_are_named_first() -> None:
    columns = a_column("a", 0.4), a_column("prediction", 0.5, role="prediction")
    verdict, reason = judged(*columns, drift=a_test("prediction", "a", statistic=5))
    assert verdict is Verdict.DRIFTED
    assert reason.startswith("the predictions have moved: prediction 0.5")


def test_a_threshold_that_the_operator_has_set_is_told_as_such() -> None:
    column = ColumnDrift(
        column="a", role="feature", method="wasserstein", statistic=0.5, threshold=0.4, drifted=True, pinned=True
    )
    verdict, reason = judged(column, drift=a_test("a"))
    assert verdict is Verdict.DRIFTED
    assert "threshold 0.4, its own" in reason


def test_a_column_that_could_not_be_evaluated_is_never_counted_as_calm() -> None:
    verdict, reason = judged(a_column("a", None), a_column("b", 0.1), drift=a_test())
    assert verdict is Verdict.CLEAN
    assert "1 could not be evaluated" in reason
    assert judged(a_column("a", None), drift=a_test())[0] is Verdict.INSUFFICIENT
    assert judged(a_column("a", 0.1), drift=None)[0] is Verdict.INSUFFICIENT
