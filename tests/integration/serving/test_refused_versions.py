"""Versions that are not what they say: each is refused with its reason and quarantined, and the old one serves on."""

import io
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from sklearn.linear_model import LinearRegression

from service.control import promotion
from service.control.leader import Leader
from service.domain.errors import ArtifactInvalid
from service.domain.version import VersionState
from service.serving.recent import Recent
from service.serving.replica import Replica
from service.serving.slot import Slots
from service.serving.trials import Trials
from service.storage import champions, versions
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.versions import VersionRow
from service.telemetry import Telemetry
from tests.estimators import Crashes, Exits, Hangs, HangsHoldingTheInterpreter, Nan, SlowToLoad
from tests.launched import ROWS, Launched, launched, prepared, until
from tests.served import PRICE, crown, pack, price

pytestmark = pytest.mark.timeout(400)  # processes start slowly on a busy machine


class Fleet:
    """A real worker that serves version 1, and the controller's part played by the test."""

    def __init__(self, service: Launched, database: Database) -> None:
        self.service, self.database = service, database
        self.store = ArtifactStore(service.home / "artifacts")
        self._numbers = itertools.count(2)
        self._leader = Leader(database)

    def pack(self, estimator: Any) -> VersionRow:
        return pack(self.store, PRICE, estimator, number=next(self._numbers))

    def promote(self, row: VersionRow) -> tuple[str | None, str | None]:
        """Try to make the version champion; return the outcome and the swap's error."""
        term = self._leader.step()
        assert term is not None
        with self.database.write() as conn:
            versions.insert(conn, row)
            current = champions.current(conn, "price")
            assert current is not None
            swap_id = champions.request_swap(
                conn, "price", version=row.version, expected_generation=current.generation, actor="test",
                reason="test", kind="promote", run_id=None, event_time=None, at=self.database.now(conn),
            )  # fmt: skip

        def moved() -> str | None:
            assert self._leader.step() is not None
            with self.database.read() as conn:
                swap = champions.find_swap(conn, swap_id)
            assert swap is not None
            return promotion.advance(term, swap)

        outcome = until(moved, within_s=150, what="the swap's end")
        with self.database.read() as conn:
            swap = champions.find_swap(conn, swap_id)
        assert swap is not None
        return outcome, swap.error


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home = tmp_path_factory.mktemp("home")
    database = prepared(home, f"sqlite:///{home / 'retrue.db'}")
    with launched(home) as service:
        yield Fleet(service, database)
    database.close()


def on_disk(fleet: Fleet, row: VersionRow) -> Path:
    path = fleet.store.root / row.artifact
    path.chmod(0o644)
    return path


def truncated(fleet: Fleet) -> VersionRow:
    row = fleet.pack(price(11))
    path = on_disk(fleet, row)
    path.write_bytes(path.read_bytes()[:-1])
    return row


def with_a_flipped_bit(fleet: Fleet) -> VersionRow:
    row = fleet.pack(price(12))
    path = on_disk(fleet, row)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    return row


def missing(fleet: Fleet) -> VersionRow:
    row = fleet.pack(price(13))
    fleet.store.delete(row.artifact)
    return row


def nonsense(fleet: Fleet) -> VersionRow:
    return replace(fleet.pack(price(14)), artifact=fleet.store.put(b"nonsense"))


def of_another_version(fleet: Fleet) -> VersionRow:
    other = pack(fleet.store, PRICE, price(16))
    return replace(fleet.pack(price(15)), artifact=other.artifact)


def made_with_another_library_by_its_manifest(fleet: Fleet) -> VersionRow:
    row = fleet.pack(price(17))
    return replace(row, manifest={**row.manifest, "libraries": {"scikit-learn": "0.0.1"}})


def made_with_another_library_by_its_own_word(fleet: Fleet) -> VersionRow:
    row, buffer = fleet.pack(price(18)), io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklearn.base.__version__", "0.0.1")
        joblib.dump(price(18), buffer)
    return replace(row, artifact=fleet.store.put(buffer.getvalue()))


def with_a_feature_too_few(fleet: Fleet) -> VersionRow:
    buffer = io.BytesIO()
    joblib.dump(LinearRegression().fit(np.eye(7), np.arange(7)), buffer)
    return replace(fleet.pack(price(19)), artifact=fleet.store.put(buffer.getvalue()))


def with_features_in_another_order(fleet: Fleet) -> VersionRow:
    row = fleet.pack(price(20))
    schema = replace(PRICE, features=(PRICE.features[1], PRICE.features[0], *PRICE.features[2:]))
    return replace(row, manifest={**row.manifest, "schema": schema.to_json()})


def with_another_golden_answer(fleet: Fleet) -> VersionRow:
    row = fleet.pack(price(21))
    golden = row.manifest["golden"]
    outputs = [golden["outputs"][0] + 1e-3, *golden["outputs"][1:]]
    return replace(row, manifest={**row.manifest, "golden": {**golden, "outputs": outputs}})


def that_crashes_on_load(fleet: Fleet) -> VersionRow:
    return fleet.pack(Crashes())


def that_exits_on_load(fleet: Fleet) -> VersionRow:
    return fleet.pack(Exits())


