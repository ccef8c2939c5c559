"""Laws of the house itself: what the documents claim is there, and nobody unpickles what a client sent."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "service").rglob("*.py"))

UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
MAY_LOAD = {"service/serving/bundle.py", "service/learning/package.py"}
"""They load artifacts out of the store, by digest."""


def imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_nothing_that_can_unpickle_is_imported_but_where_artifacts_are_loaded_by_digest() -> None:
    found = {
        str(path.relative_to(ROOT)): both
        for path in SOURCES
        if (both := imported(ast.parse(path.read_text(encoding="utf-8"))) & UNPICKLERS)
    }
    assert set(found) <= MAY_LOAD, found


def test_the_invariants_name_tests_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("## Invariants") : text.index("## Dependencies")]
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", table)
    assert len(named) >= 8
    assert [name for name in named if f"def {name}(" not in tests] == []


@pytest.mark.parametrize(
    "document", ["README.md", "docs/architecture.md", "docs/bench.md", "docs/console.md", "docs/protocols.md"]
)
def test_documents_link_to_files_that_exist(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_dependency_has_its_line_in_the_architecture() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = project[project.index("dependencies = [") : project.index("[project.scripts]")]
    names = re.findall(r'^\s*"([a-z0-9-]+)', declared, flags=re.MULTILINE)
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [name for name in names if name not in text] == []


def test_files_stay_small_enough_to_be_read_at_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): count for path in SOURCES if (count := len(path.read_text().splitlines())) > 400
    }
    assert long == {}
