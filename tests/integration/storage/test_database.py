"""The database: its tables, its clock, its transactions, and what happens when it is not there."""

import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.domain.errors import DatabaseUnavailable, InvalidSetup
from service.storage import audit, migrations, models
from service.storage.database import Database
from service.storage.migrations.upgrade import configuration
from service.storage.tables import metadata

PROCESSES, WRITES = 3, 30


def test_the_migrations_make_exactly_the_described_tables(database: Database) -> None:
    with database.read() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []


def test_the_known_head_is_alembics_own() -> None:
    assert ScriptDirectory.from_config(configuration()).get_current_head() == migrations.HEAD


def test_only_a_migrated_database_passes_the_check(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(InvalidSetup, match="migrate"):
        database.check_migrated()
    database.migrate()
    database.check_migrated()
    database.close()


def test_the_databases_clock_is_utc(database: Database) -> None:
    with database.read() as conn:
        assert abs(database.now(conn) - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_failed_transaction_leaves_nothing(database: Database, at: datetime) -> None:
    def register_and_fail() -> None:
        with database.write() as conn:
            models.register(conn, "bikes", spec_json={}, file="bikes.py", at=at)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        register_and_fail()
    with database.read() as conn:
        assert models.find(conn, "bikes") is None


def test_a_moment_keeps_its_microseconds_and_needs_its_zone(database: Database, at: datetime) -> None:
    exact = at.replace(microsecond=123_457)
    with database.write() as conn:
        assert models.register(conn, "bikes", spec_json={}, file="b", at=exact).registered_at == exact
    with pytest.raises(Exception, match="time zone"), database.write() as conn:
        models.register(conn, "taxis", spec_json={}, file="b", at=exact.replace(tzinfo=None))


def test_a_figure_that_is_not_finite_is_stored_as_null(database: Database, at: datetime) -> None:
    with database.write() as conn:
        models.register(conn, "bikes", spec_json={"a": float("nan"), "b": [float("inf"), 1]}, file="b", at=at)
        assert models.get(conn, "bikes").spec == {"a": None, "b": [None, 1]}


@pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "no url at all"])
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetup):
        Database(url)


def test_a_database_that_is_away_is_told_without_its_password() -> None:
    database = Database("postgresql://retrue:hunter2@127.0.0.1:1/retrue")
    with pytest.raises(DatabaseUnavailable) as caught, database.read():
        pass
    assert "hunter2" not in caught.value.detail
    assert "127.0.0.1" in caught.value.detail


def test_a_folder_in_the_databases_place_is_told(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}")
    with pytest.raises(DatabaseUnavailable), database.read():
        pass


def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    _in_processes(_migrate, database_url)
    database = Database(database_url)
    database.check_migrated()
    database.close()


def test_several_processes_may_write_at_once(database: Database, database_url: str) -> None:
    _in_processes(_write, database_url)
    with database.read() as conn:
        assert audit.verify(conn) is None
        assert len(audit.list_of(conn, limit=1000)) == PROCESSES * WRITES


def _context() -> ForkServerContext:
    return multiprocessing.get_context("forkserver")


def _in_processes(work: Callable[[str, Any], None], url: str) -> None:
    context = _context()
    together = context.Barrier(PROCESSES)
    processes = [context.Process(target=work, args=(url, together)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * PROCESSES


def _migrate(url: str, together: Any) -> None:
    database = Database(url)
    together.wait(30)
    database.migrate()
    database.close()


def _write(url: str, together: Any) -> None:
    database = Database(url)
    together.wait(30)
    for number in range(WRITES):
        with database.write() as conn:
            models.list_all(conn)  # a reader that turns writer is what SQLite refuses when it began as a reader
            audit.append(
                conn, actor="a", action="test", model=None, subject=str(number), reason="r", at=database.now(conn)
            )
    database.close()
