"""A challenger becomes a version: artifact by digest, reference rows, lineage, one row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.control.leader import Term
from service.control.lineage import commit_of, lineage
from service.control.material import Material
from service.control.rows import table_of
from service.domain.gate import GateReport
from service.domain.spec import ModelSpec
from service.domain.version import VersionState
from service.learning.examine import reference_rows
from service.learning.frames import between
from service.learning.lineage import libraries
from service.learning.package import package
from service.learning.train import Challenge
from service.storage import versions
from service.storage.artifacts import ArtifactStore
from service.storage.lake import Lake
from service.storage.runs import Run
from service.storage.versions import VersionRow

__all__ = ["Candidate", "register"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A version that wants to answer."""

    version: int
    gate: GateReport


def register(
    term: Term,
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
) -> Candidate:
    """Package the challenger, keep its reference, and write its row under the next number.

    The artifact and the reference are named by their content, so a crash between these steps leaves at worst something
    that nobody points at.
    """
    own = between(material.rows, after=challenge.reference_after, until=challenge.reference_until)
    commit = commit_of(project)
    packed = package(challenge.predictor, own)
    store.put(packed.artifact)
    reference = lake.keep(spec.name, table_of(reference_rows(spec.drift, own, challenge.predictor), material.schema))
    with term.write() as connection:
        at = term.database.now(connection)
        number = versions.next_number(connection, spec.name)
        row = VersionRow(
            model=spec.name,
            version=number,
            state=VersionState.CANDIDATE,
            run_id=run.id,
            parent=None if parent is None else parent.version,
            artifact=packed.sha256,
            manifest=packed.manifest,
            lineage=lineage(
                run,
                at=at,
                commit=commit,
                spec=spec_json,
                spec_digest=spec_digest,
                parent=None if parent is None else parent.version,
                snapshot=material.snapshot,
                training=_training(challenge),
                artifact={"sha256": packed.sha256, "bytes": len(packed.artifact), "format": "joblib"},
                evaluation={
                    "metrics": challenge.metrics,
                    "gate": challenge.gate.to_json(),
                    "candidates": [one.to_json() for one in challenge.candidates],
                    "holdout": [challenge.holdout_after.isoformat(), challenge.holdout_until.isoformat()],
                },
                libraries=libraries(),
            ),
            metrics=challenge.metrics,
            reference=reference.to_json(),
            learned_until=challenge.learned_until,
            created_at=at,
        )
        versions.insert(connection, row)
    return Candidate(version=number, gate=challenge.gate)


def _training(challenge: Challenge) -> dict[str, Any]:
    return {
        "window": challenge.window,
        "fit_rows": challenge.fit_rows,
        "seed": challenge.seed,
        "parameters": challenge.parameters,
        "learned_until": challenge.learned_until.isoformat(),
    }
