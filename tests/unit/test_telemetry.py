"""Tallies: what is added up between two flushes is what one event after the other would have counted."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from service.telemetry import FAST, Telemetry, exposition

EDGES = st.sampled_from(FAST)
SECONDS = st.lists(st.one_of(st.floats(0, 20, allow_nan=False), EDGES), max_size=20)


def figures(telemetry: Telemetry, name: str) -> dict[str, float]:
    telemetry.flush()
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for metric in telemetry.registry.collect()
        for sample in metric.samples
        if sample.name.startswith(name) and not sample.name.endswith("_created")
    }


@given(parts=st.lists(SECONDS, max_size=3))
def test_a_tally_of_times_is_the_histogram_that_was_told_each(parts: list[list[float]]) -> None:
    added, told = Telemetry(CollectorRegistry()), Telemetry(CollectorRegistry())
    tally = added.timing(added.request_seconds.labels("m", "predict"))
    for part in parts:
        for seconds in part:
            tally.observe(seconds)
            told.request_seconds.labels("m", "predict").observe(seconds)
        added.flush()
    told.request_seconds.labels("m", "predict")
    found, wanted = figures(added, "retrue_request_seconds"), figures(told, "retrue_request_seconds")
    assert found.keys() == wanted.keys()
    assert [found[key] for key in sorted(found)] == pytest.approx([wanted[key] for key in sorted(wanted)])


def test_what_threads_count_while_others_flush_is_counted_once() -> None:
    telemetry = Telemetry(CollectorRegistry())
    count = telemetry.counting(telemetry.predictions.labels("m", "champion"))
    times = telemetry.timing(telemetry.predict_seconds.labels("m"))
    is_over = threading.Event()

    def work() -> None:
        for _ in range(20_000):
            count.inc(2)
            times.observe(0.003)

    def flush() -> None:
        while not is_over.is_set():
            telemetry.flush()

    flusher = threading.Thread(target=flush)
    workers = [threading.Thread(target=work) for _ in range(3)]
    for thread in (flusher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    is_over.set()
    flusher.join()
    telemetry.flush()
    assert (
        telemetry.registry.get_sample_value("retrue_predictions_total", {"model": "m", "role": "champion"}) == 120_000
    )
    assert telemetry.registry.get_sample_value("retrue_predict_seconds_count", {"model": "m"}) == 60_000


def test_a_scrape_tells_what_its_process_has_counted_until_then() -> None:
    telemetry = Telemetry(CollectorRegistry())
    telemetry.counting(telemetry.predictions.labels("m", "champion")).inc(3)
    assert b'retrue_predictions_total{model="m",role="champion"} 3.0' in exposition(telemetry)
