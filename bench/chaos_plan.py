"""What dies where: the steps at which processes are killed, and the pace that leaves the service time to go on."""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bench.chaos_operator import Operator
from bench.chaos_stage import Stage
from service.domain.run import RunState

__all__ = ["NAMED", "Director", "states_hit"]

S = RunState
NAMED = (
    S.QUEUED,
    S.PREPARING,
    S.VALIDATING,
    S.TRAINING,
    S.PACKAGING,
    S.EVALUATING,
    S.AWAITING_LABELS,
    S.AWAITING_APPROVAL,
    S.PROMOTING,
    S.PROBATION,
    S.CANCELLING,
)
"""Run states at which something must have been killed."""

MODEL_OF = {S.AWAITING_LABELS: "patient", S.AWAITING_APPROVAL: "bikes"}
"""Whose runs come to a state; the others' do as well."""
BY_CONTROLLERS = (
    "run.preparing.committed",
    "run.probation.committed",
    "swap.commit.uncommitted",
    "leader run.training.committed",
    "swap.commit.committed",
    "check.conclude.uncommitted",
    "leader run.promoting.committed",
    "lease.acquire.committed",
    "run.succeeded.uncommitted",
    "leader run.cancelling.committed",
    "swap.ask.committed",
    "run.preparing.uncommitted",
    "check.conclude.committed",
    "leader run.evaluating.committed",
    "run.probation.uncommitted",
    "swap.ask.uncommitted",
    "lease.acquire.uncommitted",
    "leader run.validating.committed",
    "run.cancelled.committed",
    "swap.fail.committed",
    "run.succeeded.committed",
    "leader swap.ask.committed",
    "run.cancelled.uncommitted",
    "swap.fail.uncommitted",
)
"""Each costs the rest of a lease, in which nothing goes on: so there are pauses between. Some kill the leader when
somebody else takes the step."""
FIRST = tuple(f"run.{state}.committed" for state in NAMED if state not in {S.PREPARING, S.PROBATION})
"""Laid all at once: each ends one attempt, further on than the last."""
BY_OTHERS = (
    *(step.replace(".committed", ".uncommitted") for step in FIRST),
    "artifact.put.before",
    "version.insert.uncommitted",
    "check.examine.before",
    "artifact.put.after",
    "version.insert.committed",
    "check.examine.after",
    *FIRST,
)
SERVING = (
    "committer.append.after",
    "spool.append.after",
    "random committer",
    "replica.answer.uncommitted",
    "committer.append.before",
    "spool.torn",
    "committer.dispose.after",
    "random worker",
    "lake.maintain.before",
    "spool.append.before",
    "random supervisor",
    "committer.dispose.before",
    "replica.bind.before",
    "lake.maintain.after",
    "spool.rotate.after",
    "random committer",
    "replica.answer.committed",
    "random worker",
    "spool.rotate.before",
    "replica.bind.after",
)
CORRUPTIONS = ("flip", "truncate", "missing")
RANDOM = ("trainer", "leader", "checker", "standby", "trainer")
AT_ONCE = 2
"""Tokens for trainers and workers that may lie about later on: more, and no run would ever succeed."""
LEADERLESS_S = 26.0
"""After a leader's death the next one needs the rest of its lease, the dead one a start, and runs need a moment."""
OUTSTANDING_S = 20.0
"""A token for controllers that nobody took for so long is left lying, and the next one is laid beside it."""
BOTH = 0.1
"""So often the last worker that answers may be killed, too."""
WORK_S = 3.0
"""So often work is asked for, while tokens wait for it."""


