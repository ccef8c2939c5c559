"""The table of signatures: which evidence reads as what, and what it asks for."""

from dataclasses import replace
from typing import Any

import pytest

from service.domain.check import DriftTest, Estimate, Examination, Finding, Performance, Verdict
from service.domain.reading import ADVICE, Signature, read

S = Signature
FINE = Performance(
    metric="accuracy", value=0.9, loss=0.1, reference_loss=0.1, rows=100, labelled=90, delay_p50_s=1.0, reason="steady"
)
WORSE = replace(FINE, loss=0.3, value=0.7, reason="")
UNKNOWN = replace(FINE, loss=None, value=None, labelled=3)
THIN = replace(FINE, labelled=50)
SOUND = Estimate(loss=0.1, reference_loss=0.1, low=0.09, high=0.11, rows=500, valid=True, worse=False, reason="")
BAD = replace(SOUND, loss=0.3, low=0.28, high=0.32, worse=True)
BLIND = replace(SOUND, valid=False, reason="only 4 % of the window lies where the reference does")
TEST = DriftTest(state="calibrated", statistic=3.0, threshold=2.0, blocks=60, level=0.02, expected_alarms=0.5)


def seen(verdict: Verdict, performance: Performance | None = None, **changes: Any) -> Examination:
    return Examination(verdict=verdict, reason="as told", rows=100, performance=performance, **changes)


def finding(check: str) -> Finding:
    return Finding(check=check, column="x", value=1.0, limit=0.2, reason=f"x: {check}")


@pytest.mark.parametrize(
    ("verdict", "performance", "degraded", "expected"),
    [
        (Verdict.CLEAN, FINE, False, S.HEALTHY),
        (Verdict.CLEAN, None, None, S.HEALTHY),
        (Verdict.CLEAN, WORSE, True, S.CONCEPT_DRIFT),
        (Verdict.CLEAN, replace(UNKNOWN, estimate=BAD), None, S.HARMFUL_SHIFT),
        (Verdict.CLEAN, replace(UNKNOWN, estimate=replace(BAD, valid=False)), None, S.HEALTHY),
        (Verdict.DRIFTED, WORSE, True, S.HARMFUL_SHIFT),
        (Verdict.DRIFTED, replace(UNKNOWN, estimate=BAD), None, S.HARMFUL_SHIFT),
        (Verdict.DRIFTED, FINE, False, S.BENIGN_SHIFT),
        (Verdict.DRIFTED, replace(UNKNOWN, estimate=SOUND), None, S.BENIGN_SHIFT),
        (Verdict.DRIFTED, replace(FINE, estimate=BLIND), False, S.BENIGN_SHIFT),
        (Verdict.DRIFTED, replace(THIN, estimate=BLIND), False, S.UNKNOWN_REGION),
        (Verdict.DRIFTED, replace(UNKNOWN, estimate=BLIND), None, S.UNKNOWN_REGION),
        (Verdict.DRIFTED, UNKNOWN, None, S.UNKNOWN_REGION),
        (Verdict.DRIFTED, None, None, S.UNKNOWN_REGION),
        (Verdict.INSUFFICIENT, WORSE, True, S.INSUFFICIENT),
    ],
)
def test_evidence_reads_as_its_signature(
    verdict: Verdict, performance: Performance | None, degraded: bool | None, expected: Signature
) -> None:
    reading = read(seen(verdict, performance), degraded=degraded)
    assert (reading.signature, reading.advice) == (expected, ADVICE[expected])
    assert reading.reason


@pytest.mark.parametrize(
    ("check", "expected"),
    [("nulls", S.BROKEN_PIPE), ("scale", S.BROKEN_PIPE), ("constant", S.BROKEN_PIPE), ("swapped", S.PIPE_SUSPECTED)],
)
def test_broken_data_read_as_a_pipe_whatever_else_is_there(check: str, expected: Signature) -> None:
    broken = seen(Verdict.QUARANTINED, replace(WORSE, estimate=BAD), findings=(finding(check),), drift=TEST)
    reading = read(broken, degraded=True)
    assert reading.signature is expected
    assert "retrain" not in reading.advice.replace("no retrain", "")


def test_nothing_but_harm_asks_for_a_retrain_at_once() -> None:
    assert {signature for signature, advice in ADVICE.items() if advice.startswith("retrain")} == {S.HARMFUL_SHIFT}
    assert set(ADVICE) == set(S)


def test_concept_drift_on_few_labels_says_how_few() -> None:
    reading = read(seen(Verdict.CLEAN, replace(WORSE, labelled=50)), degraded=True)
    assert "only 50% of the rows have a label" in reading.reason


def test_an_uncalibrated_drift_test_is_called_so() -> None:
    drifted = seen(Verdict.DRIFTED, FINE, drift=replace(TEST, state="uncalibrated"))
    assert "not calibrated" in read(drifted, degraded=False).reason
