"""The API outlives its neighbours: database and controller may go, hang and come back while predictions go on."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.storage import champions, replicas
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from tests import postgres
from tests.launched import Launched, launched, prepared, until
from tests.postgres import PostgresMissing, Unsteady
from tests.served import PRICE, crown, pack, price

pytestmark = pytest.mark.timeout(400)  # processes start slowly on a busy machine

SOON_S = 3.0
"""What a caller waits at most for the word that the database is away: 1.5 s, and what a busy machine adds."""


@pytest.fixture
def server() -> Iterator[Unsteady]:
    try:
        with postgres.unsteady() as one:
            one.start()
            yield one
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def timed(service: Launched, method: str, path: str, **arguments: Any) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    response = service.request(method, path, **arguments)
    return response, time.monotonic() - began


def goes_on(service: Launched, *, n: int = 20) -> None:
    """Assert that predictions and labels are taken, quickly, and that the service says it is ready."""
    worst = 0.0
    for _ in range(n):
        began = time.monotonic()
        answer = service.predict()
        assert answer.status_code == httpx.codes.OK
        labels = {"labels": [{"id": answer.json()["ids"][0], "label": 1.0}]}
        assert service.request("POST", "/v1/models/price/feedback", json=labels).status_code == 202
        worst = max(worst, time.monotonic() - began)
    assert worst < 2.0  # sooner than any time-out of the database ends
    assert service.request("GET", "/readyz").status_code == httpx.codes.OK


def refuses_states(service: Launched) -> None:
    """Assert that questions about the state are refused soon, and never hang."""
    for path in ("/v1/models", "/v1/models/price", "/v1/runs", "/v1/audit", "/v1/runs/x/events"):
        response, taken = timed(service, "GET", path)
        assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json"), path
        assert response.json()["code"] == "database-unavailable"
        assert int(response.headers["retry-after"]) > 0
        assert taken < SOON_S
    response, taken = timed(service, "POST", "/v1/models/price/runs", json={})
    assert (response.status_code, taken < 10) == (503, True)
    _, taken = timed(service, "GET", "/metrics")
    assert taken < SOON_S


def all_on(generations: Callable[[], set[int | None]], wanted: int) -> bool:
    return generations() == {wanted}


def comes_back(service: Launched) -> None:
    until(lambda: service.request("GET", "/v1/models").status_code == httpx.codes.OK, what="the way back")
    assert service.metric("retrue_degraded") == 0
    assert service.said("database_back")


def test_a_database_that_stops_and_starts_again_costs_no_prediction(server: Unsteady, tmp_path: Path) -> None:
    home = tmp_path / "home"
    database = prepared(home, server.url)
    with launched(home, url=server.url) as service:
        for _ in range(2):
            server.stop()
            refuses_states(service)
            until(lambda: service.metric("retrue_degraded") == 1, what="degraded")
            goes_on(service)
            until(lambda: service.metric("retrue_database_up") == 0, what="a scrape without the database")
            server.start()
            comes_back(service)
        # What changed meanwhile is followed.
        crown(database, pack(ArtifactStore(home / "artifacts"), PRICE, price(1), number=2))
        until(lambda: service.predict().json()["version"] == 2, what="version 2")
    database.close()


def test_a_database_that_hangs_costs_no_prediction_and_no_thread(server: Unsteady, tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepared(home, server.url).close()
    with launched(home, url=server.url) as service:
        assert service.request("GET", "/v1/models").status_code == httpx.codes.OK
        server.signal(signal.SIGSTOP)
        began = time.monotonic()
        refuses_states(service)
        until(lambda: service.metric("retrue_degraded") == 1, within_s=10)
        for _ in range(60):  # more than there are threads for such questions
            assert timed(service, "GET", "/v1/models")[1] < SOON_S
        goes_on(service)
        assert time.monotonic() - began < 60
        server.signal(signal.SIGCONT)
        comes_back(service)
        goes_on(service)


def test_a_sqlite_file_that_is_moved_away_and_back_costs_no_prediction(tmp_path: Path) -> None:
    home = tmp_path / "home"
    state = tmp_path / "state"
    state.mkdir()
    prepared(home, f"sqlite:///{state / 'retrue.db'}").close()
    with launched(home, url=f"sqlite:///{state / 'retrue.db'}") as service:
        state.rename(tmp_path / "elsewhere")
        until(lambda: service.metric("retrue_degraded") == 1, what="degraded")
        refuses_states(service)
        goes_on(service)
        assert not state.exists()
        (tmp_path / "elsewhere").rename(state)
        comes_back(service)


def test_a_worker_that_starts_while_the_database_is_away_comes_up_on_the_last_good_champion(
    server: Unsteady, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    database = prepared(home, server.url)
    store = ArtifactStore(home / "artifacts")
    with launched(home, url=server.url) as service:
        crown(database, pack(store, PRICE, price(1), number=2))
        until(lambda: service.predict().json()["version"] == 2, what="version 2")
        server.stop()
        before = service.pid("api-0")
        os.kill(before, signal.SIGKILL)
        until(lambda: service.pid("api-0") != before and service.is_ready(), what="another worker")
        answer = service.predict().json()
        assert (answer["version"], answer["generation"]) == (2, 2)
        goes_on(service)
        server.start()
        comes_back(service)
        crown(database, pack(store, PRICE, price(2), number=3))
        until(lambda: service.predict().json()["version"] == 3)
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_service_that_starts_before_its_database_waits_with_a_word_and_then_starts(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    home = tmp_path / "home"
    begin: Callable[[], object]
    if kind == "postgresql":
        server: Unsteady = request.getfixturevalue("server")
        prepared(home, server.url).close()
        server.stop()
        url, begin = server.url, server.start
    else:
        away, state = tmp_path / "away", tmp_path / "state"
        away.mkdir()
        prepared(home, f"sqlite:///{away / 'retrue.db'}").close()
        url, begin = f"sqlite:///{state / 'retrue.db'}", partial(away.rename, state)
    with launched(home, url=url, ready=False) as service:
        # A word every few seconds, from who waits.
        until(lambda: len(service.said("waiting_for_database", role="api-0")) >= 2, within_s=30)
        first, second, *_ = service.said("waiting_for_database", role="api-0")
        assert "password" not in first["database"]
        assert second["at"] > first["at"]
        assert service.said("child_died") == []
        begin()
        until(service.is_ready)
        goes_on(service, n=3)


def test_without_a_controller_nothing_changes_for_callers(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepared(home, f"sqlite:///{home / 'retrue.db'}").close()
    with launched(home, role="serve") as service:
        pid = service.pid("controller")
        os.kill(pid, signal.SIGSTOP)  # it neither works nor is replaced
        goes_on(service)
        assert service.request("GET", "/v1/models").status_code == httpx.codes.OK
        assert service.metric("retrue_degraded") == 0
        os.kill(pid, signal.SIGKILL)
        goes_on(service)
        until(lambda: service.pid("controller") != pid)


def test_a_rollback_by_hand_reaches_all_workers_within_a_second(tmp_path: Path) -> None:
    home = tmp_path / "home"
    database = prepared(home, f"sqlite:///{home / 'retrue.db'}")
    store = ArtifactStore(home / "artifacts")

    def generations() -> set[int | None]:
        with database.read() as conn:
            return {held.generation for held in replicas.serving(conn, "price")}

    with launched(home, workers=2) as service:
        until(lambda: generations() == {1})
        crown(database, pack(store, PRICE, price(1), number=2))
        until(lambda: generations() == {2})
        for path in store.root.iterdir():
            path.unlink()  # nothing is read: the bundle is warm
        with database.read() as conn:
            versions_before = {held.version for held in replicas.serving(conn, "price")}
        assert versions_before == {2}
        for target in (1, 2, 1, 2, 1):
            with database.read() as conn:
                current = champions.current(conn, "price")
            assert current is not None
            response = service.request("POST", "/v1/models/price/rollback", json={"to": target, "reason": "test"})
            assert response.status_code == httpx.codes.OK, response.text
            until(partial(all_on, generations, current.generation + 1))
    database.close()


def test_a_sqlite_file_is_never_made_where_one_is_missing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'retrue.db'}")
    with pytest.raises(Exception, match="does not answer"), database.read():
        pass
    assert not (tmp_path / "retrue.db").exists()
    database.close()
