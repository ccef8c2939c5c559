"""The old regime: a frozen stretch, the oldest that is known, and how much of it a challenger has forgotten."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from numpy.typing import NDArray

from service.domain.gate import Clause, Outcome
from service.domain.policy import Gate
from service.learning.metric import Metric
from service.learning.resampling import Answers, resample

__all__ = ["OldRegime", "judge_old_regime"]


@dataclass(frozen=True, kw_only=True)
class OldRegime:
    """Answers to the oldest rows that are known, and the best constant answer to them.

    Attributes
    ----------
    after, until
        Ends of the stretch. It never rolls: what is lost there was once known.
    learned
        Whether the challenger has learned from it: one that has not is at a disadvantage.
    """

    after: datetime
    until: datetime
    truth: NDArray[Any]
    champion: Answers
    challenger: Answers
    trivial: Answers
    learned: bool


def judge_old_regime(
    policy: Gate, metric: Metric, old: OldRegime | None, *, is_proved_better: bool, seed: int
) -> tuple[Clause, dict[str, Any] | None]:
    """Return the clause, and its figures.

    Parameters
    ----------
    is_proved_better
        Whether the whole interval of the gain on new rows lies above nought. Then forgetting is its price: in a world
        that turned round, who is right now must be wrong about what was.
    """
    if old is None:
        return _untold("there is no older regime yet: what is known reaches back too short a time"), None
    try:
        champion, challenger, trivial = (
            metric.loss(old.truth, answer.output, answer.probabilities)
            for answer in (old.champion, old.challenger, old.trivial)
        )
        drawn = resample(metric, old.truth, (old.challenger,), resamples=policy.resamples, seed=seed)
    except ValueError as error:
        return _untold(f"{metric.name} is not defined on the oldest rows: {str(error).splitlines()[0]}"), None
    figures = {
        "after": old.after.isoformat(), "until": old.until.isoformat(), "n": len(old.truth),
        "champion": metric.as_value(champion), "challenger": metric.as_value(challenger),
        "trivial": metric.as_value(trivial), "forgotten": challenger - champion,
        "learned": old.learned,
    }  # fmt: skip
    words = (
        f"on the oldest {len(old.truth)} rows (until {old.until:%Y-%m-%d}) loss {challenger:.4g}, the champion's "
        f"{champion:.4g}, the best constant's {trivial:.4g}"
    )
    if policy.old_margin is None:
        return _told(challenger, None, len(old.truth), Outcome.PASS, f"{words}: told, not judged"), figures
    limit = (1 + policy.old_margin) * max(champion, trivial)
    low, _ = drawn.interval(policy.confidence, of=drawn.draws[0])
    has_collapsed = low > limit
    outcome = Outcome.FAIL if has_collapsed and not is_proved_better else Outcome.PASS
    verdict = f"not beyond {limit:.4g}"
    if has_collapsed:
        verdict = f"it has forgotten them, even the better end of its interval, {low:.4g}, lies beyond {limit:.4g}"
        verdict += (
            ", which its proved gain on new rows outweighs" if is_proved_better else ", without a proved gain now"
        )
    return _told(low, limit, len(old.truth), outcome, f"{words}: {verdict}"), figures


def _told(value: float | None, threshold: float | None, n: int, outcome: Outcome, reason: str) -> Clause:
    return Clause(name="old_regime", value=value, threshold=threshold, n=n, outcome=outcome, reason=reason)


def _untold(reason: str) -> Clause:
    return _told(None, None, 0, Outcome.PASS, reason)
