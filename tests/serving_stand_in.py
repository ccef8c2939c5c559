"""Answers and labels without HTTP: what the api workers would write to the spool, for tests of the loop behind it."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from service.domain.spec import Schema
from service.learning.package import predictor_of
from service.learning.predictor import Predictor
from service.storage import champions, versions
from service.storage.artifacts import ArtifactStore
from service.storage.committer import Committer
from service.storage.database import Database
from service.storage.ids import new_id
from service.storage.lake import Lake
from service.storage.records import LabelBatch, PredictionBatch
from service.storage.spool import SpoolWriter
from tests.ids import id_bytes

__all__ = ["StandIn"]


class StandIn:
    """One model's traffic: answers rows with the champion of now, labels them after a delay in event time."""

    def __init__(self, home: Path, database: Database, model: str, *, label_delay: timedelta) -> None:
        self._database = database
        self._model = model
        self._delay = label_delay
        self._store = ArtifactStore(home / "artifacts")
        self._lake = Lake(home / "lake")
        self._committer = Committer(home / "spool", self._lake)
        self._writer = SpoolWriter(home / "spool", max_bytes=1 << 20, max_age_s=0.0, cap_bytes=1 << 30, sync=False)
        self._owed: list[tuple[datetime, str, object]] = []
        self._loaded: tuple[int, Predictor] | None = None
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        """What stands with each answer as the moment at which it was given."""
        self.answers: list[tuple[datetime, int, object, object]] = []
        """Event time, version, answer, truth."""

    def send(self, rows: pd.DataFrame) -> None:
        """Answer canonical rows with labels, and label those whose delay is over."""
        with self._database.read() as conn:
            champion = champions.current(conn, self._model)
            assert champion is not None
            version = versions.get(conn, self._model, champion.version)
        if self._loaded is None or self._loaded[0] != version.version:
            predictor = predictor_of(self._store.read(version.artifact), version.manifest)
            self._loaded = (version.version, predictor)
        predictor = self._loaded[1]
        outputs, probabilities = predictor.answer(rows)
        ids = [new_id() for _ in range(len(rows))]
        schema = predictor.schema
        numbers = [feature for feature in schema.features if not schema.is_text(feature)]
        kinds = {"numeric": "numeric", "boolean": "boolean", "categorical": "integer"}
        self._writer.append_predictions(
            PredictionBatch(
                model=self._model,
                version=version.version,
                generation=champion.generation,
                answered_at_us=int(self.clock().timestamp() * 1e6),
                ids=id_bytes(ids),
                event_time_us=rows["event_time"].astype("int64").to_numpy(),
                numeric_names=[feature.name for feature in numbers],
                numeric_kinds=[kinds[feature.kind] for feature in numbers],  # type: ignore[misc]  # as the map says
                numeric=rows[[feature.name for feature in numbers]].to_numpy(dtype=np.float64),
                text={f.name: list(rows[f.name]) for f in schema.features if schema.is_text(f)},
                output=outputs if outputs.dtype != object else list(outputs),
                probabilities=probabilities,
                classes=schema.classes,
            )
        )
        times = [moment.to_pydatetime() for moment in rows["event_time"]]
        truths = rows["label"].tolist()
        self._owed += [(at + self._delay, one, truth) for at, one, truth in zip(times, ids, truths, strict=True)]
        self.answers += [
            (at, version.version, out, truth) for at, out, truth in zip(times, outputs, truths, strict=True)
        ]
        self._pay(times[-1], schema)

    def commit(self) -> None:
        """Move all of it to the lake."""
        self._writer.tick()
        report = self._committer.run_once()
        assert not report.errors, report.errors

    def close(self) -> None:
        """Close the spool."""
        self._writer.close()

    def accuracy(self, versions_: Sequence[int] | None = None) -> float:
        """Return the share of right answers."""
        judged = [
            answer == truth for _, version, answer, truth in self.answers if not versions_ or version in versions_
        ]
        return sum(judged) / len(judged)

    def _pay(self, now: datetime, schema: Schema) -> None:
        ready = [entry for entry in self._owed if entry[0] <= now]
        self._owed = [entry for entry in self._owed if entry[0] > now]
        if ready:
            self._writer.append_labels(
                LabelBatch(
                    model=self._model,
                    kind=schema.label,
                    ids=[one for _, one, _ in ready],
                    labels=[truth for _, _, truth in ready],
                    observed_at_us=[int(at.timestamp() * 1e6) for at, _, _ in ready],
                    received_at_us=int(datetime.now(UTC).timestamp() * 1e6),
                )
            )
