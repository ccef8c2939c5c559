"""Shell completion: names of the service where one answers, silence where none does."""

from pathlib import Path

import pytest

from tests.commanded import Command, Nobody, Wire
from tests.unit.api.conftest import Api


def complete(retrue: Command, line: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], str]:
    """Return what bash would be offered after `line`, and what was said besides."""
    words = line.split(" ")
    monkeypatch.setenv("_RETRUE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    ran = retrue()
    return ran.out.split(), ran.err


def test_models_versions_runs_and_switches_are_completed(
    api: Api, retrue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = api.client.post("/v1/models/flip/runs", json={}).json()["id"]
    check_id = api.client.post("/v1/models/flip/checks", json={}).json()["id"]
    for line, offered in {
        "retrue stat": ["status"],
        "retrue status ": ["flip", "price"],
        "retrue versions fl": ["flip"],
        "retrue promote flip ": ["1"],
        "retrue promote price ": [],
        f"retrue cancel {run_id[:6]}": [run_id],
        "retrue runs pr": ["price"],
        "retrue explain ": ["flip", "price", check_id, run_id],
        "retrue release flip br": ["breaker"],
        "retrue retrain --f": ["--force"],
    }.items():
        assert complete(retrue, line, monkeypatch) == (offered, ""), line


def test_completion_asks_the_address_with_the_key_that_stands_on_the_line(
    wire: Wire, retrue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = complete(retrue, "retrue status --url http://other --key secret ", monkeypatch)
    assert found == ["flip", "price"]
    assert (wire.sent[-1].url.host, wire.sent[-1].headers["authorization"]) == ("other", "Bearer secret")


@pytest.mark.parametrize("line", ["retrue status ", "retrue promote flip ", "retrue cancel ", "retrue explain "])
def test_completion_is_silent_where_nobody_answers(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nobody = Command(Nobody(), tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert complete(nobody, line, monkeypatch) == ([], "")
    monkeypatch.setenv("RETRUE_URL", "nonsense")
    assert complete(nobody, line, monkeypatch) == ([], "")
