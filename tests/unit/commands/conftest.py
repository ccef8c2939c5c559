"""The command line against an application of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commanded import Command, Wire
from tests.unit.api.conftest import Api, running


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running(tmp_path / "home") as made:
        yield made


@pytest.fixture(scope="module")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """For tests that change nothing."""
    with running(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture
def wire(api: Api) -> Wire:
    return Wire(api.client)


@pytest.fixture
def retrue(wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return the command, asking an application that it may change."""
    return Command(wire, tmp_path / "folder", monkeypatch=monkeypatch, capsys=capsys)


@pytest.fixture
def looking(
    shared_api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Return the command, asking an application that others ask too."""
    return Command(Wire(shared_api.client), tmp_path / "folder", monkeypatch=monkeypatch, capsys=capsys)
