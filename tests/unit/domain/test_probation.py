"""What follows from a look at a champion on probation."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.domain.policy import Probation
from service.domain.probation import Comparison, Evidence, Health, Outcome, Step, Watch, outcome_of, watched_until

BEGAN = datetime(2026, 6, 1, tzinfo=UTC)
WALL = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = Probation(duration="7d", min_rows=100, extensions=2)
BEFORE = Health(answered=5_000, batches=1_000, seconds=1.0)
WELL = Health(answered=500, batches=300, seconds=0.3)
ALIKE = Comparison(rows=400, distance=0.1, labelled=300, loss=0.2, previous_loss=0.21, low=-0.03, high=0.02)
WORSE = replace(ALIKE, loss=0.4, low=0.1, high=0.3)
UNLABELLED = Comparison(rows=400, distance=0.1)


def look(
    seen: Comparison = ALIKE,
    *,
    days: float | None = 3,
    health: Health = WELL,
    before: Health = BEFORE,
    policy: Probation = POLICY,
    extended: int = 0,
    wall_days: float = 0,
    began: datetime | None = BEGAN,
) -> Outcome:
    evidence = Evidence(
        event_time=None if days is None else BEGAN + days * DAY, health=health, before=before, comparison=seen
    )
    watch = Watch(began_at=WALL, began_event_time=began, now=WALL + wall_days * DAY, extended=extended)
    return outcome_of(policy, evidence, watch)


def test_a_champion_that_does_well_is_watched_until_its_time_is_over_and_then_kept() -> None:
    assert look(days=6.9).step is Step.WATCHING
    kept = look(days=7)
    assert (kept.step, kept.code) == (Step.KEPT, "clean")
    assert "0.2 against 0.21" in kept.reason
    assert "300" in kept.reason


def test_a_loss_above_that_of_the_version_before_is_a_breach_whenever_it_shows() -> None:
    for days in (3, 7, 70):
        found = look(WORSE, days=days)
        assert (found.step, found.code) == (Step.BREACH, "performance")
    assert "90%" in look(WORSE).reason  # (0.4 - 0.21) / 0.21


@pytest.mark.parametrize(
    "seen",
    [
        replace(WORSE, low=0.0),  # it may be chance
        replace(WORSE, loss=0.25, low=0.03),  # within the degradation that is allowed
        replace(WORSE, labelled=99),  # too few labels
        replace(WORSE, loss=None, previous_loss=None, low=None),  # the metric is not defined on them
    ],
)
def test_a_loss_that_proves_nothing_is_no_breach(seen: Comparison) -> None:
    assert look(seen).step is Step.WATCHING


def test_any_loss_is_infinitely_above_none_at_all() -> None:
    found = look(replace(WORSE, previous_loss=0.0))
    assert found.code == "performance"
    assert "infinitely" in found.reason


@pytest.mark.parametrize(
    ("health", "before", "code"),
    [
        (Health(answered=95, failed=5), BEFORE, "errors"),
        (Health(answered=95, failed=5), Health(answered=955, failed=45), None),  # nearly as many before
        (Health(answered=94, failed=5), BEFORE, None),  # 99 rows
        (Health(answered=99, failed=1), BEFORE, None),  # just as many more as are allowed
        (Health(answered=95, failed=5), Health(), "errors"),  # nothing is known of the generation before
        (Health(failed=100), BEFORE, "errors"),  # it answers nothing at all
    ],
)
def test_errors_are_counted_against_those_of_the_version_before(
    health: Health, before: Health, code: str | None
) -> None:
    found = look(health=health, before=before)
    assert found.code == (code or "watching")


@pytest.mark.parametrize(
    ("health", "before", "is_breach"),
    [
        (Health(answered=900, batches=300, seconds=6.0), BEFORE, True),  # 20 ms after 1 ms
        (Health(answered=900, batches=300, seconds=0.21), Health(answered=900, batches=300, seconds=0.06), False),
        (Health(answered=900, batches=300, seconds=6.0), Health(answered=900, batches=300, seconds=2.4), False),
        (Health(answered=900, batches=199, seconds=6.0), BEFORE, False),  # cold caches
        (Health(answered=900, batches=300, seconds=6.0), Health(answered=9, batches=9, seconds=0.009), False),
        (Health(answered=900, batches=300, seconds=6.0), Health(), False),
    ],
    ids=["slow", "0.2 ms becomes 0.7 ms on a busy machine", "2.5 times", "few batches", "few before", "none before"],
)
def test_latency_needs_the_ratio_a_floor_and_batches_on_both_sides(
    health: Health, before: Health, is_breach: bool
) -> None:
    assert (look(health=health, before=before).code == "latency") is is_breach


def test_answers_that_look_unlike_those_before_are_a_breach_only_while_no_labels_can_tell() -> None:
    assert look(replace(UNLABELLED, distance=0.51)).code == "outputs"
    assert look(replace(UNLABELLED, distance=0.50)).step is Step.WATCHING
    assert look(replace(UNLABELLED, distance=0.9, rows=99)).step is Step.WATCHING
    assert look(replace(ALIKE, distance=0.9)).step is Step.WATCHING


def test_too_few_labels_prolong_the_watch_so_often_and_then_it_is_kept_unproven() -> None:
    first = look(UNLABELLED, days=7)
    assert (first.step, first.extended) == (Step.EXTEND, 1)
    assert look(UNLABELLED, days=13, extended=1).step is Step.WATCHING
    assert look(UNLABELLED, days=14, extended=1).extended == 2
    last = look(UNLABELLED, days=21, extended=2)
    assert (last.step, last.code) == (Step.KEPT, "unproven")


def test_a_watch_that_was_not_looked_at_for_long_is_prolonged_once_to_where_it_belongs() -> None:
    assert look(UNLABELLED, days=15).extended == 2
    assert look(UNLABELLED, days=22).code == "unproven"


def test_why_nothing_could_be_compared_stands_in_the_reason() -> None:
    broken = Comparison(error="version 1 could not answer: its artifact is missing")
    assert "artifact is missing" in look(broken, days=7).reason


@pytest.mark.parametrize("began", [BEGAN, None])
def test_without_any_event_time_the_wall_clock_ends_the_watch(began: datetime | None) -> None:
    assert look(Comparison(), days=None, wall_days=20.9, began=began).step is Step.WATCHING
    ended = look(Comparison(), days=None, wall_days=21, began=began)
    assert (ended.step, ended.code) == (Step.KEPT, "unproven")
    assert "wall clock" in ended.reason
    assert look(ALIKE, days=3, wall_days=21, began=began).code == "clean"


def test_a_policy_that_was_taken_away_ends_the_watch() -> None:
    assert look(policy=Probation(duration=None)).step is Step.KEPT


def test_the_watch_ends_in_event_time_and_grows_with_each_extension() -> None:
    assert watched_until(POLICY, BEGAN) == BEGAN + 7 * DAY
    assert watched_until(POLICY, BEGAN, 2) == BEGAN + 21 * DAY
    assert watched_until(Probation(duration=None), BEGAN) is None
    assert watched_until(POLICY, None) is None


def test_evidence_comes_back_from_the_database_as_it_went_there() -> None:
    evidence: Any = Evidence(event_time=BEGAN, health=WELL, before=BEFORE, comparison=WORSE)
    assert Evidence.from_json(evidence.to_json()) == evidence
    assert Evidence.from_json(None) == Evidence()
