"""The clockwork: a look that breaks does not stop the next, and a nudge never gets lost."""

import threading

from service.control.tick import Oddity, Tick


def test_a_look_that_breaks_is_counted_and_the_next_one_comes() -> None:
    seen: list[tuple[str, Oddity]] = []
    twice = threading.Event()
    calls: list[int] = []

    def look() -> None:
        calls.append(1)
        if len(calls) > 1:
            twice.set()
        raise RuntimeError

    tick = Tick(lambda name, what: seen.append((name, what)))
    tick.add("look", look, every_s=0.05)
    tick.start()
    assert twice.wait(5)
    tick.stop()
    assert ("look", "error") in seen


def test_a_nudge_during_a_look_makes_it_look_again() -> None:
    started, go_on, again = threading.Event(), threading.Event(), threading.Event()
    calls: list[int] = []

    def look() -> None:
        calls.append(1)
        started.set()
        if len(calls) > 1:
            again.set()
        go_on.wait(5)

    odd: list[Oddity] = []
    tick = Tick(lambda _, what: odd.append(what))
    tick.add("look", look, every_s=600)
    tick.start()
    assert started.wait(5)
    tick.nudge("look")
    go_on.set()
    assert again.wait(5)
    tick.stop()
    assert odd == []


def test_a_nudge_between_looks_does_not_wait_for_the_period() -> None:
    calls = threading.Semaphore(0)
    tick = Tick(lambda *_: None)
    tick.add("look", calls.release, every_s=600)
    tick.start()
    assert calls.acquire(timeout=5)
    tick.nudge("look")
    assert calls.acquire(timeout=5)
    tick.stop()
