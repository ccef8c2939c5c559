"""Checks and runs as traces, told once they are over, from what their rows say of their times."""

from itertools import pairwise

from service.domain.run import RunState
from service.storage.checks import Check
from service.storage.runs import Run, RunEvent
from service.traces import Stage, Traces

__all__ = ["trace_check", "trace_run"]

BAD = frozenset({RunState.FAILED, RunState.TIMED_OUT})


def trace_run(traces: Traces, run: Run, events: list[RunEvent]) -> None:
    """Tell of a run that has ended: one span for it, one for each state that it was in."""
    if not events:
        return
    about = {
        "retrue.run": run.id,
        "retrue.model": run.model,
        "retrue.trigger": run.trigger.value,
        "retrue.state": run.state.value,
        "retrue.attempt": run.attempt,
        **({} if run.code is None else {"retrue.code": run.code}),
        **({} if run.version is None else {"retrue.version": run.version}),
    }
    parts = [
        Stage(f"run.{one.after.value}", one.at, after.at, {"retrue.reason": one.reason, "retrue.actor": one.actor})
        for one, after in pairwise(events)
    ]
    whole = Stage("run", events[0].at, events[-1].at, about)
    traces.tell(whole, parts, trace=run.id.replace("-", ""), is_error=run.state in BAD)


def trace_check(traces: Traces, check: Check) -> None:
    """Tell of a check that came to a verdict."""
    if check.finished_at is None:
        return
    about = {
        "retrue.check": check.id,
        "retrue.model": check.model,
        "retrue.verdict": check.verdict or "",
        "retrue.decision": (check.decision or {}).get("code", ""),
        **({} if check.version is None else {"retrue.version": check.version}),
        **({} if check.rows is None else {"retrue.rows": check.rows}),
        **({} if check.run_id is None else {"retrue.run": check.run_id}),
    }
    whole = Stage("check", check.requested_at, check.finished_at, about)
    traces.tell(whole, (), trace=check.id.replace("-", ""), is_error=False)
