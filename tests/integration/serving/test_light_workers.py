"""What a worker loads and holds: as little as the versions that it serves allow."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from service.domain.spec import Schema
from service.learning.compiled import compile_
from service.learning.predictor import Predictor
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from tests.launched import ROWS, Launched, launched, until
from tests.served import PRICE, crown, named, pack, register

pytestmark = pytest.mark.timeout(400)  # processes start slowly on a busy machine

MIB = 1 << 20
HEAVY = {"pandas", "pyarrow", "deltalake", "evidently"}
KINDS: dict[str, Callable[[], Any]] = {
    "boosting": lambda: HistGradientBoostingRegressor(max_iter=20, random_state=0),
    "forest": lambda: RandomForestRegressor(20, random_state=0),
    "linear": lambda: make_pipeline(StandardScaler(), LinearRegression()),
    "near": KNeighborsRegressor,
    "vectors": SVR,
}


def home_of(home: Path, kinds: dict[str, Callable[[], Any]], *, is_compiled: bool) -> Path:
    """Make a home in which each kind has a champion."""
    database = Database(f"sqlite:///{home / 'retrue.db'}")
    home.mkdir()
    database.migrate()
    store = ArtifactStore(home / "artifacts")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 8))
    for name, make in kinds.items():
        schema = named(PRICE, name)
        estimator = make().fit(X, X.sum(axis=1))
        row = pack(store, schema, estimator)
        if is_compiled:
            row = replace(row, manifest={**row.manifest, "compiled": {"artifact": store.put(graph(schema, estimator))}})
        register(database, schema)
        crown(database, row)
    database.close()
    return home


def graph(schema: Schema, estimator: Any) -> bytes:
    return compile_(Predictor(estimator=estimator, schema=schema, output_mode="predict"))


def libraries(pid: int) -> set[str]:
    """Return the packages whose native code a process has mapped; those that matter here all have some."""
    return set(re.findall(r"site-packages/([A-Za-z]+)/", Path(f"/proc/{pid}/maps").read_text()))


def resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def processor_s(pid: int) -> float:
    """Return what a process has computed: the time that it takes to start on a machine with nothing else to do."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def started(service: Launched) -> int:
    """Return the worker's process id, once it serves."""
    until(lambda: service.said("worker_started"), what="the worker started")
    return service.pid("api-0")


def answers(service: Launched, kinds: dict[str, Any]) -> dict[str, int]:
    return {kind: service.request("POST", f"/v1/models/{kind}/predict", json=ROWS).status_code for kind in kinds}


def test_a_worker_of_compiled_versions_is_small_and_loads_no_learning_library(tmp_path: Path) -> None:
    kinds = {kind: KINDS[kind] for kind in ("boosting", "forest", "linear")}
    with launched(home_of(tmp_path / "home", kinds, is_compiled=True), ready=False) as service:
        pid = started(service)
        spent = processor_s(pid)
        assert answers(service, kinds) == dict.fromkeys(kinds, 200)
        assert libraries(pid) & (HEAVY | {"sklearn", "scipy", "joblib"}) == set()
        assert "onnxruntime" in libraries(pid)
        assert resident(pid) <= 150 * MIB
        print(f"compiled: {spent:.2f} s, {resident(pid) / MIB:.0f} MiB")  # noqa: T201  pytest shows it with -s


def test_a_worker_of_originals_loads_no_frames_with_them_and_all_of_them_at_once(tmp_path: Path) -> None:
    with launched(home_of(tmp_path / "home", KINDS, is_compiled=False), ready=False) as service:
        pid = started(service)
        spent = processor_s(pid)
        # Loaded by threads, at once, while none of their modules was there: all of them, and none only later.
        assert {line["model"] for line in service.said("version_loaded")} == set(KINDS)
        assert service.said("version_load_failed") == []
        assert answers(service, KINDS) == dict.fromkeys(KINDS, 200)
        assert libraries(pid) & HEAVY == set()
        assert "sklearn" in libraries(pid)
        assert resident(pid) <= 260 * MIB
        print(f"originals: {spent:.2f} s, {resident(pid) / MIB:.0f} MiB")  # noqa: T201


def test_a_step_that_looks_for_pandas_null_finds_it(tmp_path: Path) -> None:
    kinds = {"imputed": lambda: make_pipeline(SimpleImputer(), LinearRegression())}
    with launched(home_of(tmp_path / "home", kinds, is_compiled=False), ready=False) as service:
        pid = started(service)
        assert answers(service, kinds) == {"imputed": 200}
        assert "pandas" in libraries(pid)
