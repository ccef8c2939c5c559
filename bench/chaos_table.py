"""What a run of `bench/chaos.py` has brought, and its table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.chaos_faults import Faults
from bench.chaos_ledger import Evidence, Violation, total
from bench.chaos_load import Load
from bench.chaos_operator import Operator
from bench.chaos_plan import NAMED, states_hit
from bench.chaos_refusals import Judged
from bench.chaos_stage import Stage
from bench.report import Section, Target

__all__ = ["Story", "section"]

KILLS, QUICK_KILLS = 60, 15


@dataclass
class Story:
    """What happened."""

    load: Load
    stage: Stage
    faults: Faults
    operator: Operator
    judged: Judged = field(default_factory=lambda: Judged(excused=Counter(), violations=[]))
    violations: list[Violation] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    """Exit codes of the processes at the end."""
    late: list[str] = field(default_factory=list)
    """What did not come to rest in time."""
    evidence: Evidence = field(default_factory=Evidence)
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds by phase."""


def section(story: Story, *, quick: bool, postgres: bool, seed: int, seconds: float) -> Section:
    """Return the table with its targets."""
    missed = [state for state, count in states_hit(story.stage).items() if not count]
    states = f"a kill at each of the {len(NAMED)} named states" + (f"; MISSED: {', '.join(missed)}" if missed else "")
    targets = _targets(story, wanted=QUICK_KILLS if quick else KILLS)
    if not quick:
        targets.append(Target(words=states, met=not missed))
    stage, load = story.stage, story.load
    return Section(
        name="chaos",
        title="Killed anywhere" + (", on PostgreSQL" if postgres else "") + (" (quick)" if quick else ""),
        columns=("what", "which", "count"),
        rows=_rows(story),
        targets=targets,
        notes=[
            *([f"{states} (judged in the full form only)"] if quick else []),
            *(f"LAW BROKEN: {one.law}: {one.count}" for one in (*story.violations, *story.judged.violations)),
            *story.faults.left_out,
            ", ".join(f"{phase} {spent:.0f} s" for phase, spent in story.spent.items()),
            f"seed {seed}; {stage.restarts} restarts by the init system; answers p50 {_percentile(load, 0.5)} ms, p99 "
            f"{_percentile(load, 0.99)} ms, longest {_percentile(load, 1.0)} ms",
            f"steps the harness wraps and the service has not: {', '.join(stage.absent) or 'none'}",
        ],
        libraries=("scikit-learn", "deltalake", "sqlalchemy"),
        figures={
            "quick": quick,
            "postgres": postgres,
            "seed": seed,
            "kills": [[kill.role, kill.step] for kill in stage.kills],
            "excused": dict(story.judged.excused),
            "operator": {"done": dict(story.operator.done), "refused": dict(story.operator.refused)},
        },
        seconds=seconds,
    )


def _targets(story: Story, *, wanted: int) -> list[Target]:
    kills, broken, unexcused = len(story.stage.kills), total(story.violations), total(story.judged.violations)
    late = f"; {'; '.join(story.late)}" if story.late else ""
    return [
        Target(words=f"{kills} kills ≥ {wanted}", met=kills >= wanted),
        Target(words=f"{broken} violations of the ledger", met=broken == 0),
        Target(words=f"{unexcused} refusals without a reason", met=unexcused == 0),
        Target(words=f"everything came to rest{late}", met=not story.late),
        Target(words=f"every process left with exit code 0: {story.codes}", met=not any(story.codes.values())),
    ]


def _rows(story: Story) -> Sequence[Sequence[str]]:
    stage, load = story.stage, story.load
    steps = Counter(kill.step for kill in stage.kills if not kill.step.startswith("run."))
    windows = Counter(f"{window.kind}, {window.end - window.begin:.0f} s" for window in story.faults.windows)
    runs = Counter(run.state.value for run in story.evidence.runs)
    return [
        *_counted("killed", Counter(kill.role for kill in stage.kills)),
        *_counted("killed at a run's state", Counter(states_hit(stage))),
        *_counted("killed at a step", steps),
        *_counted("fault", windows),
        *_counted("artifact harmed", Counter(how for how, _ in stage.corrupted)),
        *_counted("request", Counter(load.requests)),
        ["row", "answered", f"{len(load.answered):,}"],
        ["label", "accepted", f"{sum(one.accepted for one in load.labelled):,}"],
        *_counted("refused for a reason", story.judged.excused),
        *_counted("operator", story.operator.done),
        *_counted("run", runs),
        *_counted("run that rightly waits", Counter(run.waits_for for run in story.evidence.runs if run.waits_for)),
        ["swap", "committed", f"{len(story.evidence.swaps):,}"],
        ["violation", "", f"{total(story.violations) + total(story.judged.violations):,}"],
    ]


def _counted(what: str, counts: Counter[str]) -> list[list[str]]:
    return [[what, which, f"{count:,}"] for which, count in counts.most_common()]


def _percentile(load: Load, share: float) -> str:
    ordered = sorted(load.latencies)
    return f"{ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3:.0f}" if ordered else "–"
