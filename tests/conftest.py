"""What every test may use: a database, and the PostgreSQL server behind it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.postgres import PostgresMissing, PostgresServer

UNIT = Path(__file__).parent / "unit"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `database_url` on both databases; a unit test, which opens no socket, on SQLite alone."""
    if "database_url" in metafunc.fixturenames:
        is_unit = UNIT in metafunc.definition.path.parents
        metafunc.parametrize("database_url", ["sqlite"] if is_unit else ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Yield a real PostgreSQL server. CI must have one; elsewhere tests that need it are skipped, with the reason."""
    try:
        with postgres.running() as server:
            yield server
    except PostgresMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Yield the URL of an empty PostgreSQL database."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, SQLite or PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'retrue.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url
