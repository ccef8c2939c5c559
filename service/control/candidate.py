"""A challenger becomes a version: artifact by digest, reference rows with their calibration, lineage, one row."""

import logging
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Connection

from service.control.lineage import Commit, commit_of, lineage
from service.control.material import Material
from service.control.rows import table_of
from service.domain.gate import GateReport
from service.domain.spec import ModelSpec
from service.domain.version import VersionState
from service.journal import facts
from service.learning.compiled import Compiled, compiled
from service.learning.examine import reference_rows
from service.learning.frames import between
from service.learning.lineage import libraries
from service.learning.package import Package, golden_frame, package, with_compiled
from service.learning.train import Challenge
from service.learning.yardstick import calibrated
from service.storage import versions
from service.storage.artifacts import ArtifactStore
from service.storage.lake import Lake
from service.storage.runs import Run
from service.storage.versions import VersionRow

__all__ = ["Candidate", "prepare"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A version in all but its number: what it points at is written and was read back."""

    run: Run
    spec: dict[str, Any]
    spec_digest: str | None
    commit: Commit
    material: Material
    challenge: Challenge
    parent: VersionRow | None
    packed: Package
    reference: dict[str, Any]
    calibration: dict[str, Any] | None

    @property
    def gate(self) -> GateReport:
        """What the gate said of it."""
        return self.challenge.gate

    def insert(self, conn: Connection, *, at: datetime) -> VersionRow:
        """Write its row under the model's next number."""
        parent = None if self.parent is None else self.parent.version
        row = VersionRow(
            model=self.run.model,
            version=versions.next_number(conn, self.run.model),
            state=VersionState.CANDIDATE,
            run_id=self.run.id,
            parent=parent,
            artifact=self.packed.sha256,
            manifest=self.packed.manifest,
            lineage=lineage(
                self.run,
                at=at,
                commit=self.commit,
                spec=self.spec,
                spec_digest=self.spec_digest,
                parent=parent,
                snapshot=self.material.snapshot,
                training=_training(self.challenge),
                artifact=_artifact(self.packed),
                evaluation=_evaluation(self.challenge),
                libraries=libraries(),
            ),
            metrics=self.challenge.metrics,
            reference=self.reference,
            calibration=self.calibration,
            learned_until=self.challenge.learned_until,
            created_at=at,
        )
        return versions.insert(conn, row)


def prepare(
    store: ArtifactStore,
    lake: Lake,
    *,
    run: Run,
    spec: ModelSpec,
    spec_json: dict[str, Any],
    spec_digest: str | None,
    project: Path,
    material: Material,
    challenge: Challenge,
    parent: VersionRow | None,
    compile_s: float | None,
) -> Candidate:
    """Package the challenger, compile it within `compile_s` seconds (None: not at all), and keep its reference.

    The artifact and the reference are named by their content, so a crash after it leaves at worst something that nobody
    points at.

    Raises
    ------
    ArtifactInvalid
        If the store gives back other bytes than it was given.
    OSError
        If the store cannot write.
    """
    own = between(material.rows, after=challenge.reference_after, until=challenge.reference_until)
    packed = package(challenge.predictor, own)
    store.read(store.put(packed.artifact))  # a disk may lie: what cannot be read back must not become a version
    holdout = between(material.rows, after=challenge.holdout_after, until=challenge.holdout_until)
    calibration = _calibrated(spec, challenge, own, holdout)
    reference = lake.keep(spec.name, table_of(reference_rows(spec.drift, own, challenge.predictor), material.schema))
    return Candidate(
        run=run,
        spec=spec_json,
        spec_digest=spec_digest,
        commit=commit_of(project),
        material=material,
        challenge=challenge,
        parent=parent,
        packed=_compiled(store, packed, challenge, material, compile_s),
        reference=reference.to_json(),
        calibration=calibration,
    )


def _calibrated(
    spec: ModelSpec, challenge: Challenge, own: pd.DataFrame, holdout: pd.DataFrame
) -> dict[str, Any] | None:
    try:
        return calibrated(spec, challenge.predictor, own, holdout=holdout, seed=challenge.seed).to_json()
    except MemoryError:
        raise
    except Exception:
        # Its statistics touch every column and call the estimator anew: a good challenger is not lost for them. Its
        # drift is uncalibrated then, and says so at every check.
        log.exception("calibration_broke", extra=facts(model=spec.name))
        return None


def _compiled(
    store: ArtifactStore, packed: Package, challenge: Challenge, material: Material, compile_s: float | None
) -> Package:
    if compile_s is None:
        return with_compiled(packed, Compiled(outcome="unavailable", reason="RETRUE_COMPILE is off"))
    predictor = challenge.predictor
    verdict = compiled(
        predictor,
        golden=golden_frame(packed, predictor),
        holdout=between(material.rows, after=challenge.holdout_after, until=challenge.holdout_until),
        budget_s=compile_s,
        clock=time.monotonic,
    )
    if verdict.content is not None:
        store.read(store.put(verdict.content))
    told = facts(model=predictor.schema.model, outcome=verdict.outcome, why=verdict.reason, seconds=verdict.seconds)
    log.info("version_compiled", extra=told)
    return with_compiled(packed, verdict)


def _artifact(packed: Package) -> dict[str, Any]:
    return {
        "sha256": packed.sha256,
        "bytes": len(packed.artifact),
        "format": "joblib",
        "compiled": packed.compiled,
    }


def _evaluation(challenge: Challenge) -> dict[str, Any]:
    return {
        "metrics": challenge.metrics,
        "gate": challenge.gate.to_json(),
        "candidates": [one.to_json() for one in challenge.candidates],
        "holdout": [challenge.holdout_after.isoformat(), challenge.holdout_until.isoformat()],
    }


def _training(challenge: Challenge) -> dict[str, Any]:
    return {
        "window": challenge.window,
        "fit_rows": challenge.fit_rows,
        "seed": challenge.seed,
        "parameters": challenge.parameters,
        "learned_until": challenge.learned_until.isoformat(),
    }
