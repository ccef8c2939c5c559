"""The ledger: what clients were told against what the service wrote down. Pure: evidence in, violations out."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, pairwise
from typing import Any

from service.domain.run import ACTIVE, TERMINAL, RunState, may_follow

__all__ = [
    "Answered",
    "Event",
    "Evidence",
    "Labelled",
    "Recorded",
    "RunFacts",
    "SwapFacts",
    "Violation",
    "check",
    "total",
]

WAITING = frozenset({RunState.AWAITING_LABELS, RunState.AWAITING_APPROVAL, RunState.PROBATION})
"""States in which a run may be left: it waits for the world, or for a person."""
PROMOTED = frozenset({RunState.SUCCEEDED, RunState.PROBATION, RunState.ROLLED_BACK})
EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One law that was broken, so often, with some examples."""

    law: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One row that a client got an answer to."""

    id: str
    model: str
    version: int
    generation: int
    output: Any


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One row of a predictions table."""

    id: str
    version: int
    generation: int
    output: Any


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One label that a client sent; `accepted` once it was acknowledged."""

    id: str
    model: str
    label: Any
    observed_at: datetime
    accepted: bool = True


@dataclass(frozen=True, kw_only=True)
class SwapFacts:
    """One committed swap."""

    id: str
    model: str
    kind: str
    generation: int
    expected_generation: int
    version: int
    previous_version: int | None
    run_id: str | None


@dataclass(frozen=True, kw_only=True)
class Event:
    """One transition of a run."""

    model: str
    run_id: str
    seq: int
    at: datetime
    before: RunState | None
    after: RunState
    token: int | None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run as it stands."""

    id: str
    model: str
    state: RunState
    waits_for: str | None = None
    """What the service itself says it waits for: a probation, which ends in the event time of a stream that ended."""


@dataclass(kw_only=True)
class Evidence:
    """All that the check rests on."""

    answered: Sequence[Answered] = ()
    labelled: Sequence[Labelled] = ()
    recorded: Mapping[str, Sequence[Recorded]] = field(default_factory=dict)
    """By model: every row of its predictions table."""
    labels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By model: the label that counts, by id."""
    swaps: Sequence[SwapFacts] = ()
    champions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Version and generation by model."""
    audited: Sequence[tuple[str, int, int]] = ()
    """Model, generation and version of each change of champion in the audit."""
    audit_broken_at: int | None = None
    events: Sequence[Event] = ()
    runs: Sequence[RunFacts] = ()
    asked_runs: Sequence[str] = ()
    """Ids of the runs that an operator was promised."""
    agreed: Sequence[tuple[str, bool]] = ()
    """What workers said of swaps: the swap's id, and whether they were ready."""
    open_swaps: Sequence[str] = ()
    """Swaps that still wait after everything had time to settle."""
    unloadable: Sequence[str] = ()
    """Champions and rollback targets whose artifact does not load, with the reason."""
    astray: Sequence[str] = ()
    """Workers that do not serve the champion at the end."""


def check(evidence: Evidence) -> list[Violation]:
    """Return every law that the evidence breaks; none when all is well."""
    found: dict[str, list[str]] = defaultdict(list)
    _predictions(evidence, found)
    _names(evidence, found)
    _labels(evidence, found)
    _generations(evidence, found)
    _agreement(evidence, found)
    _runs(evidence, found)
    _activity(evidence, found)
    _fencing(evidence, found)
    for law, examples in (
        ("a swap was left waiting", evidence.open_swaps),
        ("an artifact that is needed does not load", evidence.unloadable),
        ("a worker does not serve the champion", evidence.astray),
    ):
        found[law] += examples
    return [
        Violation(law=law, count=len(words), examples=tuple(words[:EXAMPLES]))
        for law, words in sorted(found.items())
        if words
    ]


