"""What the database holds, as samples of the state metrics: few lean questions, however many runs and checks there are.

Where a label's values are a closed set each of them gets its sample, zeros too: a series that appears only when
something happens has no past that a rule could compare with.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

from sqlalchemy import Connection, func, or_, select

from service.control.due import pitch
from service.control.leader import LEASE
from service.domain.budget import parse_budget
from service.domain.check import CheckState, Verdict
from service.domain.duration import parse_duration
from service.domain.gate import Outcome
from service.domain.policy import Drift, Retrain
from service.domain.probation import ProbationState
from service.domain.run import ACTIVE, BROKE, JUDGED, RunState
from service.domain.situation import Situation
from service.domain.switch import CLEARABLE
from service.domain.version import VersionState
from service.storage import alarms, champions, checks, leases, models, outbox, replicas, tables
from service.storage.champions import Champion, SwapKind
from service.storage.checks import Check
from service.storage.database import now
from service.storage.models import ModelRow, policy_of

__all__ = ["Sample", "samples"]

LIVE_S = 6.0
WAITS = (RunState.QUEUED, RunState.AWAITING_LABELS, RunState.AWAITING_APPROVAL, RunState.PROMOTING)
"""States in which a run waits for something that may never come."""
MANY = 50
"""No row of broken runs is counted further."""

Sample = tuple[str, tuple[str, ...], float]
"""A metric's name without its prefix, its label values, its value."""


def samples(conn: Connection) -> Iterator[Sample]:
    """Yield every sample that the database holds now."""
    current = {champion.model: champion for champion in champions.all_current(conn)}
    known = models.list_all(conn)
    yield "build_info", (_release(),), 1.0
    lease = leases.holder(conn, LEASE)
    if lease is not None:
        yield "leaderless_seconds", (), max((now(conn) - lease.expires_at).total_seconds(), 0.0)
    watched, switched, facts = _watched(conn), _switched(conn), _learned(conn)
    for row in known:
        yield "model_broken", (row.name,), float(row.error is not None)
        yield "probation", (row.name,), float(row.name in watched)
        for switch in CLEARABLE:
            yield "switch", (row.name, switch), float((row.name, switch) in switched)
        yield from _of_policies(row)
        check = checks.latest_done(conn, row.name)
        yield "check_failures", (row.name,), float(_failed_since(conn, row.name, check))
        if check is not None:
            yield from _of_check(check)
            if check.window_until is not None:
                count = len(alarms.realised(conn, row, until=check.window_until))
                yield "drift_realised_alarms_90d", (row.name,), float(count)
        if row.name in current:
            yield from _of_champion(current[row.name], facts[row.name], check)
        yield from _of_gate(conn, row.name)
        yield from _of_ended(conn, row.name)
    yield from _of_replicas(conn, current)
    yield from _of_runs(conn, [row.name for row in known])
    yield from _of_versions(conn, [row.name for row in known])
    yield from _of_swaps(conn, list(current))
    for state, waiting in outbox.counts(conn).items():
        yield "webhook_deliveries", (state.value,), float(waiting)


def _of_policies(row: ModelRow) -> Iterator[Sample]:
    if row.spec is None:
        return
    every, max_age = pitch(policy_of(row, Drift)), policy_of(row, Retrain).max_age
    if every is not None:
        yield "check_every_seconds", (row.name,), every.total_seconds()
    if max_age is not None:
        yield "model_max_age_seconds", (row.name,), parse_duration(max_age).total_seconds()


def _watched(conn: Connection) -> set[str]:
    """Return the models whose champion is on probation: of all at once, as one question costs as much as many rows."""
    p = tables.probations.c
    return set(conn.scalars(select(p.model).where(p.state == ProbationState.WATCHING.value)))


def _switched(conn: Connection) -> set[tuple[str, str]]:
    """Return each model and switch that is set."""
    s = tables.switches.c
    query = select(s.model, s.name).where(or_(s.expires_at.is_(None), s.expires_at > now(conn)))
    return {(model, name) for model, name in conn.execute(query)}


def _learned(conn: Connection) -> dict[str, tuple[bool, datetime]]:
    """Return of each champion whether it was compiled and until when it learned, without its long reference."""
    c, v = tables.champions.c, tables.versions.c
    query = select(c.model, v.manifest, v.learned_until).join_from(
        tables.champions, tables.versions, (v.model == c.model) & (v.version == c.version)
    )
    return {
        model: ("artifact" in (manifest.get("compiled") or {}), until) for model, manifest, until in conn.execute(query)
    }


