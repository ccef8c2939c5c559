"""The verb `decide`: what it refuses before it asks anybody."""

from typing import Any

import pytest
from typer.testing import CliRunner

from service.__main__ import app
from service.commands.decide import _changes

NOWHERE = ["--url", "http://127.0.0.1:9"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "either --explain CHECK or --dry-run MODEL"),
        (["--explain", "1", "--dry-run", "flip"], "either --explain CHECK or --dry-run MODEL"),
        (["--explain", "1", "--policy", "mode=off"], "--policy belongs to --dry-run"),
        (["--dry-run", "flip", "--policy", "mode"], "'mode' is not KEY=VALUE"),
        (["--dry-run", "flip", "--policy", "=off"], "'=off' is not KEY=VALUE"),
        (["--dry-run", "flip", "--last", "0"], "--last"),
    ],
)
def test_a_call_that_makes_no_sense_ends_with_2_before_anybody_is_asked(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["decide", *words, *NOWHERE])
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mode=suggest", "suggest"),
        ("on_drift=true", True),
        ("on_drift=False", False),
        ("confirm=2", 2),
        ("degradation=0.2", 0.2),
        ("max_age=none", None),
        ("budget=2 per 7d", "2 per 7d"),
        ("retry=7d", "7d"),
    ],
)
def test_values_are_read_as_a_person_writes_them(text: str, value: Any) -> None:
    (found,) = _changes([text]).values()
    assert found == value
    assert type(found) is type(value)
