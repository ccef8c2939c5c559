"""The verbs about keys: which of the service and the database they work on, and what they say of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain.access import Role
from tests.commanded import Command, Nobody, Wire
from tests.keyed import Keyed, keyed
from tests.migrated import migrated

CREATE = ("keys", "create", "--role", "viewer", "--name")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Keyed]:
    database = migrated(tmp_path / "retrue.db")
    with keyed(tmp_path, database) as made:
        yield made
    database.close()


@pytest.fixture
def retrue(
    service: Keyed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Return the command in a folder where no key was ever made, beside a service."""
    command = Command(Wire(service.client), tmp_path / "folder", monkeypatch=monkeypatch, capsys=capsys)
    migrated(command.folder / "retrue.db").close()
    monkeypatch.setenv("RETRUE_HOME", str(command.folder))
    return command


def names(ran: object) -> list[str]:
    return [row["name"] for row in ran.json]  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", ["option", "environment", ".env"])
def test_wherever_an_address_is_given_the_keys_are_those_of_that_service(
    given: str, service: Keyed, retrue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, words = service.key(Role.ADMIN, name="ada"), ["--key", "x"]
    if given == "option":
        words = ["--url", "http://far", "--key", admin]
    elif given == "environment":
        monkeypatch.setenv("RETRUE_URL", "http://far")
        words = ["--key", admin]
    else:
        (retrue.folder / ".env").write_text(f"RETRUE_URL=http://far\nRETRUE_API_KEY={admin}\n")
        words = []
    made = retrue(*CREATE, "bob", *words)
    assert made.code == 0, made.err
    service.look()
    assert service.ask("GET", "/v1/models", made.out.strip()).status_code == 200
    assert names(retrue("keys", "list", "--json", *words)) == ["bob", "ada"]
    assert retrue("keys", "revoke", "bob", *words).code == 0
    service.look()
    assert service.ask("GET", "/v1/models", made.out.strip()).status_code == 401


def test_without_an_address_or_with_local_they_work_on_this_machines_database(
    service: Keyed, retrue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert retrue(*CREATE, "near").code == 0
    monkeypatch.setenv("RETRUE_URL", "http://far")
    assert retrue(*CREATE, "nearer", "--local").code == 0
    assert names(retrue("keys", "list", "--json", "--local")) == ["nearer", "near"]
    assert retrue("keys", "revoke", "near", "--local").code == 0
    monkeypatch.delenv("RETRUE_URL")
    assert [row["revoked_at"] is None for row in retrue("keys", "list", "--json").json] == [True, False]
    assert "key_created" not in {row.action for row in service.audit()}


def test_local_and_a_named_service_exclude_each_other(retrue: Command) -> None:
    for words in ([*CREATE, "x"], ["keys", "list"], ["keys", "revoke", "x"]):
        ran = retrue(*words, "--local", "--url", "http://far")
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "one of them" in ran.err


def test_where_a_configured_service_does_not_answer_it_is_said_how_to_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = Command(Nobody(), tmp_path / "folder", monkeypatch=monkeypatch, capsys=capsys)
    (nobody.folder / ".env").write_text("RETRUE_URL=http://127.0.0.1:9\n")
    for words in ([*CREATE, "x"], ["keys", "list"], ["keys", "revoke", "x"]):
        ran = nobody(*words)
        assert (ran.code, ran.err.count("\n"), "--local" in ran.err) == (3, 1, True), ran.err
        named = nobody(*words, "--url", "http://127.0.0.1:9")
        assert (named.code, "--local" in named.err) == (3, False)


def test_the_audits_verdict_is_never_on_another_database_than_the_one_that_was_named(retrue: Command) -> None:
    assert retrue("audit", "verify").code == 0
    for words in (["--url", "http://far"], ["--model", "flip"], ["--key", "x"], ["--json"]):
        ran = retrue("audit", *words, "verify")
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert words[0] in ran.err
