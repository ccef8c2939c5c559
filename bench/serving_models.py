"""The three models that every server answers with: trained once by the service itself, on seeded rows.

Two homes hold them: one whose versions are compiled too, one where compiling is off. Everybody else gets the fitted
pipelines out of the first one's artifact store.
"""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.launched import Launched, Project, wait_for
from bench.serving_load import Expected
from service.client import Retrue
from service.learning.graph import open_graph
from service.storage import champions, versions
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.versions import VersionRow

__all__ = ["FEATURES", "MODELS", "Fitted", "Rows", "bare", "fitted", "project", "sampled", "train"]

MODELS = ("linear", "boosting", "forest")
FEATURES = tuple(f"f{place}" for place in range(8))
TRAINING_ROWS, SEED = 8_000, 0
ALONE, BLOCKS, BLOCK_ROWS = 256, 4, 1_000
"""Bodies of one row, bodies of many, and how many."""
READY_S = 240.0
BUILDS = {
    "linear": "make_pipeline(StandardScaler(), LogisticRegression())",
    "boosting": "HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)",
    "forest": "RandomForestClassifier(n_estimators=100, random_state=0)",
}
TEXT = """from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.spec import Drift, Feature, Gate, ModelSpec, Probation, Retrain, Training

spec = ModelSpec(
    name="{name}",
    task="classification",
    target="truth",
    timestamp="at",
    features=[Feature(f"f{{place}}", low=-10, high=10) for place in range(8)],
    build=lambda: {build},
    metric="accuracy",
    source="data/rows.parquet",
    training=Training(windows=("all",), refit=False{training}),
    gate=Gate(resamples=100),
    drift=Drift(window="3650d"),
    retrain=Retrain(mode="off"),
    probation=Probation(duration=None),
)
"""
SETTINGS = {"RETRUE_LOG_LEVEL": "warning", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One model as its version 1 was stored."""

    name: str
    artifact: Path
    pipeline: Any
    compiled: str
    """``proved``, or why it is not."""
    graph: bytes | None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is asked: rows one by one, and blocks of many."""

    alone: NDArray[np.float64]
    blocks: NDArray[np.float64]

    def of(self, many: bool) -> list[NDArray[np.float64]]:  # noqa: FBT001  one row a body, or many
        """Return the rows of each body."""
        return list(self.blocks) if many else [row[None, :] for row in self.alone]


def sampled() -> Rows:
    """Return the rows that are asked, seeded, with six decimals each."""
    rng = np.random.default_rng(SEED + 1)
    alone = rng.normal(size=(ALONE, len(FEATURES))).round(6)
    return Rows(alone=alone, blocks=rng.normal(size=(BLOCKS, BLOCK_ROWS, len(FEATURES))).round(6))


def project(folder: Path, *, compiles: bool, training: str = "", settings: dict[str, str] | None = None) -> Project:
    """Return a project folder with the three models and their rows."""
    models = {
        f"{name}.py": TEXT.format(name=name, build=build, training=training) for name, build in BUILDS.items()
    }  # fmt: skip
    words = {**SETTINGS, "RETRUE_COMPILE": "auto" if compiles else "off", **(settings or {})}
    made = Project(folder, models=models, data=(), settings=words)
    rng = np.random.default_rng(SEED)
    X = rng.normal(size=(TRAINING_ROWS, len(FEATURES)))
    score = X @ rng.normal(size=len(FEATURES)) + 0.8 * X[:, 0] * X[:, 1] + rng.logistic(size=TRAINING_ROWS)
    frame = pd.DataFrame(X, columns=list(FEATURES))
    frame["at"] = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=20) * place for place in range(len(X))]
    frame["truth"] = (score > 0).astype(np.int64)
    frame.to_parquet(folder / "data" / "rows.parquet")
    return made


def train(projects: Sequence[Project]) -> None:
    """Let the service itself make version 1 of every model in each project, all projects at once.

    Raises
    ------
    TimeoutError
        If a model has no champion in time.
    """
    services = [Launched(made, "serve", "--workers", "1", log="training.log") for made in projects]
    try:
        for made in projects:
            wait_for(partial(_has_champions, made), deadline_s=READY_S, what="version 1 of every model")
    except TimeoutError as error:
        said = "\n".join((projects[0].folder / "training.log").read_text().splitlines()[-20:])
        msg = f"{error}\n{said}"
        raise TimeoutError(msg) from error
    finally:
        for service in services:
            service.stop()


def _has_champions(made: Project) -> bool:
    with Retrue(made.url) as retrue:
        return retrue.is_ready() and all(retrue.model(name)["champion"] for name in MODELS)


def fitted(made: Project) -> dict[str, Fitted]:
    """Return the champions of a project."""
    store, database = ArtifactStore(made.home / "artifacts"), Database(made.database)
    found = {}
    with database.read() as conn:
        for champion in champions.all_current(conn):
            row = versions.get(conn, champion.model, champion.version)
            pipeline = joblib.load(io.BytesIO(store.read(row.artifact)))
            graph = store.read(row.manifest["compiled"]["artifact"]) if row.compiled == "proved" else None
            found[champion.model] = Fitted(
                name=champion.model, artifact=store.path(row.artifact), pipeline=pipeline, compiled=_why(row),
                graph=graph,
            )  # fmt: skip
    database.close()
    return found


def expected(model: Fitted, rows: Rows, *, many: bool) -> list[Expected]:
    """Return what the pipeline itself answers to each body."""
    found = []
    for block in rows.of(many):
        probabilities = model.pipeline.predict_proba(block)
        found.append(
            Expected(
                outputs=tuple(model.pipeline.predict(block).tolist()),
                probabilities=tuple(map(tuple, probabilities.tolist())),
            )
        )
    return found


def bare(model: Fitted, body: bytes, *, compiled: bool, seconds: float = 0.5) -> float:
    """Return how many blocks a second this process decodes (msgspec) and predicts, with nothing around it."""
    answering: Any = open_graph(model.graph) if compiled and model.graph is not None else model.pipeline
    decode = msgspec.json.Decoder(_Lists).decode
    taken, ends = [], time.perf_counter() + seconds
    while time.perf_counter() < ends:
        before = time.perf_counter()
        answering.predict_proba(np.array(decode(body).instances, dtype=np.float64))
        taken.append(time.perf_counter() - before)
    return 1 / float(np.median(taken))


class _Lists(msgspec.Struct):
    instances: list[tuple[float, float, float, float, float, float, float, float]]


def _why(row: VersionRow) -> str:
    return str(row.compiled) if row.compiled else "off"
