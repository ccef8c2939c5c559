"""Laws of verdicts."""

from typing import Any

import pytest

from service.domain.check import ColumnDrift, Finding, Verdict, verdict_of

BROKEN = Finding(check="scale", column="demand", value=100.0, limit=8.0, reason="demand is 100 × its reference scale")


def a_column(name: str, statistic: float | None, *, role: Any = "feature") -> ColumnDrift:
    drifted = None if statistic is None else statistic >= 0.25
    return ColumnDrift(
        column=name, role=role, method="wasserstein", statistic=statistic, threshold=0.25, drifted=drifted, reason=""
    )


def judged(*columns: ColumnDrift, rows: int = 500, findings: tuple[Finding, ...] = ()) -> tuple[Verdict, str]:
    return verdict_of(rows=rows, min_rows=100, findings=findings, columns=columns, share=0.3)


def test_broken_data_is_quarantined_whatever_has_drifted_and_the_reason_says_so() -> None:
    verdict, reason = judged(a_column("demand", 9.0), findings=(BROKEN,))
    assert verdict is Verdict.QUARANTINED
    assert reason == "quarantined: demand is 100 × its reference scale; not drift"


def test_a_handful_of_rows_proves_nothing_not_even_that_the_data_are_broken() -> None:
    verdict, reason = judged(a_column("demand", 9.0), rows=4, findings=(BROKEN,))
    assert verdict is Verdict.INSUFFICIENT
    assert "4 rows" in reason
    assert BROKEN.reason in reason


def test_predictions_that_moved_are_drift_even_if_no_feature_did() -> None:
    verdict, reason = judged(a_column("a", 0.0), a_column("prediction", 0.5, role="prediction"))
    assert verdict is Verdict.DRIFTED
    assert "predictions" in reason


@pytest.mark.parametrize(("moved", "verdict"), [(0, Verdict.CLEAN), (2, Verdict.CLEAN), (3, Verdict.DRIFTED)])
def test_a_window_has_drifted_when_the_share_of_its_features_has(moved: int, verdict: Verdict) -> None:
    columns = [a_column(f"f{i}", 0.5 if i < moved else 0.1) for i in range(10)]
    assert judged(*columns)[0] is verdict


def test_a_column_that_could_not_be_evaluated_is_never_counted_as_calm() -> None:
    verdict, reason = judged(a_column("a", None), a_column("b", 0.1))
    assert verdict is Verdict.CLEAN
    assert "1 could not be evaluated" in reason
    assert judged(a_column("a", None))[0] is Verdict.INSUFFICIENT