def _predictions(evidence: Evidence, found: dict[str, list[str]]) -> None:
    by_id: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
    for model, rows in evidence.recorded.items():
        for row in rows:
            by_id[model, row.id].append(row)
    for (model, row_id), rows in by_id.items():
        if len(rows) > 1:
            found["a prediction is in the lake more than once"].append(f"{model} {row_id}: {len(rows)} times")
    for told in evidence.answered:
        rows = by_id.get((told.model, told.id), [])
        if not rows:
            found["an answered prediction is not in the lake"].append(f"{told.model} {told.id} by {told.version}")
            continue
        row = rows[0]
        if (row.version, row.generation) != (told.version, told.generation):
            found["an answer is recorded under another version"].append(
                f"{told.model} {told.id}: answered by {told.version}/{told.generation}, "
                f"recorded {row.version}/{row.generation}"
            )
        if row.output != told.output:
            found["an answer is recorded with another output"].append(f"{told.model} {told.id}: {told.output!r}")


def _names(evidence: Evidence, found: dict[str, list[str]]) -> None:
    """Answer and generation name the same version."""
    chain = {(swap.model, swap.generation): swap.version for swap in evidence.swaps}
    for told in evidence.answered:
        if chain.get((told.model, told.generation)) != told.version:
            found["a version answered under a generation that was not its own"].append(
                f"{told.model} {told.id}: {told.version}/{told.generation}"
            )


def _labels(evidence: Evidence, found: dict[str, list[str]]) -> None:
    sent: dict[tuple[str, str], list[Labelled]] = defaultdict(list)
    for one in evidence.labelled:
        sent[one.model, one.id].append(one)
    for (model, row_id), given in sent.items():
        accepted = [one for one in given if one.accepted]
        if not accepted:
            continue
        newest = max(accepted, key=lambda one: one.observed_at)
        # What was sent and never acknowledged may have arrived or not.
        possible = [newest.label] + [
            one.label for one in given if not one.accepted and one.observed_at > newest.observed_at
        ]
        labels = evidence.labels.get(model, {})
        if row_id not in labels:
            found["an accepted label is not in the lake"].append(f"{model} {row_id}")
        elif labels[row_id] not in possible:
            found["an older label won"].append(f"{model} {row_id}: {labels[row_id]!r}, not {newest.label!r}")


def _generations(evidence: Evidence, found: dict[str, list[str]]) -> None:
    by_model: dict[str, list[SwapFacts]] = defaultdict(list)
    for swap in evidence.swaps:
        by_model[swap.model].append(swap)
    for model in sorted(by_model.keys() | evidence.champions.keys()):
        swaps = sorted(by_model[model], key=lambda swap: swap.generation)
        generations = [swap.generation for swap in swaps]
        if generations != list(range(1, len(swaps) + 1)):
            found["generations are not 1, 2, 3 …, each once"].append(f"{model}: {_oddities(generations)}")
        _chain(model, swaps, found)
        last = (swaps[-1].version, swaps[-1].generation) if swaps else None
        if evidence.champions.get(model) != last:
            found["the champion is not what the last swap made it"].append(
                f"{model}: {evidence.champions.get(model)}, not {last}"
            )
        audited = sorted((generation, version) for name, generation, version in evidence.audited if name == model)
        if audited != [(swap.generation, swap.version) for swap in swaps]:
            found["the audit tells of other champions"].append(f"{model}: {len(audited)} rows, {len(swaps)} swaps")
    if evidence.audit_broken_at is not None:
        found["the audit's chain is broken"].append(f"at row {evidence.audit_broken_at}")


def _chain(model: str, swaps: Sequence[SwapFacts], found: dict[str, list[str]]) -> None:
    for before, after in pairwise(swaps):
        if after.previous_version != before.version:
            found["the chain of champions is broken"].append(f"{model}: generation {after.generation}")
    for swap in swaps:
        if swap.expected_generation != swap.generation - 1:
            found["a swap expected another generation"].append(f"{model}: generation {swap.generation}")


def _agreement(evidence: Evidence, found: dict[str, list[str]]) -> None:
    """Look for promotions that nobody had loaded, or somebody refused; a rollback by hand goes to what is warm."""
    ready = {swap_id for swap_id, is_ready in evidence.agreed if is_ready}
    refused = {swap_id for swap_id, is_ready in evidence.agreed if not is_ready}
    for swap in evidence.swaps:
        where = f"{swap.model} version {swap.version}, generation {swap.generation}"
        # The first version may be there before any worker is.
        if swap.kind == "promote" and swap.generation > 1 and swap.id not in ready:
            found["a version was promoted that no worker had loaded"].append(where)
        if swap.id in refused:
            found["a version was promoted that a worker had refused"].append(where)


