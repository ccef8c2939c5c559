"""The ledger of `bench/chaos.py` can fail: each law that it checks is broken here once, and found."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.chaos_faults import Faults, Window
from bench.chaos_ledger import Answered, Event, Evidence, Labelled, Recorded, RunFacts, SwapFacts, check, total
from bench.chaos_load import Refusal
from bench.chaos_refusals import judge, silences
from bench.chaos_stage import Kill, Span
from service.domain.run import RunState

S = RunState
START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def story(run_id: str, *steps: RunState, begin: float, token: int | None = 1) -> list[Event]:
    return [
        Event(
            model="m", run_id=run_id, seq=place + 1, at=at(begin + place), before=steps[place - 1] if place else None,
            after=step, token=token if place else None,
        )
        for place, step in enumerate(steps)
    ]  # fmt: skip


PROMOTED = (S.QUEUED, S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING, S.PROMOTING, S.SUCCEEDED)


def sound() -> Evidence:
    """Return evidence in which every law holds."""
    first = SwapFacts(
        id="s1",
        model="m",
        kind="promote",
        generation=1,
        expected_generation=0,
        version=1,
        previous_version=None,
        run_id="a",
    )
    return Evidence(
        answered=[Answered(id=f"p{n}", model="m", version=n, generation=n, output="UP") for n in (1, 2)],
        labelled=[
            Labelled(id="p1", model="m", label="UP", observed_at=at(0)),
            Labelled(id="p1", model="m", label="DOWN", observed_at=at(5)),
        ],
        recorded={
            "m": [
                *(Recorded(id=f"p{n}", version=n, generation=n, output="UP") for n in (1, 2)),
                Recorded(id="never told", version=2, generation=2, output="UP"),
            ]
        },
        labels={"m": {"p1": "DOWN"}},
        swaps=[
            first,
            replace(first, id="s2", generation=2, expected_generation=1, version=2, previous_version=1, run_id="b"),
        ],
        champions={"m": (2, 2)},
        audited=[("m", 1, 1), ("m", 2, 2)],
        events=[*story("a", *PROMOTED, begin=0), *story("b", *PROMOTED, begin=7)],
        runs=[RunFacts(id=one, model="m", state=S.SUCCEEDED) for one in ("a", "b")],
        asked_runs=["b"],
        agreed=[("s1", True), ("s2", True), ("s2", True), ("another", False)],
    )


def test_a_sound_ledger_has_no_violation() -> None:
    assert check(sound()) == []


def test_a_promotion_that_waits_for_a_probation_is_not_stuck() -> None:
    evidence = sound()
    waits = RunFacts(id="c", model="m", state=S.PROMOTING, waits_for="the probation of version 2")
    evidence.runs = [*evidence.runs, waits]
    steps = (S.QUEUED, S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING, S.PROMOTING)
    evidence.events = [*evidence.events, *story("c", *steps, begin=20)]
    assert check(evidence) == []
    evidence.runs = [*evidence.runs[:-1], replace(waits, waits_for=None)]
    assert [one.law for one in check(evidence)] == ["a run is stuck"]


def lose(evidence: Evidence) -> None:
    evidence.recorded = {"m": evidence.recorded["m"][1:]}


def double(evidence: Evidence) -> None:
    evidence.recorded = {"m": [*evidence.recorded["m"], evidence.recorded["m"][2]]}


def other_version(evidence: Evidence) -> None:
    rows = evidence.recorded["m"]
    evidence.recorded = {"m": [replace(rows[0], version=2), *rows[1:]]}


def other_output(evidence: Evidence) -> None:
    rows = evidence.recorded["m"]
    evidence.recorded = {"m": [replace(rows[0], output="DOWN"), *rows[1:]]}


def foreign_generation(evidence: Evidence) -> None:
    evidence.answered = [replace(one, generation=1) for one in evidence.answered]
    evidence.recorded = {"m": [replace(row, generation=1) for row in evidence.recorded["m"]]}


def skip_generation(evidence: Evidence) -> None:
    first, second = evidence.swaps
    evidence.swaps = [first, replace(second, generation=3, expected_generation=2)]


def swap_twice(evidence: Evidence) -> None:
    evidence.swaps = [*evidence.swaps, evidence.swaps[1]]


def forget_label(evidence: Evidence) -> None:
    evidence.labels = {"m": {}}


def older_label(evidence: Evidence) -> None:
    evidence.labels = {"m": {"p1": "UP"}}


def silent_audit(evidence: Evidence) -> None:
    evidence.audited = evidence.audited[:1]


def other_champion(evidence: Evidence) -> None:
    evidence.champions = {"m": (1, 2)}


def overlap(evidence: Evidence) -> None:
    evidence.events = [*story("a", *PROMOTED, begin=0), *story("b", *PROMOTED, begin=3)]


def stuck(evidence: Evidence) -> None:
    evidence.runs = [*evidence.runs, RunFacts(id="c", model="m", state=S.TRAINING)]
    evidence.events = [
        *evidence.events,
        *story("c", S.QUEUED, S.PREPARING, S.VALIDATING, S.TRAINING, begin=20),
    ]


def forbidden(evidence: Evidence) -> None:
    evidence.events = [
        *story("a", *PROMOTED, begin=0),
        *story("b", S.QUEUED, S.PREPARING, S.PROMOTING, S.SUCCEEDED, begin=8),
    ]


def stale_leader(evidence: Evidence) -> None:
    evidence.events = [*story("a", *PROMOTED, begin=0, token=2), *story("b", *PROMOTED, begin=8, token=1)]


def promoted_without_swap(evidence: Evidence) -> None:
    evidence.swaps = [evidence.swaps[0], replace(evidence.swaps[1], run_id=None)]


def nobody_agreed(evidence: Evidence) -> None:
    evidence.agreed = evidence.agreed[:1]


def one_refused(evidence: Evidence) -> None:
    evidence.agreed = [*evidence.agreed, ("s2", False)]


def broken_promise(evidence: Evidence) -> None:
    evidence.asked_runs = ["b", "z"]


@pytest.mark.parametrize(
    ("harm", "law"),
    [
        (lose, "an answered prediction is not in the lake"),
        (double, "a prediction is in the lake more than once"),
        (other_version, "an answer is recorded under another version"),
        (other_output, "an answer is recorded with another output"),
        (foreign_generation, "a version answered under a generation that was not its own"),
        (skip_generation, "generations are not 1, 2, 3 …, each once"),
        (swap_twice, "generations are not 1, 2, 3 …, each once"),
        (forget_label, "an accepted label is not in the lake"),
        (older_label, "an older label won"),
        (silent_audit, "the audit tells of other champions"),
        (other_champion, "the champion is not what the last swap made it"),
        (overlap, "two runs of a model were active"),
        (stuck, "a run is stuck"),
        (forbidden, "a run took a forbidden step"),
        (stale_leader, "a leader wrote after it was replaced"),
        (promoted_without_swap, "a run promoted other than once"),
        (nobody_agreed, "a version was promoted that no worker had loaded"),
        (one_refused, "a version was promoted that a worker had refused"),
        (broken_promise, "a run that was promised is not there"),
    ],
)
def test_the_ledger_finds(harm: Callable[[Evidence], None], law: str) -> None:
    evidence = sound()
    harm(evidence)
    found = check(evidence)
    assert law in {violation.law for violation in found}, found
    assert total(found) >= 1


def test_a_label_that_was_never_acknowledged_may_have_arrived_or_not() -> None:
    evidence = sound()
    evidence.labelled = [*evidence.labelled, Labelled(id="p1", model="m", label="X", observed_at=at(9), accepted=False)]
    assert check(evidence) == []
    evidence.labels = {"m": {"p1": "X"}}
    assert check(evidence) == []


def test_one_run_may_begin_in_the_tick_in_which_another_ends() -> None:
    evidence = sound()
    evidence.events = [*story("b", *PROMOTED, begin=7), *story("a", *PROMOTED, begin=0)]
    assert check(evidence) == []


def refusal(**given: Any) -> Refusal:
    plain: dict[str, Any] = {
        "at": 10.0,
        "ended": 10.1,
        "model": "m",
        "kind": "predict",
        "status": 0,
        "code": "reset",
        "words": "",
    }
    return Refusal(**(plain | given))


def nothing(*windows: Window) -> Faults:
    return Faults(home=Path(), stage=cast("Any", SimpleNamespace()), windows=list(windows))


def excuses(one: Refusal, *, kills: list[Kill], windows: list[Window] | None = None) -> bool:
    spans = [Span(pid=1, model="m", begin=0.0, end=20.0), Span(pid=2, model="m", begin=0.0)]
    return not judge([one], kills=kills, spans=spans, faults=nothing(*(windows or ())), began=0.0).violations


def test_a_broken_connection_is_excused_by_a_kill_of_a_worker_nearby_and_by_nothing_else() -> None:
    assert excuses(refusal(), kills=[Kill(at=9.9, role="worker", step="random")])
    assert not excuses(refusal(), kills=[Kill(at=9.9, role="leader", step="random")])
    assert not excuses(refusal(), kills=[Kill(at=3.0, role="worker", step="random")])


def test_a_refusal_for_want_of_room_needs_a_full_disk() -> None:
    full = refusal(status=503, code="not-recorded")
    assert not excuses(full, kills=[])
    assert excuses(full, kills=[], windows=[Window(kind="disk", begin=8.0, end=12.0)])


def test_an_unknown_model_is_never_excused_while_a_worker_lives() -> None:
    assert not excuses(refusal(status=404, code="unknown-model"), kills=[Kill(at=9.9, role="worker", step="random")])
    assert not excuses(refusal(status=503, code="no-champion"), kills=[])


def test_an_answer_that_comes_late_is_excused_only_while_nobody_could_answer() -> None:
    late = refusal(status=200, code="slow", ended=25.0)
    assert not excuses(late, kills=[Kill(at=9.9, role="worker", step="random")])
    alone = [Span(pid=1, model="m", begin=0.0, end=9.0), Span(pid=2, model="m", begin=24.0)]
    assert judge([late], kills=[], spans=alone, faults=nothing(), began=0.0).violations == []


def test_silence_is_when_no_worker_answers_and_an_orphan_does_not_count() -> None:
    spans = [Span(pid=1, model="m", begin=1.0, end=5.0), Span(pid=2, model="m", begin=4.0, end=9.0)]
    assert silences(spans, since=0.0, leaving=[]) == [(0.0, 1.0), (9.0, float("inf"))]
    assert silences(spans, since=0.0, leaving=[6.0]) == [(0.0, 1.0), (6.0, float("inf"))]
