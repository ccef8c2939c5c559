"""The backup that docs/operations.md tells, made while the service answers, and restored into an empty home."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltalake import DeltaTable

from tests.launched import Launched, launched, prepared, until
from tests.postgres import PostgresServer

pytestmark = pytest.mark.timeout(400)  # processes start slowly on a busy machine

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"


def commands(of: str) -> str:
    """Return the commands that the page tells under this head, or after this sentence."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"{re.escape(of)}.*?```\n(.*?)```", text, flags=re.DOTALL)
    assert found is not None, of
    return found[1]


def told(of: str, folder: Path, **known: str) -> None:
    """Do in `folder` what the page tells."""
    done = subprocess.run(
        ["bash", "-euc", commands(of)], cwd=folder, env=os.environ | known, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def ids(home: Path) -> list[str]:
    table = DeltaTable(str(home / "lake" / "predictions" / "price"))
    return [str(one) for one in table.to_pyarrow_table(columns=["id"])["id"].to_pylist()]


def champion_of(service: Launched) -> dict[str, Any]:
    found: dict[str, Any] = until(
        lambda: service.request("GET", "/v1/models/price").json().get("champion"), what="the champion"
    )
    return found


@contextmanager
def called(service: Launched) -> Iterator[list[str]]:
    """Ask one row after the other beside what is done here; yield the growing list of what was answered."""
    answered: list[str] = []
    is_over = threading.Event()

    def call() -> None:
        while not is_over.is_set():
            answer = service.predict(timeout_s=60)
            if answer.status_code == httpx.codes.OK:
                answered.extend(answer.json()["ids"])

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield answered
    finally:
        is_over.set()
        caller.join(60)


def backed_up(tmp_path: Path, url: str, database: Callable[[], None]) -> tuple[set[str], dict[str, Any]]:
    """Back up `var` beside a service that answers; return what it had answered before, and its champion."""
    home = tmp_path / "var"
    prepared(home, url).close()
    (tmp_path / "backup").mkdir()
    (home / "reports").mkdir(exist_ok=True)
    with launched(home, url=url) as service:
        with called(service) as answered:
            until(lambda: len(answered) > 50 and (home / "lake" / "predictions").exists(), what="answers")
            before = set(answered)
            database()
            told("The files:", tmp_path)
            until(lambda: len(answered) > len(before), what="answers during the backup")
        return before, champion_of(service)


def is_as_before(other: Path, url: str, *, before: set[str], champion: dict[str, Any]) -> None:
    """Assert that the service on the restored home knows and answers what the other did, each row once."""
    with launched(other, url=url) as service:
        assert champion_of(service) == champion
        assert service.predict().status_code == httpx.codes.OK
        until(lambda: before <= set(ids(other)), what="all that was answered before the backup")
    found = ids(other)
    assert len(found) == len(set(found))


def test_a_backup_of_a_service_that_answers_restores_all_that_was_answered_before_it(tmp_path: Path) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not on this machine")
    before, champion = backed_up(
        tmp_path, f"sqlite:///{tmp_path / 'var' / 'retrue.db'}", lambda: told("On SQLite:", tmp_path)
    )
    other = tmp_path / "restored"
    shutil.copytree(tmp_path / "backup", other)
    is_as_before(other, f"sqlite:///{other / 'retrue.db'}", before=before, champion=champion)


def test_a_backup_of_a_database_on_postgresql_restores_it_with_all_that_was_answered(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    if shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not on this machine")
    other = tmp_path / "restored"
    with postgres_server.database() as url, postgres_server.database() as empty:
        before, champion = backed_up(
            tmp_path, url, lambda: told("On PostgreSQL:", tmp_path, URL=url.replace("+psycopg", ""))
        )
        shutil.copytree(tmp_path / "backup", other)
        told("Restore on PostgreSQL:", tmp_path, URL=empty.replace("+psycopg", ""))
        is_as_before(other, empty, before=before, champion=champion)
