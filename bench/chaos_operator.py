"""An operator with restless hands: retrains, promotes, rolls back, cancels, approves, clears switches."""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from service.client import Json, Refused, Retrue, Unreachable
from service.domain.run import ACTIVE, RunState

__all__ = ["Operator"]

VERBS = ("retrain", "promote", "rollback", "cancel", "decide", "decide", "clear", "clear")
AT_WORK = ACTIVE - {RunState.QUEUED, RunState.PROMOTING, RunState.CANCELLING}
OBEYS = 0.6
"""So often does it what it is asked for; otherwise what comes to mind."""
PROMISED_S = 40.0
OVER = "the chaos is over"
SERVER_ERROR = 500
UNAVAILABLE = 503


class Operator:
    """Runs in a thread of its own.

    Parameters
    ----------
    url
        Of the service.
    models
        Whose hands are on.
    every_s
        Pause between two verbs.
    seed
        Of the choices.
    """

    def __init__(self, url: str, models: list[str], *, every_s: float, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.broken: list[str] = []
        """Answers that no caller should ever see."""
        self.promised: list[str] = []
        """Runs that were accepted."""
        self._url, self._models, self._every_s = url, models, every_s
        self._random = random.Random(seed)  # noqa: S311  whims, not secrets
        self._wanted: deque[str] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="operator", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def want(self, verb: str) -> None:
        """Do this next: a verb, and the model if it matters."""
        if verb not in self._wanted:
            self._wanted.append(verb)

    def stop(self) -> None:
        """Keep the hands off; then pause the schedules and clear every other switch."""
        self._stop.set()
        self._thread.join(PROMISED_S)
        for model in self._models:
            self._until_done("settle", partial(_paused, model=model))
            for switch in ("hold", "quarantine"):
                self._until_done("settle", partial(_cleared, model=model, switch=switch))

    def _work(self) -> None:
        while not self._stop.wait(self._every_s * self._random.uniform(0.4, 1.6)):
            is_asked = self._wanted and self._random.random() < OBEYS
            words = self._wanted.popleft() if is_asked else self._random.choice(VERBS)
            verb, _, model = words.partition(" ")
            with Retrue(self._url, timeout_s=15.0) as client:
                self._tried(verb, partial(getattr(self, f"_{verb}"), client, model or self._model()))

    def _tried(self, verb: str, act: Callable[[], Any]) -> bool:
        try:
            if act() is None:
                return False
        except Refused as refused:
            self.refused[f"{verb} {refused.status} {refused.code}"] += 1
            if refused.status >= SERVER_ERROR and refused.status != UNAVAILABLE:
                self.broken.append(f"{verb}: {refused.status} {refused.code} {refused}")
            return False
        except Unreachable:
            self.refused[f"{verb} unreachable"] += 1
            return False
        self.done[verb] += 1
        return True

    def _until_done(self, verb: str, act: Callable[[Retrue], Any]) -> None:
        ends = time.monotonic() + PROMISED_S
        while time.monotonic() < ends:
            with Retrue(self._url, timeout_s=15.0) as client, suppress(Unreachable):
                if self._tried(verb, partial(act, client)):
                    return
            time.sleep(0.5)

    def _model(self) -> str:
        return self._random.choice(self._models)

    def _retrain(self, client: Retrue, model: str) -> Json | None:
        key = f"chaos-{self._random.getrandbits(64):x}"
        ends = time.monotonic() + PROMISED_S
        while True:
            # A broken connection leaves open whether it was taken: the same key asks for the same run.
            try:
                run = client.retrain(model, reason="chaos", force=True, key=key)
            except Unreachable:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.3)
                continue
            self.promised.append(run["id"])
            return run

    def _promote(self, client: Retrue, model: str) -> Json | None:
        champion = client.model(model)["champion"]
        others = [
            row["version"]
            for row in client.versions(model)
            if row["state"] in {"retired", "approved", "rejected"} and row["version"] != champion["version"]
        ]
        if not others:
            return None
        version = self._random.choice(others[:6])
        return client.promote(model, version, generation=champion["generation"], reason="chaos")

    def _rollback(self, client: Retrue, model: str) -> Json | None:
        return client.rollback(model, reason="chaos")

    def _cancel(self, client: Retrue, model: str) -> Json | None:
        """End a run that is at work; ask for one first if none is, and wait for it."""
        ends = time.monotonic() + 10.0
        asked = False
        while time.monotonic() < ends:
            for run in client.runs(limit=20):
                if run["state"] in {state.value for state in AT_WORK}:
                    return client.cancel(run["id"], reason="chaos")
            if not asked:
                asked = True
                with suppress(Refused):
                    self._retrain(client, model)
            time.sleep(0.1)
        return None

    def _decide(self, client: Retrue, _model: str) -> Json | None:
        waiting = [run for run in client.runs(limit=30) if run["state"] == RunState.AWAITING_APPROVAL.value]
        if not waiting:
            return None
        run = self._random.choice(waiting)
        if self._random.random() < 0.75:
            return client.approve(run["id"], reason="chaos")
        return client.reject(run["id"], reason="chaos")

    def _clear(self, client: Retrue, _model: str) -> Json | None:
        for model in self._models:
            switches = client.model(model)["switches"]
            for name in ("hold", "quarantine"):
                if name in switches:
                    client.clear_switch(model, name, reason="chaos")
                    return {}
        return None


def _paused(client: Retrue, *, model: str) -> Json:
    return client.set_switch(model, "pause", reason=OVER)


def _cleared(client: Retrue, *, model: str, switch: str) -> Json:
    return client.clear_switch(model, switch, reason=OVER)