@dataclass
class Director:
    """Lays tokens and kills, one beat after the other.

    Parameters
    ----------
    stage, operator
        Who is killed, and who is asked to bring a step about.
    seed
        Of the order.
    serving_s, random_s
        Seconds between kills of those who serve, and of controllers and their children at random.
    spared
        Whether workers are spared just now: one that dies without a database can't come back.
    """

    stage: Stage
    operator: Operator
    seed: int
    serving_s: float = 4.5
    random_s: float = 25.0
    spared: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        """Make the rings; each begins with the named states."""
        self._rng = random.Random(self.seed)  # noqa: S311  chances, not secrets
        self._rings = {
            "controllers": deque(BY_CONTROLLERS),
            "others": deque(BY_OTHERS),
            "serving": deque(SERVING),
            "random": deque(RANDOM),
            "corruptions": deque(CORRUPTIONS),
        }
        self._first = deque(FIRST)
        self._controller_step = ("", 0.0)
        self._seen = 0

    def play(self, seconds: float) -> None:
        """Go on for so long."""
        ends = time.monotonic() + seconds
        beats = {
            "others": (self._lay_for_others, 0.7),
            "controllers": (self._lay_for_controllers, 1.0),
            "serving": (self._serve, self.serving_s),
            "random": (self._kill, self.random_s),
            "corrupt": (self._corrupt, seconds / 5),
            "work": (self._ask_for_work, WORK_S),
        }
        due = {name: time.monotonic() + every * 0.4 for name, (_, every) in beats.items()}
        self._led_at = 0.0
        while time.monotonic() < ends:
            self._look()
            for name, (act, every) in beats.items():
                if time.monotonic() >= due[name]:
                    act()
                    due[name] = time.monotonic() + every * self._rng.uniform(0.7, 1.3)
            time.sleep(0.1)

    def _look(self) -> None:
        for kill in self.stage.kills[self._seen :]:
            self._seen += 1
            if kill.role in {"leader", "controller"}:
                self._led_at = time.monotonic() + LEADERLESS_S

    def _lay_for_others(self) -> None:
        if self._first:
            self.stage.arm(self._first.popleft())
            return
        ring = self._rings["others"]
        lying = self.stage.armed()
        if sum(step in ring for step in lying) < AT_ONCE:
            step = self._next(ring)
            if step not in lying:
                self.stage.arm(step)

    def _lay_for_controllers(self) -> None:
        now = time.monotonic()
        step, since = self._controller_step
        is_waiting = step in self.stage.armed() and now - since < OUTSTANDING_S
        if now < self._led_at or is_waiting:
            return
        target, _, step = self._next(self._rings["controllers"]).rpartition(" ")
        pids = self.stage.pids("leader") if target else []
        if step in self.stage.armed() or (target and not pids):
            return
        self.stage.arm(step, str(pids[0]) if pids else "self")
        self._controller_step = (step, now)

    def _ask_for_work(self) -> None:
        """Have an operator ask for what brings the waiting tokens' steps about."""
        lying = self.stage.armed()
        if any(step.startswith("run.cancel") for step in lying):
            self.operator.want("cancel")
        if any(step.startswith(("swap.", "replica.")) for step in lying):
            self.operator.want("promote")
        states = [S(step.split(".")[1]) for step in lying if step.startswith("run.")]
        if states:
            state = self._rng.choice(states)
            self.operator.want(f"retrain {MODEL_OF.get(state, 'electricity')}")

    def _serve(self) -> None:
        ring = self._rings["serving"]
        word = self._next(ring)
        for _ in range(len(ring)):
            if self._may(word):
                break
            word = self._next(ring)
        kind, _, role = word.partition(" ")
        if kind == "random":
            self.stage.kill(role, pick=self._rng.randrange(8))
        else:
            self.stage.arm(word)

    def _may(self, word: str) -> bool:
        """Return whether this one may die now: of two workers one goes on, but for a now and then."""
        if word.startswith(("committer", "lake")) or word.endswith("committer"):
            return True
        answering = self.stage.answering()
        if word.endswith("supervisor"):
            return answering > 0 and not self.spared()
        if self.spared() or any(step.startswith(("spool", "replica")) for step in self.stage.armed()):
            return False
        return answering >= 2 or (answering == 1 and self._rng.random() < BOTH)

    def _kill(self) -> None:
        ring = self._rings["random"]
        for _ in range(len(ring)):
            if self.stage.kill(self._next(ring), pick=self._rng.randrange(8)):
                return

    def _corrupt(self) -> None:
        self.stage.arm("artifact.corrupt", self._next(self._rings["corruptions"]))

    @staticmethod
    def _next(ring: deque[str]) -> str:
        ring.rotate(-1)
        return ring[-1]


def states_hit(stage: Stage) -> dict[str, int]:
    """Return how often something was killed at each named state of a run."""
    hit = {state.value: 0 for state in NAMED}
    for kill in stage.kills:
        parts = kill.step.split(".")
        if parts[0] == "run" and parts[1] in hit:
            hit[parts[1]] += 1
    return hit
