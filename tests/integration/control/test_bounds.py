"""What trainers and checks are given of the machine, and what they took: it is bound, and it is told."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.control.processes import Job, Kind, Processes, Surroundings

MIB = 1 << 20
TARGETS: dict[Kind, str] = {"files": "tests.children:surroundings", "check": "tests.children:surroundings"}
GROW: dict[Kind, str] = {"train": "tests.children:grow"}

Run = Callable[[Kind, Any], Job]


@contextmanager
def children(around: Surroundings, targets: dict[Kind, str], peaks: dict[Kind, int]) -> Iterator[Run]:
    processes = Processes(around, woken=lambda: None, targets=targets, peaked=peaks.__setitem__)

    def run(kind: Kind, task: Any) -> Job:
        job = processes.start(kind, "one", model="m", task=task)
        ends = time.monotonic() + 100
        while not job.is_over:
            assert time.monotonic() < ends
            time.sleep(0.01)
        assert job.exit_code == 0
        return job

    try:
        yield run
    finally:
        processes.stop_all()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no process to processors")
def test_trainers_and_checks_keep_to_their_processors_and_bounds_and_readers_of_files_are_free() -> None:
    here = sorted(os.sched_getaffinity(0))
    around = Surroundings(nice=7, cpus=(here[-1],), memory_bytes=700 * MIB)
    with children(around, TARGETS, {}) as run:
        (check,) = run("check", None).messages
        (files,) = run("files", None).messages
    assert check["warm"]
    assert check["threads"] == "1"
    assert check["cpus"] == [here[-1]]
    assert check["nice"] == 7
    assert files["cpus"] == here
    assert files["data"] != check["data"]
    assert check["data"] == pytest.approx(700 * MIB + check["untouched"], abs=16 * MIB)


def test_a_trainer_that_takes_more_than_its_bound_is_told_so_and_its_peak_is_known() -> None:
    peaks: dict[Kind, int] = {}
    with children(Surroundings(memory_bytes=600 * MIB), GROW, peaks) as run:
        assert list(run("train", 900 * MIB).messages) == ["no"]
        assert peaks["train"] < 600 * MIB
        job = run("train", 200 * MIB)
    assert list(job.messages) == [1.0]
    assert job.peak_bytes == peaks["train"] > 200 * MIB