def _of_champion(champion: Champion, facts: tuple[bool, datetime], check: Check | None) -> Iterator[Sample]:
    model, (compiled, learned_until) = champion.model, facts
    yield "model_info", (model, str(champion.version), "champion"), 1.0
    if champion.previous_version is not None and champion.previous_version != champion.version:
        yield "model_info", (model, str(champion.previous_version), "previous"), 1.0
    yield "champion_generation", (model,), float(champion.generation)
    yield "champion_compiled", (model,), float(compiled)
    yield "champion_changed_timestamp_seconds", (model,), champion.changed_at.timestamp()
    yield "model_learned_until_timestamp_seconds", (model,), learned_until.timestamp()
    if check is not None and check.window_until is not None:
        yield "model_age_seconds", (model,), (check.window_until - learned_until).total_seconds()


def _of_check(check: Check) -> Iterator[Sample]:
    model, seen = check.model, check.examination or {}
    for verdict in Verdict:
        yield "check_verdict", (model, verdict.value), float(check.verdict == verdict.value)
    for name, at in (("finished", check.finished_at), ("window", check.window_until)):
        if at is not None:
            yield f"check_{name}_timestamp_seconds", (model,), at.timestamp()
    yield "check_rows", (model,), float(check.rows or 0)
    yield "check_findings", (model,), float(len(seen.get("findings") or ()))
    for column in seen.get("columns") or ():
        labels = (model, column["column"], column["role"])
        yield "drift_threshold", labels, float(column["threshold"])
        if column.get("statistic") is not None:
            yield "drift_statistic", labels, float(column["statistic"])
    tested = seen.get("drift")
    if tested:
        yield "drift_family_statistic", (model,), float(tested["statistic"])
        yield "drift_family_threshold", (model,), float(tested["threshold"])
        yield "drift_calibrated", (model,), float(tested["state"] == "calibrated")
        if tested.get("expected_alarms") is not None:
            yield "drift_expected_alarms_90d", (model,), float(tested["expected_alarms"])
    if check.situation is not None:
        yield from _of_situation(model, Situation.from_json(check.situation), check.policy or {})
    realised = seen.get("performance")
    if realised:
        yield from _of_performance(model, realised)


def _of_situation(model: str, known: Situation, policy: Mapping[str, Any]) -> Iterator[Sample]:
    yield "drift_confirmed", (model,), float(known.drifted_in_a_row >= known.drift_confirm)
    if policy.get("budget"):
        budget = parse_budget(policy["budget"], whole=True)
        yield "run_budget", (model,), budget.count
        yield "run_budget_spent", (model,), float(budget.spent(known.started, now=known.now))


def _of_performance(model: str, realised: Mapping[str, Any]) -> Iterator[Sample]:
    if realised.get("value") is not None:
        yield "performance_value", (model, realised["metric"]), float(realised["value"])
    for name, key in (
        ("performance_loss", "loss"),
        ("performance_reference_loss", "reference_loss"),
        ("label_delay_seconds", "delay_p50_s"),
    ):
        if realised.get(key) is not None:
            yield name, (model,), float(realised[key])
    if realised.get("rows"):
        yield "label_coverage", (model,), realised["labelled"] / realised["rows"]
    extra = realised.get("extra") or {}
    for name, key in (("label_immature_seconds", "immature_s"), ("label_coverage_reached", "coverage_reached")):
        if extra.get(key) is not None:
            yield name, (model,), float(extra[key])
    if realised.get("worse") is not None:
        yield "performance_worse", (model,), float(realised["worse"])
    if realised.get("estimate"):
        yield "performance_estimate_loss", (model,), float(realised["estimate"]["loss"])
        yield "performance_estimate_valid", (model,), float(realised["estimate"]["valid"])


def _failed_since(conn: Connection, model: str, check: Check | None) -> int:
    c = tables.checks.c
    query = select(func.count()).where(c.model == model, c.state == CheckState.FAILED.value)
    return conn.scalar(query if check is None else query.where(c.requested_at > check.requested_at)) or 0


