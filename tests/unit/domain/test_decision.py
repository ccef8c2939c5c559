"""What follows from a check: causes, and what stands in their way."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.check import Verdict
from service.domain.decision import Action, Situation, decide, retry_of
from service.domain.policy import Retrain
from service.domain.run import Trigger

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _situation(**changes: Any) -> Situation:
    quiet: dict[str, Any] = {
        "now": NOW,
        "verdict": Verdict.CLEAN,
        "quarantined": False,
        "loss": 0.1,
        "reference_loss": 0.1,
        "degraded_in_a_row": 0,
        "drifted_in_a_row": 0,
        "new_labels": 500,
        "learned_until": NOW - timedelta(days=31),
        "promoted_at": NOW - timedelta(days=30),
        "last_run_ended": NOW - timedelta(days=30),
        "rejected_in_a_row": 0,
        "active_run": None,
    }
    return Situation(**(quiet | changes))


WORSE: dict[str, Any] = {"loss": 0.2, "degraded_in_a_row": 1}


def test_nothing_follows_from_a_quiet_week() -> None:
    assert decide(Retrain(), _situation()).code == "no_cause"


@pytest.mark.parametrize(
    ("policy", "changes", "trigger"),
    [
        (Retrain(), WORSE, Trigger.PERFORMANCE),
        (Retrain(), {"promoted_at": NOW - timedelta(days=42)}, Trigger.AGE),
        (Retrain(on_drift=True), {"verdict": Verdict.DRIFTED, "drifted_in_a_row": 2}, Trigger.DRIFT),
    ],
)
def test_each_cause_starts_a_run(policy: Retrain, changes: dict[str, Any], trigger: Trigger) -> None:
    decision = decide(policy, _situation(**changes))
    assert (decision.action, decision.trigger) == (Action.RETRAIN, trigger)


@pytest.mark.parametrize(
    ("policy", "changes", "code"),
    [
        (Retrain(), {"quarantined": True}, "quarantined"),
        (Retrain(mode="off"), {}, "mode_off"),
        (Retrain(), {"frozen": True}, "frozen"),
        (Retrain(), {"paused": True}, "paused"),
        (Retrain(), {"active_run": "x"}, "run_in_progress"),
        (Retrain(), {"new_labels": 99}, "few_labels"),
        (Retrain(), {"promoted_at": NOW - timedelta(days=20)}, "cooldown"),
        (Retrain(), {"last_run_ended": NOW - timedelta(days=6)}, "cooldown"),
        (Retrain(mode="suggest"), {}, "mode_suggest"),
        (Retrain(confirm=2), {}, "no_cause"),
    ],
)
def test_each_obstacle_stops_it_and_is_named(policy: Retrain, changes: dict[str, Any], code: str) -> None:
    decision = decide(policy, _situation(**(WORSE | changes)))
    assert decision.action is not Action.RETRAIN
    assert decision.code == code
    assert decision.reason


def test_after_a_rollback_the_cooldown_is_doubled() -> None:
    policy = Retrain(cooldown="21d")
    for days, code in ((41, "cooldown"), (42, "performance")):
        back = NOW - timedelta(days=days)
        decision = decide(
            policy, _situation(**(WORSE | dict.fromkeys(("promoted_at", "rolled_back_at", "last_run_ended"), back)))
        )
        assert decision.code == code
    assert decide(policy, _situation(**WORSE, rolled_back_at=NOW - timedelta(days=41))).reason.count("rollback") == 1


def test_drift_alone_is_evidence_not_an_order() -> None:
    drifted = _situation(verdict=Verdict.DRIFTED, drifted_in_a_row=9)
    assert decide(Retrain(), drifted).action is Action.NONE


def test_the_pause_after_rejections_grows_by_the_backoff_up_to_the_cap() -> None:
    assert [retry_of(Retrain(), n).days for n in (0, 1, 5)] == [7, 7, 7]
    growing = Retrain(backoff=2, cooldown_cap="21d")
    assert [retry_of(growing, n).days for n in (0, 1, 2, 3)] == [7, 7, 14, 21]
