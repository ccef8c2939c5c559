"""Child processes that the test plays itself."""

import time
from typing import Any

from service.control.processes import Job, Kind, Processes, Surroundings

__all__ = ["FakeProcesses"]


class FakeJob(Job):
    """A child whose messages and end the test decides."""

    was_asked = False
    was_killed = False

    def ask_to_leave(self) -> None:
        self.was_asked = True

    def kill(self) -> None:
        self.was_killed = True


class FakeProcesses(Processes):
    """Starts nothing, remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(Surroundings(), woken=lambda: None)
        self.tasks: list[Any] = []

    def start(self, kind: Kind, key: str, *, model: str, task: Any) -> Job:
        self.tasks.append(task)
        job = FakeJob(kind=kind, key=key, model=model, started=time.monotonic(), process=None)
        self._jobs[kind, key] = job
        return job

    def job(self, kind: Kind) -> FakeJob:
        job = self.of_kind(kind)[-1]
        assert isinstance(job, FakeJob)
        return job
