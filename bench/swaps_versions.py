"""Two dozen real versions of the electricity model, registered as a trainer would, and what each one answers."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.client import Json
from service.domain.spec import Schema
from service.domain.version import VersionState
from service.learning.compiled import compiled
from service.learning.frames import design
from service.learning.package import Package, golden_frame, package, with_compiled
from service.learning.predictor import Predictor
from service.serving.block import Block
from service.serving.bundle import load
from service.storage import versions
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.versions import VersionRow

__all__ = ["Told", "expected", "payloads", "register"]

WEEKS = timedelta(days=56)
STEP = timedelta(days=28)
COMPILE_S = 30.0


class Told(msgspec.Struct, frozen=True):
    """What a version answers to the known rows, one by one."""

    outputs: list[Any]
    probabilities: NDArray[np.float64]
    alone: NDArray[np.float64]
    """The same, each row in a block of its own. A numeric kernel takes what is left over at a block's end row by row,
    and another last bit may come of it; so a row has one right answer in trees, at most these two in a compiled one."""
    is_compiled: bool


def register(project: Path, home: Path, database: Database, model: str, *, count: int) -> list[int]:
    """Fit versions on stretches of the data, one month apart, and write them beside version 1; return all numbers."""
    from service.control.files import load_spec

    store = ArtifactStore(home / "artifacts")
    spec = load_spec(project / "models" / f"{model}.py", project)
    rows = pd.read_parquet(project / spec.source).sort_values(spec.timestamp, kind="stable")
    times = rows[spec.timestamp]
    with database.read() as conn:
        first = versions.get(conn, model, 1)
    schema = Schema.from_json(first.manifest["schema"])
    numbers = [first.version]
    for number in range(2, count + 1):
        begin = times.iloc[0] + (number - 1) * STEP
        part = rows[(times > begin) & (times <= begin + WEEKS)]
        estimator = spec.build().fit(design(schema, part), part[spec.target].to_numpy())
        if list(estimator.classes_) != list(schema.classes):
            continue
        packed = _packed(store, Predictor(estimator=estimator, schema=schema, output_mode="argmax"), part, number)
        row = VersionRow(
            model=model, version=number, state=VersionState.APPROVED, run_id=None, parent=first.version,
            artifact=packed.sha256, manifest=packed.manifest, lineage={}, metrics=first.metrics,
            reference=first.reference, learned_until=first.learned_until, created_at=datetime.now(UTC),
        )  # fmt: skip
        with database.write() as conn:
            versions.insert(conn, row)
        numbers.append(number)
    return numbers


def _packed(store: ArtifactStore, predictor: Predictor, part: pd.DataFrame, number: int) -> Package:
    """Store a version's files; every second one is compiled too, so that swaps go between both kinds."""
    packed = package(predictor, part)
    store.put(packed.artifact)
    if number % 2:
        return packed
    golden = golden_frame(packed, predictor)
    verdict = compiled(predictor, golden=golden, holdout=part, budget_s=COMPILE_S, clock=time.monotonic)
    if verdict.content is not None:
        store.put(verdict.content)
    return with_compiled(packed, verdict)


def payloads(project: Path, schema: Schema, *, target_rows: int, seed: int) -> tuple[list[Json], list[list[int]]]:
    """Return known rows, and which of them go into each request: one to four.

    All lie in what version 1 learned from, event time included: the stream never gets to a window that is due for a
    check, for what is measured here is swaps.
    """
    data = pd.read_parquet(project / "data" / f"{schema.model}.parquet").head(target_rows)
    columns = {feature.name: data[feature.name].tolist() for feature in schema.features}
    stamps = [at.isoformat().replace("+00:00", "Z") for at in data[schema.timestamp]]
    rows = [
        {schema.timestamp: stamps[place], **{name: values[place] for name, values in columns.items()}}
        for place in range(len(data))
    ]
    rng = np.random.default_rng(seed)
    requests = [rng.integers(0, len(rows), size=rng.integers(1, 5)).tolist() for _ in range(target_rows)]
    return rows, requests


def expected(home: Path, database: Database, model: str, rows: Sequence[Json]) -> dict[int, Told]:
    """Return each version's answers to `rows`: loaded as a worker loads it, in this process."""
    store = ArtifactStore(home / "artifacts")
    with database.read() as conn:
        found = versions.list_of(conn, model)
    told = {}
    for row in found:
        bundle = load(store, row, generation=0)
        block = bundle.decoder.decode(msgspec.json.encode({"instances": rows}), max_rows=len(rows))
        answers = bundle.answer(block)
        alone = [
            bundle.answer(Block(block.numeric[place : place + 1], {})).probabilities for place in range(len(block))
        ]
        if answers.probabilities is None:
            msg = f"version {row.version} gives no probabilities: its answers could not be told from another's"
            raise ValueError(msg)
        told[row.version] = Told(
            outputs=answers.outputs.tolist(),
            probabilities=answers.probabilities,
            alone=np.vstack([one for one in alone if one is not None]),
            is_compiled=bundle.engine == "onnx",
        )
    return told
