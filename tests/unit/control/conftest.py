"""A migrated database with one model, and what stands around the control loop in its unit tests."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.control.leader import Leader, Term
from service.domain.policy import Drift, Gate, Quality, Retrain, Training
from service.domain.spec import Feature, ModelSpec, Schema
from service.domain.version import VersionState
from service.storage import champions, models, versions
from service.storage.database import Database
from service.storage.versions import VersionRow
from tests.migrated import migrated

MODEL = "shop"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def spec_json(**policies: Any) -> dict[str, Any]:
    spec = ModelSpec(
        name=MODEL,
        task="classification",
        target="y",
        timestamp="at",
        build=lambda: None,
        metric="accuracy",
        source="data/shop.csv",
        **{
            "drift": Drift(),
            "quality": Quality(),
            "retrain": Retrain(cooldown="1d", retry="1d"),
            "gate": Gate(),
            "training": Training(),
            **policies,
        },
    )
    schema = Schema(model=MODEL, task="classification", timestamp="at", features=(Feature("x"),), label="string")
    return {"schema": schema.to_json(), "policies": spec.policies(), "metric": "accuracy", "source": spec.source}


def a_version(number: int, **overrides: Any) -> VersionRow:
    values: dict[str, Any] = {
        "model": MODEL,
        "version": number,
        "state": VersionState.APPROVED,
        "run_id": None,
        "parent": None,
        "artifact": "0" * 64,
        "manifest": {"schema": spec_json()["schema"]},
        "lineage": {},
        "metrics": {"loss": 0.2},
        "reference": {},
        "learned_until": AT,
        "created_at": AT,
    }
    return VersionRow(**{**values, **overrides})


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = migrated(tmp_path / "retrue.db")
    with database.write() as conn:
        models.register(conn, MODEL, spec_json=spec_json(), file="models/shop.py", at=AT)
    yield database
    database.close()


@pytest.fixture
def term(database: Database) -> Term:
    found = Leader(database, owner="this one").step()
    assert found is not None
    return found


@pytest.fixture
def champion(database: Database) -> champions.Champion:
    with database.write() as conn:
        versions.insert(conn, a_version(1))
        return champions.swap(
            conn,
            MODEL,
            version=1,
            expected_generation=0,
            actor="test",
            reason="first",
            kind="promote",
            run_id=None,
            event_time=AT,
            at=AT,
        )
