"""Two workers behind one port: whichever is scraped tells the figures of both, before and after they were killed."""

import os
import signal
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.launched import Launched, launched, prepared, until

pytestmark = pytest.mark.timeout(400)  # processes start slowly on a busy machine

COUNTED = 'retrue_predictions_total{model="price"'


def series(service: Launched) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return all samples of one scrape, over a connection of its own."""
    families = text_string_to_metric_families(service.request("GET", "/metrics").text)
    return {
        (one.name, tuple(f"{key}={value}" for key, value in sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def is_whole(service: Launched) -> bool:
    return (
        service.is_ready() and service.metric("retrue_workers") == 2 and service.metric("retrue_serving_lagging") == 0
    )


def has_begun(service: Launched, child: str, times: int) -> bool:
    return len(service.said("worker_started", role=child)) == times


def test_whichever_worker_is_scraped_tells_the_figures_of_both_and_no_series_comes_with_a_restart(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    prepared(home, f"sqlite:///{home / 'retrue.db'}").close()
    with launched(home, workers=2) as service:
        until(partial(is_whole, service), what="both workers")
        for _ in range(30):
            assert service.predict().status_code == httpx.codes.OK
        until(lambda: service.metric(COUNTED) == 30, what="all that was counted")
        assert {service.metric(COUNTED) for _ in range(12)} == {30}
        until(lambda: service.metric("retrue_committed_rows_total") == 30, what="all that was committed")
        before = series(service)
        for child in ("api-0", "api-1"):
            os.kill(service.pid(child), signal.SIGKILL)
            until(partial(has_begun, service, child, 2), what="another worker")
        until(partial(is_whole, service), what="both workers again")
        for _ in range(12):
            assert service.predict().status_code == httpx.codes.OK
        until(lambda: service.metric(COUNTED) == 42, what="all that was counted")
        # A killed worker passes for alive until its last heartbeat is old; only then is it known who stands in for it.
        after: dict[tuple[str, tuple[str, ...]], float] = {}

        def is_as_before() -> bool:
            after.clear()
            after.update(series(service))
            # Restarts are counted, and so is that nobody was ready meanwhile.
            come = {name for name, _ in set(after) ^ set(before)}
            return come <= {"retrue_restarts_total", "retrue_http_responses_total"}

        until(is_as_before, what="the series that there were before, and no other")
    fallen = [key for key, value in before.items() if key[0].endswith(("_total", "_count")) and after[key] < value]
    assert fallen == []