def _of_gate(conn: Connection, model: str) -> Iterator[Sample]:
    c = tables.runs.c
    judged = select(c.gate).where(c.model == model, c.gate.is_not(None))
    gate: Mapping[str, Any] = conn.scalar(judged.order_by(c.requested_at.desc(), c.id.desc()).limit(1)) or {}
    if gate.get("outcome"):
        for outcome in Outcome:
            yield "gate_result", (model, outcome.value), float(gate["outcome"] == outcome.value)
    for clause in gate.get("clauses", ()):
        labels = (model, clause["name"])
        for name in ("value", "threshold"):
            if clause.get(name) is not None:
                yield f"gate_{name}", labels, float(clause[name])
        for outcome in Outcome:
            yield "gate_outcome", (*labels, outcome.value), float(clause["outcome"] == outcome.value)


def _of_ended(conn: Connection, model: str) -> Iterator[Sample]:
    c = tables.runs.c
    newest = (c.requested_at.desc(), c.id.desc())
    broken = 0
    for state in conn.scalars(select(c.state).where(c.model == model).order_by(*newest).limit(MANY)):
        if state in JUDGED:
            break
        broken += state in BROKE
    yield "run_broken_in_a_row", (model,), float(broken)
    # One that only waited (skipped, cancelled before its start) spent nothing that would be worth a look.
    worked = select(c.seconds).where(c.model == model, c.finished_at.is_not(None), c.started_at.is_not(None))
    spent: Mapping[str, float] = conn.scalar(worked.order_by(*newest).limit(1)) or {}
    for name, seconds in spent.items():
        yield "run_state_seconds", (model, name), float(seconds)


def _of_replicas(conn: Connection, current: dict[str, Champion]) -> Iterator[Sample]:
    living = {replica.id: replica for replica in replicas.live(conn, LIVE_S)}
    yield "workers", (), float(len(living))
    on_champion = dict.fromkeys(current, 0)
    for held in replicas.serving(conn):
        if held.replica_id not in living or held.generation is None:
            continue
        replica = living[held.replica_id]
        yield "serving_generation", (held.model, f"{replica.host}/{replica.worker}"), float(held.generation)
        if held.model in current and held.generation == current[held.model].generation:
            on_champion[held.model] += 1
    for model, count in on_champion.items():
        yield "serving_lagging", (model,), float(len(living) - count)


def _of_runs(conn: Connection, names: list[str]) -> Iterator[Sample]:
    c = tables.runs.c
    query = select(c.model, c.state, func.count()).group_by(c.model, c.state)
    counts = {(m, s): n for m, s, n in conn.execute(query)}
    for model in names:
        for state in RunState:
            yield "runs", (model, state.value), float(counts.get((model, state.value), 0))
        yield "run_active", (model,), float(any(counts.get((model, state.value)) for state in ACTIVE))
    e = tables.run_events.c
    came = (
        select(c.model, c.state, c.requested_at, func.max(e.at))
        .outerjoin(tables.run_events, (e.run_id == c.id) & (e.after == c.state))
        .where(c.state.in_([state.value for state in WAITS]))
        .group_by(c.id, c.model, c.state, c.requested_at)
    )
    oldest: dict[tuple[str, str], datetime] = {}
    for model, state, requested_at, at in conn.execute(came):
        oldest[model, state] = min(oldest.get((model, state), at or requested_at), at or requested_at)
    for labels, at in oldest.items():
        yield "run_waiting_since_timestamp_seconds", labels, at.timestamp()


def _of_versions(conn: Connection, names: list[str]) -> Iterator[Sample]:
    c = tables.versions.c
    query = select(c.model, c.state, func.count()).group_by(c.model, c.state)
    counts = {(m, s): n for m, s, n in conn.execute(query)}
    for model in names:
        for state in VersionState:
            yield "versions", (model, state.value), float(counts.get((model, state.value), 0))


def _of_swaps(conn: Connection, served: list[str]) -> Iterator[Sample]:
    c = tables.swaps.c
    query = select(c.model, c.kind, func.count(), func.max(c.ended_at)).where(c.state == "committed")
    found = {(m, k): (n, at) for m, k, n, at in conn.execute(query.group_by(c.model, c.kind))}
    for model in served:
        for kind in get_args(SwapKind):
            count, at = found.get((model, kind), (0, None))
            yield "champion_changes", (model, kind), float(count)
            if at is not None:
                yield "swap_timestamp_seconds", (model, kind), at.timestamp()
    p = tables.probations.c
    taken_back = select(p.model, func.max(p.ended_at)).where(p.state == ProbationState.ROLLED_BACK.value)
    for model, at in conn.execute(taken_back.group_by(p.model)):
        yield "probation_rollback_timestamp_seconds", (model,), at.timestamp()


def _release() -> str:
    try:
        return version("retrue")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "0"
