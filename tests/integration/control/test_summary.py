"""A data summary as Evidently draws it, which takes seconds."""

import gzip
from pathlib import Path

import pytest

from service.control import summary
from tests.unit.control.conftest import MODEL
from tests.unit.control.test_summary import a_task, some_material


def test_the_summary_says_what_it_shows_and_runs_nothing_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.learning.summary.SAMPLE", 200)
    path = summary.draw_summary(a_task(tmp_path), some_material())
    assert path == tmp_path / MODEL / "data-run-1.html.gz"
    page = gzip.decompress(path.read_bytes()).decode()
    assert "200 of 300 rows, spread evenly in time" in page
    assert "run-1" in page
    assert list(path.parent.iterdir()) == [path]
