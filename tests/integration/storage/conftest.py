"""A migrated database and the state that most tests start from."""

import multiprocessing
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from service.storage import models
from service.storage.database import Database

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session", autouse=True)
def preloaded_forkserver() -> None:
    """Let the processes that these tests start begin with their imports done, if no other test was first."""
    multiprocessing.set_forkserver_preload(["service.storage.committer", "service.storage.database"])


@pytest.fixture
def at() -> datetime:
    return AT


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Yield a migrated database that knows the model ``electricity``."""
    database = Database(database_url)
    database.migrate()
    with database.write() as conn:
        models.register(conn, "electricity", spec_json={"task": "classification"}, file="electricity.py", at=AT)
    yield database
    database.close()