def _oddities(generations: Sequence[int]) -> str:
    twice = sorted(generation for generation, count in Counter(generations).items() if count > 1)
    missing = sorted(set(range(1, max(generations, default=0) + 1)) - set(generations))
    return f"twice {twice}, missing {missing}"


def _runs(evidence: Evidence, found: dict[str, list[str]]) -> None:
    events: dict[str, list[Event]] = defaultdict(list)
    for event in evidence.events:
        events[event.run_id].append(event)
    swapped = Counter(swap.run_id for swap in evidence.swaps if swap.run_id is not None)
    for run in evidence.runs:
        story = sorted(events[run.id], key=lambda event: event.seq)
        _story(run, story, found)
        if run.state not in TERMINAL | WAITING and run.waits_for is None:
            found["a run is stuck"].append(f"{run.model} {run.id}: {run.state.value}")
        wanted = 1 if run.state in PROMOTED else 0
        count = swapped[run.id]
        # A promoted run may have been superseded on probation: it still had its one swap.
        if count > 1 or (count == 0 and wanted == 1):
            found["a run promoted other than once"].append(f"{run.model} {run.id}: {run.state.value}, {count} swaps")
        if count == 1 and not any(event.after in PROMOTED for event in story):
            found["a swap's run does not say that it was promoted"].append(f"{run.model} {run.id}: {run.state.value}")
    known = {run.id for run in evidence.runs}
    found["a run that was promised is not there"] += [run_id for run_id in evidence.asked_runs if run_id not in known]


def _story(run: RunFacts, story: Sequence[Event], found: dict[str, list[str]]) -> None:
    where = f"{run.model} {run.id}"
    if [event.seq for event in story] != list(range(1, len(story) + 1)):
        found["a run's events have gaps"].append(where)
    if not story or story[0].before is not None or story[-1].after is not run.state:
        found["a run is not where its events say"].append(f"{where}: {run.state.value}")
    for before, after in pairwise(story):
        if after.before is not before.after or not may_follow(before.after, after.after):
            found["a run took a forbidden step"].append(f"{where}: {before.after.value} to {after.after.value}")


def _activity(evidence: Evidence, found: dict[str, list[str]]) -> None:
    """At most one active run of a model at any time: the events of all its runs, played in order."""
    by_model: dict[str, list[Event]] = defaultdict(list)
    for event in evidence.events:
        by_model[event.model].append(event)
    for model, events in by_model.items():
        active: set[str] = set()
        for at, same in groupby(sorted(events, key=lambda event: (event.at, event.run_id, event.seq)), _moment):
            stands = {event.run_id: event.after in ACTIVE for event in same}
            # Within one tick of the clock an end comes before another's beginning: one transaction let the other in.
            active -= {run_id for run_id, is_active in stands.items() if not is_active}
            active |= {run_id for run_id, is_active in stands.items() if is_active}
            if len(active) > 1:
                found["two runs of a model were active"].append(f"{model} at {at}: {sorted(active)}")


def _moment(event: Event) -> datetime:
    return event.at


def _fencing(evidence: Evidence, found: dict[str, list[str]]) -> None:
    """Once a token was written, no smaller one is: a leader that was replaced writes nothing."""
    newest, since = 0, None
    for event in sorted(evidence.events, key=lambda event: (event.at, event.token or 0)):
        if event.token is None:
            continue
        if event.token < newest and since is not None and event.at > since:
            found["a leader wrote after it was replaced"].append(
                f"{event.model} {event.run_id}: token {event.token} at {event.at}, {newest} since {since}"
            )
        if event.token > newest:
            newest, since = event.token, event.at


def total(violations: Iterable[Violation]) -> int:
    """Return how many violations there are in all."""
    return sum(violation.count for violation in violations)
