"""The backup that docs/operations.md tells, made while the service answers, and restored into an empty home."""

import re
import shutil
import subprocess
import threading
from pathlib import Path

import httpx
import pytest
from deltalake import DeltaTable

from tests.launched import launched, prepared, until

pytestmark = pytest.mark.timeout(400)  # processes start slowly on a busy machine

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"


def commands() -> str:
    """Return the commands that the page tells."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(r"# Backup and restore\n.*?```\n(.*?)```", text, flags=re.DOTALL)
    assert found is not None
    return found[1]


def in_lake(home: Path) -> set[str]:
    table = DeltaTable(str(home / "lake" / "predictions" / "price"))
    return set(table.to_pyarrow_table(columns=["id"])["id"].to_pylist())


def test_a_backup_of_a_service_that_answers_restores_all_that_was_answered_before_it(tmp_path: Path) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not on this machine")
    home, other = tmp_path / "var", tmp_path / "restored"
    prepared(home, f"sqlite:///{home / 'retrue.db'}").close()
    (tmp_path / "backup").mkdir()
    (home / "reports").mkdir(exist_ok=True)
    answered: list[str] = []
    is_over = threading.Event()
    with launched(home) as service:

        def call() -> None:
            while not is_over.is_set():
                answer = service.predict(timeout_s=60)
                if answer.status_code == httpx.codes.OK:
                    answered.extend(answer.json()["ids"])

        caller = threading.Thread(target=call)
        caller.start()
        try:
            until(lambda: len(answered) > 50 and (home / "lake" / "predictions").exists(), what="answers")
            before = set(answered)
            done = subprocess.run(
                ["bash", "-euc", commands()], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            until(lambda: len(answered) > len(before), what="answers during the backup")
        finally:
            is_over.set()
            caller.join(60)
        champion = service.request("GET", "/v1/models/price").json()["champion"]
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "backup", other)
    with launched(other) as service:
        assert service.request("GET", "/v1/models/price").json()["champion"] == champion
        assert service.predict().status_code == httpx.codes.OK
        until(lambda: before <= in_lake(other), what="all that was answered before the backup")
    ids = DeltaTable(str(other / "lake" / "predictions" / "price")).to_pyarrow_table(columns=["id"])["id"].to_pylist()
    assert len(ids) == len(set(ids))
