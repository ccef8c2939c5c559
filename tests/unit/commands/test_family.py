"""Laws of the whole family of commands: help, JSON, one line for what goes wrong, exit codes, and their document."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main

from service.__main__ import app
from service.client import (
    BadInput,
    Failed,
    InTheWay,
    NotNow,
    NotPermitted,
    NotSignedIn,
    NotThere,
    Refused,
    StillRunning,
    TooOften,
    TooSlow,
    Unreachable,
)
from service.client.refusals import refusal
from service.commands.refused import EXIT_CODES, exit_code_of
from service.domain.errors import DatabaseUnavailable, HomeUnusable, RunInProgress, TrainingFailed, UnknownModel
from tests.commanded import Command, Nobody

DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"
RUN = "019a0000-0000-7000-8000-000000000000"
PROCESSES = {"serve", "api", "controller", "demo"}
"""They run until they are ended: what they say is their log."""
ARGUMENTS = {"model": "flip", "version": "1", "run_id": RUN, "what": RUN, "name": "pause", "source": "-", "wanted": RUN}
OPTIONS = {"decide": ("--dry-run", "flip"), "keys create": ("--name", "shop", "--role", "predict")}
OFFLINE = {"models check", "config", "version", "doctor", "audit verify"}
"""They ask this machine, not a service."""


def commands() -> dict[str, Any]:
    """Return every command by its words."""

    def walk(group: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                if command.invoke_without_command:
                    yield " ".join((*words, name)), command
                yield from walk(command, (*words, name))
            else:
                yield " ".join((*words, name)), command

    return dict(walk(typer.main.get_command(app), ()))


def options(command: Any) -> set[str]:
    return {word for parameter in command.params for word in parameter.opts if word.startswith("--")}


def a_call(name: str, command: Any) -> list[str]:
    """Return words that make sense to the command."""
    needed = [p for p in command.params if p.param_type_name == "argument" and p.required]
    call = [*name.split(), *(ARGUMENTS[p.name] for p in needed)]
    return [*call, *OPTIONS.get(name, ())]


ALL = commands()


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(Nobody(), tmp_path / "folder", monkeypatch=monkeypatch, capsys=capsys)


def test_the_family_is_whole() -> None:
    wanted = (
        "status models versions runs checks check retrain accept cancel approve reject promote rollback pin unpin "
        "freeze unfreeze pause resume switch release explain decide predict label replay config doctor audit version"
    )
    assert set(wanted.split()) <= ALL.keys()


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_command_has_help_and_json(name: str, nobody: Command) -> None:
    shown = nobody(*name.split(), "--help")
    assert (shown.code, shown.err) == (0, "")
    assert "Usage: retrue" in shown.out
    if name not in PROCESSES:
        assert "--json" in options(ALL[name])


@pytest.mark.parametrize("name", sorted(ALL.keys() - OFFLINE - PROCESSES))
def test_every_command_that_asks_a_service_takes_its_address_and_key(name: str) -> None:
    assert {"--url", "--key"} <= options(ALL[name])


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("name", sorted(ALL.keys() - OFFLINE - PROCESSES))
def test_a_service_that_can_not_be_reached_is_one_line_and_exit_3(name: str, as_json: bool, nobody: Command) -> None:
    words = [*a_call(name, ALL[name]), "--url", "http://127.0.0.1:9", *(["--json"] if as_json else [])]
    ran = nobody(*words, stdin='{"a": 1}')
    assert (ran.code, ran.err.count("\n")) == (3, 1), ran.err
    assert "http://127.0.0.1:9" in ran.err
    if name not in {"predict", "label"}:  # these two say what was done until then
        assert ran.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["statsu"], "Did you mean 'status'?"),
        (["status", "--nonsense"], "--nonsense"),
        (["versions"], "Missing argument 'MODEL'"),
        (["versions", "flip", "zero"], "Invalid value for 'version'"),
        (["versions", "flip", "0"], "greater than or equal to 1"),
        (["versions", ".."], "'..' is no name or id"),
        (["versions", "../runs"], "'../runs' is no name or id"),
        (["cancel", "a/b"], "'a/b' is no name or id"),
        (["status", "--url", "nowhere"], "no address of a service"),
        (["status", "--url", "ftp://127.0.0.1"], "no address of a service"),
        (["status", "--url", "http://127.0.0.1:99999"], "no address of a service"),
        (["status", "--url", "http://[::1"], "no address of a service"),
        (["status", "--key", "schlüssel"], "the API key holds characters"),
        (["status", "--key", "two\nlines"], "the API key holds characters"),
        (["runs", "--limit", "0"], "--limit"),
        (["keys", "create", "--name", "x", "--role", "root"], "'--role': 'root' is not one of"),
        (["decide", "--dry-run", "flip", "--policy", "x=y"], "body.policy: x: Unexpected keyword argument\n"),
        (["retrain", "flip", "--timeout", "soon"], "--timeout: 'soon' is not a duration"),
        (["switch", "flip", "off"], "'off' is no switch"),
        (["release", "flip", "off"], "'off' is no switch"),
        (["predict", "flip", "no-such-file.csv"], "no file no-such-file.csv"),
        (["label", "flip", "--set", "nothing"], "'nothing' is not ID=LABEL"),
        (["replay", "flip", "--rate", "quick"], "'quick' is not a duration"),
        (["doctor", "--url", "nowhere"], "no address of a service"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words: list[str], said: str, looking: Command) -> None:
    ran = looking(*words)
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert ran.err.startswith("retrue: ")
    assert said in ran.err
    assert "schlüssel" not in ran.err


def test_no_words_at_all_print_the_help_and_exit_2(nobody: Command) -> None:
    ran = nobody()
    assert ran.code == 2
    assert "retrain" in ran.out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("x"), 3),
        (TooSlow("x"), 3),
        (StillRunning("x"), 4),
        *((refusal(status, {}), code) for status, code in {400: 2, 401: 1, 403: 1, 404: 2, 409: 1, 412: 1}.items()),
        *((refusal(status, {}), code) for status, code in {413: 2, 415: 2, 422: 2, 428: 1, 429: 3, 500: 3}.items()),
        (refusal(503, {}), 3),
        (RunInProgress("x"), 1),
        (UnknownModel("x"), 2),
        (HomeUnusable("x"), 2),
        (DatabaseUnavailable("x"), 3),
        (TrainingFailed("x"), 1),
    ],
)
def test_exit_codes_say_whose_fault_it_is(error: Any, code: int) -> None:
    assert exit_code_of(error) == code
    assert code in EXIT_CODES


@pytest.mark.parametrize(
    ("status", "kind"),
    {
        400: BadInput, 401: NotSignedIn, 403: NotPermitted, 404: NotThere, 409: InTheWay, 412: InTheWay, 413: BadInput,
        422: BadInput, 428: InTheWay, 429: TooOften, 500: Failed, 502: Failed, 503: NotNow,
    }.items(),
)  # fmt: skip
def test_every_status_has_its_kind_of_refusal(status: int, kind: type[Refused]) -> None:
    assert type(refusal(status, {})) is kind


def test_what_a_service_says_neither_steers_the_terminal_nor_passes_for_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "[bold]x[/] [/nonsense] \x1b[31mred\x07 \x9b2J"
    run = {"id": RUN, "model": "flip", "state": "failed", "trigger": "manual", "attempt": 1, "reason": evil}
    run |= {"requested_at": "2026-01-01T00:00:00Z", "actor": evil, "code": evil, "detail": evil}
    event = {"at": "2026-01-01T00:00:00Z", "after": "failed", "actor": evil, "reason": evil}
    model = {"name": evil, "error": evil, "switches": {}, "suggestion": {"reason": evil}}

    def answer(request: httpx.Request) -> httpx.Response:
        if "/checks/" in request.url.path:
            return httpx.Response(404, json={"detail": "no"})
        if request.url.path.endswith("/events"):
            return httpx.Response(200, json={"events": [event]})
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"models": [model]})
        if request.url.path == "/v1/runs":
            return httpx.Response(200, json={"runs": [run]})
        if request.method == "POST":
            return httpx.Response(409, json={"detail": evil})
        return httpx.Response(200, json=run)

    command = Command(httpx.MockTransport(answer), tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    for words in (["status"], ["runs"], ["runs", RUN], ["cancel", RUN], ["explain", RUN]):
        ran = command(*words)
        assert ran.code in {0, 1}, ran.err
        assert "[bold]x[/] [/nonsense]" in ran.out + ran.err, words
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", ran.out + ran.err)


def test_what_answers_and_is_no_retrue_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for response in (
        httpx.Response(200, html="<h1>Hello</h1>"),
        httpx.Response(200, json=[1, 2]),
        httpx.Response(404, html="<h1>Not found</h1>"),
        httpx.Response(302, headers={"location": "http://elsewhere"}),
    ):
        other = httpx.MockTransport(lambda _, response=response: response)
        ran = Command(other, tmp_path, monkeypatch=monkeypatch, capsys=capsys)("status")
        assert (ran.code, ran.err.count("\n")) == (3, 1), ran.err
        assert "no Retrue service" in ran.err


def section(name: str) -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    match = re.search(rf"^### {re.escape(name)}\n(.*?)(?=^##)", text + "\n##", flags=re.MULTILINE | re.DOTALL)
    assert match is not None, f"docs/cli.md says nothing of `{name}`: scripts/cli_reference.py writes it"
    return match[1]


def test_the_document_tells_every_command_with_every_option_as_the_help_does() -> None:
    from scripts.cli_reference import reference

    text = DOCUMENT.read_text(encoding="utf-8")
    begin, end = "<!-- made by scripts/cli_reference.py -->\n", "<!-- end -->"
    assert text[text.index(begin) + len(begin) : text.index(end)] == reference()
    for name, command in ALL.items():
        told = section(name)
        assert [word for word in options(command) if word != "--help" and f"`{word}" not in told] == []


def test_the_document_has_the_table_of_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {int(code): words for code, words in rows} == EXIT_CODES
