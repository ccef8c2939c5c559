"""Reads the model files in a process of its own: they are somebody's code, and may hang, exit or crash."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.control.files import read_files
from service.control.tasks import FilesTask

__all__ = ["read"]


def read(task: FilesTask, send: Callable[[Any], None]) -> None:
    """Send what each file holds, as plain JSON values."""
    send([found.to_json() for found in read_files(Path(task.folder))])
