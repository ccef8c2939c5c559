"""Workers, supervisor and clients of a real service while some of them are killed, or told to end."""

import os
import signal
import threading
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.storage.spool import Dropped, read_segment, segments_of, streams
from tests.launched import NO_TLS, PREDICT, ROWS, Launched, is_alive, launched, prepared, until

pytestmark = pytest.mark.timeout(400)  # processes start slowly on a busy machine

GRACE_S = 10.0


def home_of(folder: Path) -> Path:
    prepared(folder / "home", f"sqlite:///{folder / 'home' / 'retrue.db'}").close()
    return folder / "home"


class Callers:
    """Clients that ask on and on, each on connections that it keeps."""

    def __init__(self, service: Launched, n: int) -> None:
        host, port = service.address
        self.url = f"http://{host}:{port}"
        self.answered: list[str] = []
        self.refused: list[tuple[int, str]] = []
        self.cut = 0
        """Connections that were reset or could not be made."""
        self.is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(n)]

    def _call(self) -> None:
        client = httpx.Client(base_url=self.url, timeout=15, verify=NO_TLS)
        while not self.is_over.is_set():
            try:
                response = client.post(PREDICT, json=ROWS)
            except httpx.TransportError:
                self.cut += 1
                client.close()
                client = httpx.Client(base_url=self.url, timeout=15, verify=NO_TLS)
                self.is_over.wait(0.01)
                continue
            if response.status_code == httpx.codes.OK:
                self.answered += response.json()["ids"]
            else:
                self.refused.append((response.status_code, response.text))
        client.close()

    @contextmanager
    def at_work(self) -> Iterator["Callers"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self.is_over.set()
            for thread in self._threads:
                thread.join(30)


def recorded(home: Path, found: set[str]) -> set[str]:
    """Return all ids of the lake, and of what is still in the spool."""
    from deltalake import DeltaTable

    from service.storage.ids import id_texts

    for stream in streams(home / "spool"):
        for segment in segments_of(stream, with_open=True):
            for record in read_segment(segment.path):
                if not isinstance(record, Dropped):
                    raw = record.ids
                    found |= set(raw if isinstance(raw, list) else id_texts(raw).astype(str).tolist())
    table = home / "lake" / "predictions" / "price"
    if table.is_dir():
        found |= set(DeltaTable(str(table)).to_pyarrow_table(columns=["id"])["id"].to_pylist())
    return found


def test_a_service_that_is_told_to_end_answers_what_it_accepted_and_is_gone_in_time(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with launched(home, workers=2) as service:
        slow, stalled = service.connect(), service.connect()
        with slow, stalled, Callers(service, 8).at_work() as callers:
            until(lambda: len(callers.answered) > 200)
            slow.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx".encode())
            stalled.sendall(b"GET /liv")
            taken = service.end()
            callers.is_over.set()
        assert taken < GRACE_S
        assert callers.refused == []
        pids = [line["pid"] for line in service.said("child_started")]
        assert not any(is_alive(pid) for pid in pids)
        assert service.said("child_killed") == []
    assert set(callers.answered) <= recorded(home, set())
    assert streams(home / "spool") == []  # all of it was committed


def has_begun_twice(service: Launched, child: str) -> bool:
    return len(service.said("worker_started", role=child)) == 2


def is_replaced(service: Launched, child: str, pid: int) -> bool:
    return service.pid(child) != pid


def has_no_file(folder: Path, pattern: str) -> bool:
    return not list(folder.glob(pattern))


def more_than(n: int, things: Sized) -> bool:
    return len(things) > n


def test_a_worker_that_is_killed_is_replaced_while_its_sibling_answers(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with launched(home, workers=2) as service, Callers(service, 6).at_work() as callers:
        until(lambda: len(service.said("worker_started")) == 2, what="both workers")
        for child in ("api-0", "api-1"):  # whichever of them the connections went to
            os.kill(service.pid(child), signal.SIGKILL)
            until(partial(has_begun_twice, service, child), what="another worker")
            until(partial(more_than, len(callers.answered) + 200, callers.answered), what="answers")
        callers.is_over.set()
        # Neither while it was away nor while it came up did anybody get another answer than a reset connection.
        assert callers.refused == []
        assert 0 < callers.cut < 50
    assert set(callers.answered) <= recorded(home, set())


def test_figures_of_a_killed_worker_are_kept_and_its_gauges_are_not(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with launched(home, workers=2) as service:
        for _ in range(40):
            assert service.predict().status_code == httpx.codes.OK
        counted = 'retrue_predictions_total{model="price"'
        before = until(lambda: service.metric(counted) == 40 and service.metric(counted))
        until(lambda: service.metric("retrue_workers") == 2)
        for child in ("api-0", "api-1"):
            pid = service.pid(child)
            assert list((home / "run").glob(f"gauge_*_{pid}.db"))
            os.kill(pid, signal.SIGKILL)
            until(partial(is_replaced, service, child, pid))
            until(partial(has_no_file, home / "run", f"gauge_live*_{pid}.db"))
            assert list((home / "run").glob(f"counter_{pid}.db"))
            until(service.is_ready)
            assert service.metric(counted) == before
        assert service.predict().status_code == httpx.codes.OK
        assert service.metric(counted) == before + 1
        assert service.metric('retrue_restarts_total{role="api"}') == 2


def test_children_of_a_killed_supervisor_leave_and_the_next_one_waits_for_them(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with launched(home, workers=2) as service:
        host, port = service.address
        pids = [service.pid(name) for name in ("api-0", "api-1", "committer")]
        stalled = service.connect()
        with stalled:
            stalled.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx".encode())
            service.process.kill()
            service.process.wait()
            with launched(home, host=host, port=port) as again:  # the same port, at once
                assert again.predict().status_code == httpx.codes.OK
                assert not any(is_alive(pid) for pid in pids)
                assert again.process.poll() is None


def test_a_worker_that_is_told_to_end_while_it_starts_ends(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with launched(home, ready=False) as service:
        service.pid("api-0")
        assert service.end() < 5
        assert service.said("child_killed") == []


def test_answers_that_wait_for_the_disk_are_recorded_and_answered(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    with launched(home, spool_sync="true") as service, Callers(service, 4).at_work() as callers:
        until(lambda: len(callers.answered) > 100)
        labels = {"labels": [{"id": callers.answered[0], "label": 1.0}]}
        assert service.request("POST", "/v1/models/price/feedback", json=labels).status_code == 202
        before = service.pid("api-0")
        os.kill(before, signal.SIGKILL)
        until(lambda: service.pid("api-0") != before and service.is_ready())
        callers.is_over.set()
    assert callers.refused == []
    assert set(callers.answered) <= recorded(home, set())


ENDLESS = """
import time

from sklearn.base import BaseEstimator, RegressorMixin

from service.spec import ModelSpec, Training


class Endless(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        time.sleep(600)

    def predict(self, X):
        return [0.0] * len(X)


spec = ModelSpec(
    name="endless", task="regression", target="y", timestamp="at", build=Endless, metric="neg_mean_absolute_error",
    source="data/endless.csv", training=Training(initial="28d", windows=("all",), holdout="2d", min_rows=50),
)
"""


def test_a_service_ends_in_time_though_a_run_trains_and_somebody_follows_it(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    (home / "models").mkdir()
    (home / "data").mkdir()
    (home / "models" / "endless.py").write_text(ENDLESS)
    hours = range(24 * 20)
    rows = [f"2026-01-{1 + n // 24:02d}T{n % 24:02d}:00:00Z,{n % 7},{n % 5}" for n in hours]
    (home / "data" / "endless.csv").write_text("\n".join(["at,x,y", *rows]))

    with launched(home, role="serve") as service:

        def training() -> Any:
            runs = service.request("GET", "/v1/runs?model=endless")
            return runs.status_code == 200 and [run for run in runs.json()["runs"] if run["state"] == "training"]

        run = until(training, within_s=200, what="training")[0]
        with service.connect() as following, service.connect() as slow:
            following.sendall(f"GET /v1/runs/{run['id']}/events?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            told = b""
            while b"training" not in told:
                told += following.recv(65536)
            slow.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx".encode())
            assert service.predict().status_code == httpx.codes.OK
            taken = service.end()
            rest = b""
            while part := following.recv(65536):
                rest += part
        assert taken < GRACE_S
        assert rest.endswith(b"0\r\n\r\n")  # a stream that ended, not one that was cut
        assert service.said("child_killed") == []
        assert not any(is_alive(line["pid"]) for line in service.said("child_started"))
