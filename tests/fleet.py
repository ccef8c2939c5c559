"""A fleet as the database would hold it after half a year, written through storage: for the tests of the console.

Names and comments hold HTML on purpose: whatever shows them must show them as text.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from service.domain.check import ColumnDrift, DriftTest, Examination, Finding, Performance, Verdict
from service.domain.decision import Action, Decision
from service.domain.gate import Clause, GateReport, Outcome
from service.domain.probation import ProbationState
from service.domain.reading import read
from service.domain.run import RunState, Trigger
from service.domain.situation import Situation
from service.domain.version import VersionState
from service.storage import audit, champions, checks, models, probations, replicas, runs, versions
from service.storage.database import Database
from service.storage.versions import VersionRow
from tests.served import POLICIES

__all__ = ["EVIL", "LONG", "WINDOWS", "Fleet", "fleet"]

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
"""What a feature, a reason or a comment might be called."""
LONG = "m/../" + "a" * 195
"""A name that no model file could have; a database may hold it all the same."""
WINDOWS = 26
BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = timedelta(days=7)
FEATURES = ("demand", "price", "hour", "transfer", "holiday", EVIL, "temperature_of_the_day_before_at_noon")


class Fleet:
    """What `fleet` wrote."""

    model = "electricity"
    run = ""
    """One that succeeded, with a gate."""
    waiting = ""
    """One that awaits approval."""
    check = ""
    broken = ""
    """A check that quarantined its window."""


def fleet(database: Database) -> Fleet:
    """Write the fleet."""
    made = Fleet()
    with database.write() as conn:
        for name in ("electricity", "bikes", "fresh", LONG):
            spec = {
                "task": "classification", "metric": "accuracy", "policies": POLICIES,
                "description": f"Prices against their mean. {EVIL}",
            }  # fmt: skip
            models.register(conn, name, spec_json=spec, file=f"models/{name[:20]}.py", at=BEGAN)
        _history(conn, made)
        _waiting(conn, made)
        models.mark_broken(conn, "fresh", f"SyntaxError in line 3: {EVIL}", "models/fresh.py", at=BEGAN)
        models.set_switch(conn, "bikes", "hold", value=True, actor="ada", reason=EVIL, at=BEGAN)
    return made


def _history(conn: Connection, made: Fleet) -> None:
    champion = 1
    _version(conn, 1, None)
    _crown(conn, made, 1, at=BEGAN, kind="promote")
    for week in range(1, WINDOWS + 1):
        until = BEGAN + week * WEEK
        if week in {8, 17}:
            champion += 1
            made.run = _run(conn, champion, until=until)
            _crown(conn, made, champion, at=until, kind="promote", run=made.run)
        if week == 20:
            _crown(conn, made, champion - 1, at=until, kind="rollback")
            champion -= 1
        check = _check(conn, made.model, week, version=champion, until=until)
        if week == 12:
            made.broken = check
        made.check = check


def _version(conn: Connection, number: int, run: str | None) -> VersionRow:
    evaluation = {
        "gate": _gate(Outcome.PASS).to_json(),
        "holdout": [(BEGAN + (number - 1) * WEEK).isoformat(), (BEGAN + number * WEEK).isoformat()],
        "figures": {
            "paired": {
                "n": 672, "challenger": 0.81 + number / 100, "champion": 0.8, "gain": 0.02, "gain_ci": [0.005, 0.035],
                "confidence": 0.8, "mode": "non_inferior", "block": 18,
            }
        },
    }  # fmt: skip
    row = VersionRow(
        model=Fleet.model, version=number, state=VersionState.APPROVED, run_id=run,
        parent=number - 1 or None, artifact=f"{number:064x}", manifest={"schema": {"features": []}},
        lineage={
            "trigger": {"kind": "performance", "reason": f"realised loss rose {EVIL}", "actor": "controller"},
            "training": {"window": "56d", "fit_rows": 2352, "seed": 7, "parameters": {}},
            "data": {"digest": "ab" * 32, "used_rows": 2689},
            "code": {"commit": "c0ffee" * 6, "dirty": False, "retrue": "0.1.0"},
            "libraries": {"python": "3.11.7", "scikit-learn": "1.9.1"},
            "evaluation": evaluation,
        },
        metrics={
            "metric": "accuracy", "value": 0.8 + number / 100, "loss": 0.2 - number / 100, "n": 672,
            "ci": [0.78, 0.85],
        },
        reference={}, learned_until=BEGAN, created_at=BEGAN + number * WEEK,
    )  # fmt: skip
    return versions.insert(conn, row)


def _crown(conn: Connection, made: Fleet, version: int, *, at: datetime, kind: Any, run: str | None = None) -> None:
    now = champions.current(conn, made.model)
    why = {"promote": "every clause of the gate passed", "rollback": f"customers complained {EVIL}"}[kind]
    after = champions.swap(
        conn, made.model, version=version, expected_generation=now.generation if now else 0,
        actor="controller" if kind == "promote" else "ada", reason=why, kind=kind, run_id=run, event_time=at, at=at,
    )  # fmt: skip
    if kind == "rollback":
        models.set_switch(conn, made.model, "hold", value=True, actor="ada", reason=f"rolled back: {EVIL}", at=at)
    elif now is not None:
        row = probations.begin(
            conn, made.model, generation=after.generation, version=version, previous_version=now.version, run_id=run,
            at=at, event_time=at, actor="controller",
        )  # fmt: skip
        probations.end(
            conn, row, ProbationState.KEPT, run_state=RunState.SUCCEEDED, code="clean", reason="it did as well",
            actor="controller", at=at, event_time=at,
        )  # fmt: skip
    replicas.report(conn, "replica-0", made.model, version, after.generation)


def _gate(outcome: Outcome) -> GateReport:
    clauses = (
        Clause(name="rows", value=672.0, threshold=100.0, n=672, outcome=Outcome.PASS, reason="enough labelled rows"),
        Clause(
            name="paired", value=0.0125, threshold=0.0, n=672, outcome=outcome,
            reason=f"gain 0.0125, 80% interval [0.002, 0.03] {EVIL}",
        ),
    )  # fmt: skip
    return GateReport(outcome=outcome, reason="every clause passed", clauses=clauses)


def _run(conn: Connection, version: int, *, until: datetime, ends: bool = True) -> str:
    run = runs.create(
        conn, Fleet.model, trigger=Trigger.PERFORMANCE, actor="controller", reason=f"loss rose by 16% {EVIL}",
        at=until, until=until,
    )  # fmt: skip
    gate = _gate(Outcome.PASS).to_json()
    candidates = [
        {"window": "56d", "weighting": "none", "rows": 2352, "loss": 0.2411, "chosen": True, "note": "", "warnings": []}
    ]
    _version(conn, version, run.id)
    way: list[tuple[RunState, dict[str, Any]]] = [
        (RunState.PREPARING, {}),
        (RunState.VALIDATING, {}),
        (RunState.TRAINING, {"progress": {"step": "training", "done": 2, "of": 4, "words": "fitting on 56d"}}),
        (RunState.PACKAGING, {"candidates": candidates}),
        (RunState.EVALUATING, {}),
    ]
    last = RunState.PROMOTING if ends else RunState.AWAITING_APPROVAL
    way.append((last, {"gate": gate, "version": version, "code": "gate_pass"}))
    if ends:
        way.append((RunState.PROBATION, {"detail": f"version {version} is champion {EVIL}"}))
    for place, (state, columns) in enumerate(way):
        at = until + timedelta(seconds=2 * place + 1)
        runs.transition(conn, run.id, state, actor="trainer", reason=f"step {place}", at=at, **columns)
    return run.id


def _waiting(conn: Connection, made: Fleet) -> None:
    made.waiting = _run(conn, 4, until=BEGAN + WINDOWS * WEEK, ends=False)


def _check(conn: Connection, model: str, week: int, *, version: int, until: datetime) -> str:
    is_broken, is_moved = week == 12, week in {7, 16, 25}
    columns = tuple(
        ColumnDrift(
            column=name, role="feature", method="wasserstein" if place % 2 else "jensenshannon",
            statistic=None if place == 4 and week % 5 == 0 else round((0.02 + 0.013 * ((week * (place + 3)) % 11)), 4),
            threshold=0.08, drifted=None if place == 4 and week % 5 == 0 else is_moved and place == 0,
            reason="constant in the window" if place == 4 and week % 5 == 0 else "",
        )
        for place, name in enumerate(FEATURES)
    )  # fmt: skip
    columns = tuple(replace(one, statistic=0.27) if is_moved and one.column == "demand" else one for one in columns)
    loss = 0.19 + 0.012 * (week % 8) + (0.03 if is_moved else 0.0)
    performance = Performance(
        metric="accuracy", value=1 - loss, loss=loss, reference_loss=0.2, rows=336, labelled=300 + week,
        delay_p50_s=86_400.0, worse=loss > 0.26, reason="CUSUM 0.0784 is not above 7.16",
    )  # fmt: skip
    finding = Finding(
        check="sentinel", column=EVIL, value=0.19, limit=0.05, reason=f"{EVIL} is 0.04 in 19% of the rows"
    )
    verdict = Verdict.QUARANTINED if is_broken else Verdict.DRIFTED if is_moved else Verdict.CLEAN
    seen = Examination(
        verdict=verdict, reason=f"{EVIL} moved" if is_moved else "all 7 features lie within their thresholds",
        rows=336, findings=(finding,) if is_broken else (), columns=() if is_broken else columns,
        performance=performance,
        drift=None if is_broken else DriftTest(
            state="calibrated", statistic=2.1 if is_moved else 0.6, threshold=1.0, blocks=14, level=0.05,
            expected_alarms=0.4, culprits=("demand",) if is_moved else (), reason="14 clean windows",
        ),
    )  # fmt: skip
    situation = Situation(
        now=until, verdict=verdict, quarantined=is_broken, loss=loss, reference_loss=0.2, degraded_in_a_row=0,
        drifted_in_a_row=int(is_moved), new_labels=336, learned_until=BEGAN, last_run_ended=None, rejected_in_a_row=0,
        active_run=None, promoted_at=BEGAN, rolled_back_at=None, paused=False, frozen=False,
    )  # fmt: skip
    decision = Decision(action=Action.NONE, code="no_cause", reason="realised quality and data give no cause for a run")
    check = checks.create(conn, model, actor="schedule", at=until)
    checks.finish(
        conn, check.id, at=until + timedelta(seconds=3), version=version, generation=1, window_from=until - WEEK,
        window_until=until, rows=336, verdict=verdict.value, reason=seen.reason, examination=seen.to_json(),
        situation=situation.to_json(), decision=decision.to_json(), policy={}, degraded=False,
        reading=read(seen, degraded=False).to_json(), report=f"{model}/x.html.gz",
    )  # fmt: skip
    audit.append(conn, actor="ada", action="check_asked", model=model, subject=check.id, reason=EVIL, at=until)
    return check.id
