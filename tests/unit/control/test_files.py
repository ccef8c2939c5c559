"""Model files: a broken one never takes down the others, and says where and what to mend."""

from pathlib import Path

import pytest

from service.control.files import FoundModel, fingerprint, read_files, record
from service.storage import models
from service.storage.database import Database
from tests.unit.control.conftest import AT, MODEL

GOOD = """
from sklearn.linear_model import LogisticRegression
from service.spec import Drift, ModelSpec
spec = ModelSpec(name="{name}", task="classification", target="y", timestamp="at", build=LogisticRegression,
                 metric="accuracy", source="{source}"{more})
"""
ROWS = "at,x,y\n" + "\n".join(f"2026-01-01T{hour:02}:00:00Z,{hour / 10},{'ab'[hour % 2]}" for hour in range(24))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text(ROWS)
    return tmp_path


def write(project: Path, file: str, text: str | None = None, **fields: str) -> None:
    values = {"name": Path(file).stem, "source": "data/rows.csv", "more": "", **fields}
    (project / "models" / file).write_text(GOOD.format(**values) if text is None else text)


def read(project: Path) -> dict[str, FoundModel]:
    return {Path(model.file).stem: model for model in read_files(project / "models")}


def test_a_good_file_gives_spec_and_schema(project: Path) -> None:
    write(project, "good.py")
    found = read(project)["good"]
    assert found.error is None
    assert found.schema is not None
    assert found.schema.names == ("x",)
    spec = found.to_json()["spec"]
    assert spec["policies"]["drift"]["window"] == "7d"
    assert "build" not in spec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_package", ("at line 1", "no_such_package")),
        ("x = 1\ny = (", ("at line 2", "SyntaxError")),
        ("import sys\nsys.exit(3)", ("at line 2", "SystemExit")),
        ("x = 1", ("no ModelSpec named `spec`",)),
        (GOOD.format(name="Bad Name", source="data/rows.csv", more=""), ("field name", "Bad Name")),
        (GOOD.format(name="bad", source="data/rows.csv", more=', drift=Drift(window="soon")'), ("window", "'soon'")),
        (GOOD.format(name="bad", source="data/rows.csv", more=", colour=1"), ("colour",)),
        (GOOD.format(name="bad", source="data/none.csv", more=""), ("field source", "data/none.csv", "put it there")),
        (GOOD.format(name="bad", source="models/bad.py", more=""), ("field source", ".parquet nor .csv")),
        (GOOD.format(name="bad", source="data/rows.csv", more=", description=spec"), ("at line 5", "NameError")),
    ],
)
def test_a_broken_file_names_file_and_what_to_mend_and_the_others_serve(
    project: Path, text: str, words: tuple[str, ...]
) -> None:
    write(project, "good.py")
    write(project, "bad.py", text)
    found = read(project)
    assert found["good"].error is None
    error = found["bad"].error
    assert error is not None
    assert error.startswith("models/bad.py")
    assert "\n" not in error
    for word in words:
        assert word in error


def test_a_name_that_is_taken_names_both_files_and_the_first_stands(project: Path, database: Database) -> None:
    write(project, "one.py", name="twin")
    write(project, "two.py", name="twin")
    found = read(project)
    assert found["one"].error is None
    assert "models/one.py" in (found["two"].error or "")
    with database.write() as conn:
        record(conn, [model.to_json() for model in found.values()], at=AT)
        assert models.get(conn, "twin").error is None


def test_a_file_that_breaks_later_keeps_what_was_known(project: Path, database: Database) -> None:
    write(project, f"{MODEL}.py", "import no_such_package")
    with database.write() as conn:
        record(conn, [model.to_json() for model in read(project).values()], at=AT)
        row = models.get(conn, MODEL)
    assert row.error is not None
    assert row.spec is not None


def test_an_edit_changes_the_fingerprint(project: Path) -> None:
    write(project, "good.py")
    before = fingerprint(project / "models")
    assert fingerprint(project / "models") == before
    write(project, "good.py", more=", description='another'")
    assert fingerprint(project / "models") != before
    write(project, "_draft.py")
    assert set(read(project)) == {"good"}
