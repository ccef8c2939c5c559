"""What reads the model files dies, or what it read cannot be written down: they are read again by themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.control import controller as controlled
from service.control import files
from service.control.controller import Controller
from service.domain.errors import DatabaseUnavailable
from service.storage import models
from service.telemetry import Telemetry
from tests.workshop import Workshop

ONCE = """
import os, signal
from pathlib import Path
_flag = Path(__file__).parent.parent / "flags" / "read"
if not _flag.exists():
    _flag.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def running(workshop: Workshop) -> Iterator[None]:
    controller = Controller(workshop.place(), workshop.database, Telemetry())
    controller.start()
    try:
        yield
    finally:
        controller.stop()
        workshop.database.close()


def names(conn: Any) -> list[str]:
    return [row.name for row in models.list_all(conn) if not row.error]


def test_model_files_are_read_again_when_what_read_them_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlled, "FILES_AGAIN_S", 0.2)
    workshop = Workshop(tmp_path)
    workshop.add("good")
    file = workshop.project / "models" / "good.py"
    file.write_text(ONCE + file.read_text())
    with running(workshop):
        assert workshop.until(names) == ["good"]
    assert workshop.flag("read").exists()


def test_model_files_are_read_again_when_the_database_was_away_as_they_were_to_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlled, "FILES_AGAIN_S", 0.2)
    tries: list[Any] = []

    def away_once(*given: Any, **more: Any) -> Any:
        tries.append(given)
        if len(tries) == 1:
            raise DatabaseUnavailable("away")
        return files.record(*given, **more)

    monkeypatch.setattr(controlled, "record", away_once)
    workshop = Workshop(tmp_path)
    workshop.add("good")
    with running(workshop):
        assert workshop.until(names) == ["good"]
    assert len(tries) == 2
