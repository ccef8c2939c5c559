"""The environment: one frozen Settings, or one clear line."""

import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.domain.errors import HomeUnusable, SettingInvalid
from service.domain.secret import without_password
from service.settings import Settings, explain, load, prepare_home

NO_FILE = Path("no-such.env")


def test_a_mistyped_variable_refuses_to_start_and_names_the_nearest() -> None:
    with pytest.raises(SettingInvalid, match=r"RETRUE_PROT .* did you mean RETRUE_PORT\?"):
        load(environ={"RETRUE_PROT": "80"}, env_file=NO_FILE)


def test_a_mistyped_variable_in_the_env_file_refuses_too(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("RETRUE_WORKRES=2\nOTHER=1\n")
    with pytest.raises(SettingInvalid, match=r"did you mean RETRUE_WORKERS\?"):
        load(environ={}, env_file=env_file)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RETRUE_PORT", "http"),
        ("RETRUE_PORT", "70000"),
        ("RETRUE_WORKERS", "0"),
        ("RETRUE_LOG_FORMAT", "xml"),
        ("RETRUE_TRAINING_CPUS", "two"),
        ("RETRUE_TRAINING_CPUS", "3-1"),
        ("RETRUE_TRAINING_CPUS", "0,"),
        ("RETRUE_TRAINING_CPUS", "-1"),
        ("RETRUE_TRAINING_MEMORY_BYTES", "-1"),
        ("RETRUE_TRAINING_MEMORY_BYTES", "1000000"),
    ],
)
def test_an_invalid_value_is_one_line_that_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        load(environ={variable: value}, env_file=NO_FILE)
    assert variable in caught.value.detail
    assert repr(value) in caught.value.detail
    assert "\n" not in caught.value.detail


def test_processors_are_numbers_and_ranges_of_those_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3, 5}, raising=False)
    assert load(environ={}, env_file=NO_FILE).cpus == ()
    assert load(environ={"RETRUE_TRAINING_CPUS": "1-2, 5"}, env_file=NO_FILE).cpus == (1, 2, 5)
    with pytest.raises(SettingInvalid, match=r"no processor 4 to use here; there are 0, 1, 2, 3, 5"):
        load(environ={"RETRUE_TRAINING_CPUS": "3-5"}, env_file=NO_FILE)


def test_processors_can_not_be_named_where_the_system_binds_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert load(environ={}, env_file=NO_FILE).cpus == ()
    with pytest.raises(SettingInvalid, match="leave it empty"):
        load(environ={"RETRUE_TRAINING_CPUS": "0"}, env_file=NO_FILE)


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("RETRUE_PORT=1\nRETRUE_WORKERS=2\nRETRUE_LOG_LEVEL=debug\n")
    settings = load(environ={"RETRUE_PORT": "3", "RETRUE_WORKERS": "4"}, env_file=env_file, port=5, home=None)
    assert (settings.port, settings.workers, settings.log_level) == (5, 4, "debug")
    origins = {row["name"]: row["origin"] for row in explain(settings)}
    assert (origins["port"], origins["workers"]) == ("command line", "environment")
    assert (origins["log_level"], origins["home"]) == (".env", "default")


def test_a_child_process_gets_the_very_same_settings(tmp_path: Path) -> None:
    settings = load(environ={}, env_file=NO_FILE, home=tmp_path, port=1, spool_sync=True)
    assert load(environ=settings.environ(), env_file=NO_FILE).model_dump() == settings.model_dump()


def test_a_child_process_knows_where_each_setting_came_from(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("RETRUE_WORKERS=2\n")
    given = load(environ={"RETRUE_HOME": str(tmp_path)}, env_file=file, port=9000)
    child = load(environ=given.environ(), env_file=Path(os.devnull))
    assert explain(child) == explain(given)
    origins = {one["name"]: one["origin"] for one in explain(child)}
    assert (origins["home"], origins["workers"], origins["port"]) == ("environment", ".env", "command line")
    assert origins["host"] == "default"


def test_settings_are_frozen() -> None:
    settings = load(environ={}, env_file=NO_FILE)
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # what is tested


def test_the_example_file_names_every_setting_with_its_default() -> None:
    lines = (Path(__file__).parents[2] / ".env.example").read_text().splitlines()
    shown = {match[1]: match[2] for line in lines if (match := re.fullmatch(r"#(RETRUE_\w+)=(.*)", line))}
    defaults = {row["variable"]: row for row in explain(Settings(home=Path("var"), models_folder=Path("models")))}
    assert shown.keys() == defaults.keys()
    filled = {name: value for name, value in shown.items() if value}
    assert load(environ=filled, env_file=NO_FILE).model_dump() == load(environ={}, env_file=NO_FILE).model_dump()


def test_a_home_below_a_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "home"):
        with pytest.raises(HomeUnusable, match="RETRUE_HOME"):
            prepare_home(load(environ={}, env_file=NO_FILE, home=home))


def test_a_usable_home_gets_its_folders(tmp_path: Path) -> None:
    settings = load(environ={}, env_file=NO_FILE, home=tmp_path / "deep" / "home")
    prepare_home(settings)
    assert settings.database == f"sqlite:///{tmp_path}/deep/home/retrue.db"
    assert {entry.name for entry in settings.home.iterdir()} == {"artifacts", "lake", "spool", "reports", "run"}


def test_a_password_is_never_shown() -> None:
    settings = load(environ={"RETRUE_DATABASE_URL": "postgresql://me:hunter2@db/x"}, env_file=NO_FILE)
    assert "hunter2" not in str(explain(settings))
    assert without_password(settings.database) == "postgresql://me:***@db/x"
    assert without_password("postgresql://db/x?user=me&password=secret") == "postgresql://db/x?user=me&password=***"
    assert without_password("sqlite:////var/retrue.db") == "sqlite:////var/retrue.db"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("", False),
        ("0.0.0.0", False),  # noqa: S104  not bound to
        ("::", False),
        ("192.0.2.1", False),
        ("no such host", False),
    ],
)
def test_a_loopback_address_is_told_from_one_that_others_reach(host: str, expected: bool) -> None:
    assert load(environ={}, env_file=NO_FILE, host=host).is_loopback == expected


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_webhooks_need_a_secret_and_what_they_are_set_to_is_never_shown() -> None:
    given = {"RETRUE_WEBHOOK_URLS": "https://hooks.example/T0/hunter2", "RETRUE_WEBHOOK_SECRET": SECRET}
    settings = load(environ=given, env_file=NO_FILE)
    for shown in (str(explain(settings)), repr(settings), str(settings)):
        assert SECRET not in shown
        assert "hunter2" not in shown
    shown = {row["name"]: row["value"] for row in explain(settings)}["webhook_urls"]
    assert shown.startswith("https://hooks.example#")
    for environ in (
        {"RETRUE_WEBHOOK_URLS": given["RETRUE_WEBHOOK_URLS"]},
        {**given, "RETRUE_WEBHOOK_SECRET": "whsec_hunter2"},
        {**given, "RETRUE_WEBHOOK_URLS": "hooks.example/hunter2"},
    ):
        with pytest.raises(SettingInvalid, match="RETRUE_WEBHOOK_") as caught:
            load(environ=environ, env_file=NO_FILE)
        assert "hunter2" not in str(caught.value.detail)
        assert SECRET not in str(caught.value.detail)


def test_what_only_the_command_line_reads_is_no_mistyped_setting() -> None:
    client = {"RETRUE_URL": "http://x", "RETRUE_API_KEY": "secret"}
    assert load(environ=client, env_file=NO_FILE).model_dump() == load(environ={}, env_file=NO_FILE).model_dump()