def that_has_no_number_for_recent_rows(fleet: Fleet) -> VersionRow:
    # More than are passed over: only one batch in so many is kept.
    for _ in range(40):
        answer = fleet.service.request("POST", "/v1/models/price/predict", json={"instances": [[1000.0] * 8]})
        assert answer.status_code == httpx.codes.OK
    return fleet.pack(Nan())


REFUSED: list[tuple[Callable[[Fleet], VersionRow], str, str]] = [
    (truncated, "altered", "was altered"),
    (with_a_flipped_bit, "altered", "was altered"),
    (missing, "missing", "is missing"),
    (nonsense, "unpickle", "can't be loaded"),
    (of_another_version, "golden", "golden rows"),
    (made_with_another_library_by_its_manifest, "libraries", "scikit-learn 0.0.1"),
    (made_with_another_library_by_its_own_word, "unpickle", "InconsistentVersionWarning"),
    (with_a_feature_too_few, "features", "7 features"),
    (with_features_in_another_order, "golden", "golden rows"),
    (with_another_golden_answer, "golden", "golden rows"),
    (that_crashes_on_load, "crash", "SIGSEGV"),
    (that_exits_on_load, "crash", "exit code 0"),
    (that_has_no_number_for_recent_rows, "warm", "no finite number"),
]


@pytest.mark.parametrize(("made", "reason", "words"), REFUSED, ids=[made.__name__ for made, *_ in REFUSED])
def test_a_version_that_is_not_what_it_says_is_refused_with_its_reason_and_quarantined(
    fleet: Fleet, made: Callable[[Fleet], VersionRow], reason: str, words: str
) -> None:
    service, counted = fleet.service, f'retrue_loads_total{{model="price",outcome="{reason}"}}'
    pid, before, row = service.pid("api-0"), service.metric(counted), made(fleet)
    was = service.predict().json()
    outcome, error = fleet.promote(row)
    assert outcome == "failed"
    assert words in (error or "")
    with fleet.database.read() as conn:
        assert versions.get(conn, "price", row.version).state is VersionState.QUARANTINED
    assert service.metric(counted) == before + 1
    now = service.predict().json()
    for word in ("version", "generation", "predictions"):
        assert now[word] == was[word]
    assert service.request("GET", "/readyz").status_code == httpx.codes.OK
    assert (service.pid("api-0"), service.said("child_died")) == (pid, [])


def test_a_version_that_takes_long_to_load_is_promoted_and_nobody_waits_for_it(fleet: Fleet) -> None:
    """Three seconds of Python that let no other thread run but by turns."""
    row = fleet.pack(SlowToLoad())
    taken: list[float] = []
    is_over = threading.Event()

    def ask() -> None:
        host, port = fleet.service.address
        with httpx.Client(base_url=f"http://{host}:{port}") as client:
            while not is_over.is_set():
                began = time.perf_counter()
                assert client.post("/v1/models/price/predict", json=ROWS).status_code == httpx.codes.OK
                taken.append(time.perf_counter() - began)

    asking = threading.Thread(target=ask)
    asking.start()
    outcome, _ = fleet.promote(row)
    is_over.set()
    asking.join()
    assert outcome == "committed"
    until(lambda: fleet.service.predict().json()["version"] == row.version)
    # A worker that loaded in its loop would have kept somebody waiting for all of it.
    assert max(taken) < 2.5


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


@pytest.mark.parametrize("estimator", [Hangs(), HangsHoldingTheInterpreter()])
def test_a_load_that_never_ends_is_ended_in_its_trial(tmp_path: Path, store: ArtifactStore, estimator: Any) -> None:
    trials = Trials(tmp_path / "trials", store, deadline_s=12)
    row = pack(store, PRICE, estimator)
    with pytest.raises(ArtifactInvalid) as refused:
        trials.prove(row, None)
    assert (refused.value.facts["reason"], "did not end" in refused.value.detail) == ("hang", True)


def test_a_trial_is_held_once_for_all_workers_of_a_host(tmp_path: Path, store: ArtifactStore) -> None:
    row = pack(store, PRICE, price())
    modules = Trials(tmp_path / "trials", store).prove(row, None)
    assert "sklearn.linear_model" in modules
    store.delete(row.artifact)  # another worker's trial would not find it
    assert Trials(tmp_path / "trials", store).prove(row, None) == modules


def test_a_version_that_killed_a_worker_is_tried_before_the_next_one_loads_it(
    tmp_path: Path, store: ArtifactStore
) -> None:
    database = prepared(tmp_path, f"sqlite:///{tmp_path / 'retrue.db'}", champion=False)
    row = pack(store, PRICE, Crashes())
    crown(database, row)
    folder = tmp_path / "run"
    trials = Trials(folder / "trials", store)
    assert not trials.has_killed(row)
    with trials.loading(row):
        mark = next((folder / "trials").glob("*.loading"))
        # As a process leaves it that died meanwhile: no process has that number.
        mark.with_name(mark.name.replace(str(mark.name.split(".")[1]), "4194305")).touch()
    slots = Slots()
    replica = Replica(
        database, store, slots=slots, telemetry=Telemetry(CollectorRegistry()), index=0,
        recent=lambda _: Recent(), folder=folder,
    )  # fmt: skip
    replica.look()  # loaded right away it would take this very process down
    assert not slots.serves
    assert replica.has_looked.is_set()
    database.close()
