"""What follows from a check: causes, and what stands in their way."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.check import Estimate, Verdict
from service.domain.decision import Action, decide
from service.domain.policy import Retrain
from service.domain.rules import Rule, causes, guard, obstacles, retry_of
from service.domain.run import Trigger
from service.domain.situation import Situation

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
ESTIMATE = Estimate(
    loss=0.2, reference_loss=0.1, low=0.18, high=0.22, rows=500, valid=True, worse=True, reason="its interval is above"
)
DRIFTED: dict[str, Any] = {
    "verdict": Verdict.DRIFTED,
    "drifted_in_a_row": 2,
    "drift_state": "calibrated",
    "labels_since_drift": 100,
}


def test_nothing_follows_from_a_quiet_week() -> None:
    assert decide(Retrain(), _situation()).code == "no_cause"


@pytest.mark.parametrize(
    ("policy", "changes", "trigger"),
    [
        (Retrain(), WORSE, Trigger.PERFORMANCE),
        (Retrain(), {"promoted_at": NOW - timedelta(days=42)}, Trigger.AGE),
        (Retrain(), {"estimate": ESTIMATE, "estimated_worse_in_a_row": 1}, Trigger.ESTIMATE),
        (Retrain(on_drift=True), DRIFTED, Trigger.DRIFT),
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
        (Retrain(), {"rolled_back_at": NOW - timedelta(days=41)}, "cooldown"),
        (Retrain(budget="1 per 30d"), {"started": (NOW - timedelta(days=29),)}, "budget"),
        (Retrain(mode="suggest"), {}, "mode_suggest"),
        (Retrain(), {"breaker": True}, "breaker"),
        (Retrain(), {"failures_in_a_row": 3}, "breaker"),
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


@pytest.mark.parametrize(
    ("policy", "changes", "words"),
    [
        (Retrain(), {}, "drift alone starts no run here"),
        (Retrain(on_drift=True), {"drift_state": "uncalibrated"}, "not calibrated"),
        (Retrain(on_drift=True), {"drift_state": None}, "not calibrated"),
        (Retrain(on_drift=True), {"drifted_in_a_row": 1}, "2 confirm it"),
        (Retrain(on_drift=True), {"drift_confirm": 3}, "3 confirm it"),
        (Retrain(on_drift=True, confirm=3), {}, "3 confirm it"),
        (Retrain(on_drift=True), {"labels_since_drift": 99}, "only 99 rows after it are labelled"),
        (Retrain(on_drift=True), {"labels_since_drift": None}, "only 0 rows after it are labelled"),
        (Retrain(on_drift=True), {"verdict": Verdict.CLEAN}, "has not drifted"),
    ],
)
def test_drift_alone_is_evidence_not_an_order(policy: Retrain, changes: dict[str, Any], words: str) -> None:
    drifted = _situation(**(DRIFTED | changes))
    assert decide(policy, drifted).action is Action.NONE
    assert words in next(rule.reason for rule in causes(policy, drifted) if rule.name == "drift")


@pytest.mark.parametrize(
    ("changes", "in_a_row", "confirm"), [({"valid": False}, 1, 1), ({"worse": False}, 1, 1), ({}, 1, 2), ({}, 0, 1)]
)
def test_an_estimate_without_support_or_confirmation_calls_for_nothing(
    changes: dict[str, Any], in_a_row: int, confirm: int
) -> None:
    situation = _situation(estimate=replace(ESTIMATE, **changes), estimated_worse_in_a_row=in_a_row)
    assert decide(Retrain(confirm=confirm), situation).code == "no_cause"


def test_broken_data_come_before_every_cause() -> None:
    everything = _situation(**(WORSE | DRIFTED), estimate=ESTIMATE, estimated_worse_in_a_row=9, quarantined=True)
    assert decide(Retrain(on_drift=True), everything).code == "quarantined"


def test_the_pause_after_rejections_doubles_up_to_the_cap() -> None:
    assert [retry_of(Retrain(), n).days for n in (0, 1, 2, 3, 4, 99)] == [7, 7, 14, 28, 28, 28]
    assert [retry_of(Retrain(backoff=1), n).days for n in (1, 5)] == [7, 7]
    assert retry_of(Retrain(retry="30d", retry_cap="7d"), 5).days == 30


def _turned_down(*, days: int, **changes: Any) -> Situation:
    told = {"loss": 0.14, "rejected_in_a_row": 3, "rejected_trigger": Trigger.PERFORMANCE, "rejected_loss": 0.13}
    return _situation(**(WORSE | told | {"last_run_ended": NOW - timedelta(days=days)} | changes))


def _obstacles_of(situation: Situation) -> tuple[Rule, ...]:
    return obstacles(Retrain(), situation, Trigger.PERFORMANCE)


def test_the_same_question_waits_for_the_grown_pause_and_a_new_one_does_not() -> None:
    assert decide(Retrain(), _turned_down(days=27)).code == "cooldown"
    assert "grown by 3" in decide(Retrain(), _turned_down(days=27)).reason
    assert decide(Retrain(), _turned_down(days=28)).code == "performance"
    for news in ({"loss": 0.1431}, {"rejected_trigger": Trigger.AGE}):
        assert decide(Retrain(), _turned_down(days=7, **news)).code == "performance", news
        assert decide(Retrain(), _turned_down(days=6, **news)).code == "cooldown", news
    assert decide(Retrain(), _turned_down(days=7, loss=0.1429)).code == "cooldown"
    old = {"degraded_in_a_row": 0, "promoted_at": NOW - timedelta(days=99), "rejected_trigger": Trigger.PERFORMANCE}
    assert decide(Retrain(), _turned_down(days=7, **old)).code == "cooldown", "that a champion grows old is no news"


def test_a_champion_that_has_become_useless_is_asked_about_each_time_however_often_runs_were_turned_down() -> None:
    for loss, code in ((0.149, "cooldown"), (0.151, "performance"), (0.9, "performance")):
        useless = _turned_down(days=7, loss=loss, rejected_loss=loss, rejected_in_a_row=9)
        assert decide(Retrain(), useless).code == code, loss
        assert decide(Retrain(), replace(useless, last_run_ended=NOW - timedelta(days=6))).code == "cooldown"
    reasons = [rule.reason for rule in _obstacles_of(_turned_down(days=7, loss=0.9, rejected_loss=0.9))]
    assert "800% above the reference costs more than a run" in str(reasons)


def test_a_run_that_broke_is_no_answer_so_nothing_is_new_after_it() -> None:
    broke = _turned_down(days=7, rejected_trigger=None, rejected_loss=None)
    assert decide(Retrain(), broke).code == "cooldown"


def test_the_budget_counts_runs_in_any_stretch_of_its_length() -> None:
    policy = Retrain(budget="2 per 7d")
    for days, code in (((1, 6), "budget"), ((1, 7), "performance"), ((1,), "performance"), ((8, 9, 10), "performance")):
        started = tuple(NOW - timedelta(days=n) for n in days)
        assert decide(policy, _situation(**WORSE, started=started)).code == code, days


def test_a_tripped_breaker_leaves_to_a_person_what_would_have_been_done() -> None:
    decision = decide(Retrain(), _situation(**WORSE, breaker=True))
    assert (decision.action, decision.trigger) == (Action.SUGGEST, Trigger.PERFORMANCE)
    assert decide(Retrain(mode="off"), _situation(**WORSE, breaker=True)).action is Action.NONE
    assert decide(Retrain(), _situation(breaker=True)).code == "no_cause"
    assert decide(Retrain(), _situation(**WORSE, failures_in_a_row=2)).action is Action.RETRAIN


def test_a_situation_is_stored_and_read_back_as_it_was() -> None:
    whole = _situation(**(WORSE | DRIFTED), estimate=ESTIMATE, started=(NOW,), rejected_trigger=Trigger.AGE)
    assert Situation.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_a_situation_that_an_earlier_release_stored_still_loads_and_decides() -> None:
    stored = {
        "now": "2026-06-01T00:00:00Z", "verdict": "clean", "quarantined": False, "loss": 0.2, "reference_loss": 0.1,
        "degraded_in_a_row": 1, "drifted_in_a_row": 0, "new_labels": 500, "learned_until": None,
        "last_run_ended": None, "rejected_in_a_row": 0, "active_run": None,
    }  # fmt: skip
    assert decide(Retrain(), Situation.from_json(stored)).code == "performance"


def test_every_decision_is_the_first_rule_that_was_met() -> None:
    for changes in ({}, WORSE, WORSE | {"frozen": True}, DRIFTED, {"quarantined": True}, WORSE | {"new_labels": 1}):
        situation = _situation(**changes)
        found = [guard(situation), *causes(Retrain(), situation)]
        cause = next((rule for rule in found if rule.kind == "cause" and rule.met), None)
        if cause is not None and cause.trigger is not None and not found[0].met:
            found += obstacles(Retrain(), situation, cause.trigger)
        stops = next((rule.code for rule in found if rule.kind != "cause" and rule.met), None)
        expected = stops or ("no_cause" if cause is None else cause.name)
        assert decide(Retrain(), situation).code == expected
