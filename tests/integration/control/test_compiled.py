"""Compiling behind the controller with a real trainer: two artifacts, both named, both verdicts told."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from service.api.metrics import samples
from service.domain.version import VersionState
from service.learning.graph import Classifier, open_graph
from service.learning.package import unpack
from service.storage import versions
from service.storage.artifacts import ArtifactStore
from tests.looped import Loop

SPEC = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from service.spec import Gate, ModelSpec, Training
spec = ModelSpec(
    name="{name}", task="classification", target="y", timestamp="at", build=lambda: {build}, metric="accuracy",
    source="data/shop.parquet", gate=Gate(floor=0.5),
    training=Training(windows=("all",), holdout="7d", min_rows=100),
)
"""


SQUARES = "make_pipeline(PolynomialFeatures(), LogisticRegression())"


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("compiled")
    project = folder / "project"
    (project / "models").mkdir(parents=True)
    (project / "data").mkdir()
    for name, build in (("shop", "LogisticRegression()"), ("squares", SQUARES)):
        (project / "models" / f"{name}.py").write_text(SPEC.format(name=name, build=build))
    rng = np.random.default_rng(0)
    at = pd.date_range("2026-01-01", periods=24 * 7 * 6, freq="1h", tz="UTC")
    x = rng.normal(size=(len(at), 3))
    y = np.where(x[:, 0] + rng.normal(size=len(at)) * 0.4 > 0, "up", "down")
    frame = {"at": at, "x": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y}
    pd.DataFrame(frame).to_parquet(project / "data" / "shop.parquet")
    loop = Loop(folder, "shop")
    yield loop
    loop.close()


def test_a_proved_graph_is_a_second_artifact_and_lineage_names_both(loop: Loop) -> None:
    row = loop.until(lambda conn: versions.find(conn, "shop", 1), within_s=100)
    store = ArtifactStore(loop.place.artifacts)
    manifest, lineage = row.manifest["compiled"], row.lineage["artifact"]
    assert row.compiled == "proved"
    assert lineage["sha256"] == row.artifact != manifest["artifact"]
    assert lineage["compiled"]["sha256"] == manifest["artifact"]
    assert lineage["compiled"]["outcome"] == "proved"
    assert lineage["compiled"]["rows"] > 24 * 7
    assert set(manifest["libraries"]) == {"onnx", "onnxruntime", "skl2onnx"}
    X = np.random.default_rng(1).normal(size=(50, 3))
    expected = unpack(store.read(row.artifact)).predict_proba(X)
    graph = open_graph(store.read(manifest["artifact"]))
    assert isinstance(graph, Classifier)
    found = graph.predict_proba(X)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    loop.until(lambda conn: ("champion_compiled", ("shop",), 1.0) in list(samples(conn)))


def test_a_version_that_is_refused_is_approved_all_the_same_and_says_why(loop: Loop) -> None:
    row = loop.until(lambda conn: versions.find(conn, "squares", 1), within_s=100)
    assert row.compiled == "refused"
    assert "it can't be converted" in row.manifest["compiled"]["refused"]
    assert row.lineage["artifact"]["compiled"]["reason"] == row.manifest["compiled"]["refused"]
    loop.until(lambda conn: versions.get(conn, "squares", 1).state is VersionState.APPROVED)


def test_each_run_that_made_a_version_counts_what_came_of_compiling_it(loop: Loop) -> None:
    loop.until(lambda _: counted(loop).get(("shop", "proved")) == 1.0)


def counted(loop: Loop) -> dict[tuple[str, str], float]:
    """Return how often the controller counted which outcome."""
    return {
        (one.labels["model"], one.labels["outcome"]): one.value
        for metric in loop.controller._telemetry.compilations.collect()
        for one in metric.samples
        if one.name.endswith("_total")
    }
