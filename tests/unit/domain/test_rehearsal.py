"""A changed policy on recorded checks: what follows from runs that only one of the two policies makes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.check import Performance, Verdict
from service.domain.decision import Action, decide, degraded_of
from service.domain.policy import Retrain
from service.domain.rehearsal import PastCheck, PastRun, Rehearsed, rehearse
from service.domain.situation import Situation

START = datetime(2026, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
END = "rejected"


def recorded(policy: Retrain, losses: list[float], *, ends: str = END) -> list[PastCheck]:
    """Play a small service week by week: 100 labels a week, every run ends at once and as told."""
    checks: list[PastCheck] = []
    cutoff = degraded = rejected = 0
    started: tuple[datetime, ...] = ()
    last_run = promoted = None
    generation = 1
    turned_down: dict[str, Any] = {}
    for week, loss in enumerate(losses, start=1):
        performance = Performance(
            metric="accuracy", value=None, loss=loss, reference_loss=0.1, rows=100, labelled=100, delay_p50_s=None
        )
        degraded = degraded + 1 if degraded_of(policy, performance) else 0
        situation = Situation(
            now=START + week * WEEK, verdict=Verdict.CLEAN, quarantined=False, loss=loss, reference_loss=0.1,
            degraded_in_a_row=degraded, drifted_in_a_row=0, new_labels=100 * week - cutoff, learned_until=START,
            last_run_ended=last_run, rejected_in_a_row=rejected, active_run=None, promoted_at=promoted,
            started=started, **turned_down,
        )  # fmt: skip
        decision = decide(policy, situation)
        run = None
        if decision.action is Action.RETRAIN:
            is_promoted = ends == "promoted"
            run = PastRun(
                id=str(week), asked_at=situation.now, ended_at=situation.now,
                end="promoted" if is_promoted else "rejected", promoted_at=situation.now if is_promoted else None,
            )  # fmt: skip
            started, last_run, cutoff = (situation.now, *started), situation.now, 100 * week
            turned_down = {} if is_promoted else {"rejected_trigger": decision.trigger, "rejected_loss": loss}
            rejected = 0 if is_promoted else rejected + 1
            if is_promoted:
                promoted, generation, degraded = situation.now, generation + 1, 0
        checks.append(
            PastCheck(
                id=str(week),
                generation=generation - (run is not None and run.end == "promoted"),
                policy=policy,
                situation=situation,
                decision=decision,
                performance=performance,
                run=run,
            )
        )
    return checks


def actions(found: list[Rehearsed]) -> str:
    return "".join({Action.NONE: ".", Action.SUGGEST: "s", Action.RETRAIN: "R"}[one.replayed.action] for one in found)


def was(past: list[PastCheck]) -> str:
    return "".join({Action.NONE: ".", Action.SUGGEST: "s", Action.RETRAIN: "R"}[one.decision.action] for one in past)


LOSSES = [0.1, 0.14, 0.14, 0.14, 0.14, 0.14, 0.14, 0.14, 0.14, 0.14, 0.14, 0.14]
EVERY_WEEK = Retrain(backoff=1, max_age=None)


@pytest.mark.parametrize("policy", [EVERY_WEEK, Retrain(), Retrain(max_age="21d", cooldown="14d"), Retrain(confirm=3)])
@pytest.mark.parametrize("ends", ["rejected", "promoted"])
@pytest.mark.parametrize("assume", ["rejected", "promoted"])
def test_the_recorded_policy_changes_nothing(policy: Retrain, ends: str, assume: Any) -> None:
    past = recorded(policy, LOSSES, ends=ends)
    found = rehearse(past, policy, assume=assume)
    assert [one.replayed for one in found] == [one.recorded for one in found]
    assert not any(one.changed or one.derived for one in found)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (EVERY_WEEK, Retrain(max_age=None)),
        (Retrain(max_age=None), EVERY_WEEK),
        (EVERY_WEEK, Retrain(backoff=1, retry="21d", max_age=None)),
        (Retrain(backoff=1, retry="21d", max_age=None), EVERY_WEEK),
        (EVERY_WEEK, Retrain(backoff=1, min_labels=300, max_age=None)),
        (Retrain(backoff=1, min_labels=300, max_age=None), EVERY_WEEK),
        (EVERY_WEEK, Retrain(backoff=1, budget="1 per 28d", max_age=None)),
        (Retrain(backoff=1, budget="2 per 28d", max_age=None), EVERY_WEEK),
        (EVERY_WEEK, Retrain(backoff=1, degradation=1.5, max_age=None)),
        (Retrain(backoff=1, degradation=1.5, max_age=None), Retrain(backoff=1, confirm=3, max_age=None)),
        (Retrain(mode="off"), Retrain(max_age=None)),
        (Retrain(max_age="14d", retry="21d"), Retrain(max_age="14d", confirm=2)),
    ],
)
def test_where_every_run_is_turned_down_the_replay_is_what_the_service_would_have_done(
    before: Retrain, after: Retrain
) -> None:
    past = recorded(before, LOSSES)
    lived = recorded(after, LOSSES)
    found = rehearse(past, after, assume="rejected")
    assert actions(found) == was(lived)
    assert was(past) != was(lived)
    first = next(place for place, one in enumerate(found) if one.recorded.action != one.replayed.action)
    assert [one.derived for one in found] == [place > first for place in range(len(found))]


def test_a_run_that_is_taken_to_promote_is_followed_by_the_cooldown() -> None:
    past = recorded(Retrain(mode="off"), LOSSES)
    on = Retrain(max_age=None, cooldown="28d")
    assert actions(rehearse(past, on, assume="promoted")) == ".R...R...R.."
    assert actions(rehearse(past, on, assume="rejected")) == ".RR.R...R..."


def test_without_a_promotion_the_champion_is_as_old_as_it_was() -> None:
    past = recorded(Retrain(max_age="21d", cooldown="14d"), [0.1] * 9, ends="promoted")
    assert was(past) == "..R..R..R"
    late = Retrain(max_age="42d", cooldown="14d")
    found = rehearse(past, late, assume="rejected")
    assert actions(found)[:6] == ".....R"
    assert found[5].derived


def test_suggestions_start_nothing_so_nothing_follows_from_them() -> None:
    past = recorded(EVERY_WEEK, LOSSES)
    found = rehearse(past, replace(EVERY_WEEK, mode="suggest"))
    assert actions(found) == ".sssssssssss"
    assert sum(one.changed for one in found) == 11


def test_a_suggestion_that_was_accepted_stays_accepted_while_it_is_suggested() -> None:
    policy = replace(EVERY_WEEK, mode="suggest")
    past = recorded(policy, LOSSES)
    at = past[3].situation.now
    past[3] = replace(past[3], run=PastRun(id="x", asked_at=at, ended_at=at, end="rejected"))
    assert not any(one.changed or one.derived for one in rehearse(past, policy))
    off = rehearse(past, replace(policy, mode="off"))
    assert [one.derived for one in off] == [place > 3 for place in range(len(past))]
