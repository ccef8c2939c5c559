"""Log lines: each call has a slug of its own, and what is bound stands in each line."""

import ast
import io
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import journal
from service.control.processes import _names
from service.journal import ConsoleFormatter, JsonFormatter, bind, bound, facts
from service.telemetry import Slug

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def slugs(tree: ast.Module) -> Iterator[tuple[int, str | None]]:
    """Yield line and slug of each call of a logger; None: it is no constant."""
    for node in ast.walk(tree):
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if not (is_call and isinstance(node.func.value, ast.Name) and node.func.value.id == "log"):  # type: ignore[attr-defined]
            continue
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Attribute)
        if node.func.attr not in LEVELS:
            continue
        word = node.args[1 if node.func.attr == "log" else 0]
        if isinstance(word, ast.Constant) and isinstance(word.value, str):
            yield node.lineno, word.value
        elif isinstance(word, ast.Attribute) and isinstance(word.value, ast.Name) and word.value.id == "Slug":
            yield node.lineno, Slug[word.attr].value
        else:
            yield node.lineno, None


def test_each_log_call_has_a_slug_of_its_own() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}": slug
        for path in sorted((ROOT / "service").rglob("*.py"))
        for line, slug in slugs(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert len(found) > 70
    assert {place: slug for place, slug in found.items() if not re.fullmatch(r"[a-z][a-z0-9_]+", slug or "")} == {}
    counts = Counter(found.values())
    assert {place: slug for place, slug in found.items() if counts[slug] > 1} == {}


def line_of(formatter: logging.Formatter, **fields: object) -> str:
    record = logging.LogRecord("service.x", logging.INFO, __file__, 1, "swap_done", None, None)
    record.__dict__.update(facts(**fields))
    return formatter.format(record)


def test_what_is_bound_stands_in_each_line_for_as_long_and_a_lines_own_facts_win() -> None:
    formatter = JsonFormatter("api-0")
    with bound(request="r1", model="bikes"):
        with bound(run="u1"):
            inner = json.loads(line_of(formatter, model="taxis"))
        outer = json.loads(line_of(formatter))
    assert (inner["request"], inner["run"], inner["model"]) == ("r1", "u1", "taxis")
    assert (outer["request"], outer["model"], outer.get("run")) == ("r1", "bikes", None)
    assert "request" not in json.loads(line_of(formatter))
    assert {"at", "level", "role", "action"} <= outer.keys()


def test_a_childs_lines_name_what_it_was_started_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_process", {})

    class Task:
        run_id, model = "u1", "bikes"

    bind(**_names(Task()))
    line = json.loads(line_of(JsonFormatter("trainer")))
    assert (line["run"], line["model"]) == ("u1", "bikes")
    assert _names(object()) == {}


def test_a_line_break_out_of_a_request_makes_no_line_in_either_style(monkeypatch: pytest.MonkeyPatch) -> None:
    forged = 'x\n12:00:00.000 info  api-0 key_made name="eve"\x1b[2J'
    for style in ("console", "json"):
        sink = io.StringIO()
        monkeypatch.setattr(sys, "stderr", sink)
        root = logging.getLogger()
        before, level = root.handlers[:], root.level
        try:
            journal.set_up("api-0", style=style)
            logging.getLogger("service.x").warning("request_done", extra=facts(model=forged, words="plain and simple"))
        finally:
            root.handlers[:], root.level = before, level
            logging.captureWarnings(capture=False)
        assert len(sink.getvalue().splitlines()) == 1
        assert "\x1b" not in sink.getvalue()
        assert '"plain and simple"' in sink.getvalue()


def test_the_console_style_says_who_what_and_the_facts() -> None:
    line = line_of(ConsoleFormatter("controller"), model="bikes", version=3)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} info  controller  swap_done model=bikes version=3", line)
