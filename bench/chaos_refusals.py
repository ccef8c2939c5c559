"""Which requests that were not answered had a reason, and which had none."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.chaos_faults import Faults
from bench.chaos_ledger import Violation
from bench.chaos_load import Refusal
from bench.chaos_stage import Kill, Span

__all__ = ["Judged", "judge", "silences"]

UNAVAILABLE = 503
NEAR_S = 3.0
"""A connection breaks so soon after a kill, at the latest."""
LEAVING_S = 13.0
"""Workers whose supervisor was killed leave within so long: what they had accepted may break until then."""
GRACE_S = 1.5
"""So exactly the harness knows when a worker began and ended."""
ROOM = frozenset({"not-recorded"})
LOAD = frozenset({"overloaded"})
EMPTY = frozenset({"no-champion", "not-ready"})


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How requests ended that had no success."""

    excused: Counter[str]
    violations: list[Violation]


def judge(
    refusals: Sequence[Refusal], *, kills: Sequence[Kill], spans: Sequence[Span], faults: Faults, began: float
) -> Judged:
    """Return the refusals by reason, and those without one by what they were."""
    excused: Counter[str] = Counter()
    unexcused: dict[str, list[str]] = {}
    quiet = silences(spans, since=began, leaving=[kill.at for kill in kills if kill.role == "supervisor"])
    for refusal in refusals:
        reason = _reason(refusal, kills, quiet, faults)
        what = f"{refusal.kind} {refusal.status or 'no answer'} {refusal.code}"
        if reason is not None:
            excused[f"{what}: {reason}"] += 1
        else:
            nearest = min((refusal.at - kill.at for kill in kills), key=abs, default=0.0)
            unexcused.setdefault(what, []).append(
                f"{refusal.model} {refusal.words} ({nearest:+.1f} s from the nearest kill)"
            )
    violations = [
        Violation(law=f"a request was refused without a reason: {what}", count=len(words), examples=tuple(words[:5]))
        for what, words in sorted(unexcused.items())
    ]
    return Judged(excused=excused, violations=violations)


def silences(spans: Sequence[Span], *, since: float, leaving: Sequence[float]) -> list[tuple[float, float]]:
    """Return the times at which no worker lived that had loaded anything.

    One whose supervisor is dead is leaving already. One that serves some models and not others lives: that nobody can
    load a champion is no excuse.
    """
    busy = []
    for span in spans:
        end = span.end if span.end is not None else float("inf")
        left = min((at for at in leaving if span.begin <= at <= end), default=end)
        busy.append((span.begin, left))
    quiet, reach = [], since
    for begin, end in sorted(busy):
        if begin > reach:
            quiet.append((reach, begin))
        reach = max(reach, end)
    if reach != float("inf"):
        quiet.append((reach, float("inf")))
    return quiet


def _reason(
    refusal: Refusal, kills: Sequence[Kill], quiet: Sequence[tuple[float, float]], faults: Faults
) -> str | None:
    if refusal.status == UNAVAILABLE and refusal.code in ROOM:
        return "no room to record" if faults.near("disk", refusal.at, refusal.ended) else None
    if refusal.status == UNAVAILABLE and refusal.code in LOAD:
        return "overload"
    nobody = any(begin - GRACE_S <= refusal.ended and refusal.at <= end + GRACE_S for begin, end in quiet)
    if refusal.status == UNAVAILABLE and refusal.code in EMPTY:
        return "every worker was dead" if nobody else None
    if nobody and (not refusal.status or refusal.code == "slow"):
        return "every worker was dead"
    if refusal.status:
        return None
    for kill in kills:
        if kill.role in {"worker", "supervisor", "api"}:
            reach = NEAR_S if kill.role == "worker" else LEAVING_S
            if kill.at - GRACE_S <= refusal.ended and refusal.at <= kill.at + reach:
                return f"a {'worker' if kill.role == 'worker' else 'supervisor'} was killed"
    return None
