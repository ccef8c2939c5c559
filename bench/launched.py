"""Starts the real command in a scratch project, as a user would, and ends what it started."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.client import Refused, Unreachable

__all__ = ["ROOT", "Launched", "Project", "free_port", "scratch", "wait_for"]

ROOT = Path(__file__).resolve().parents[1]


def scratch(name: str) -> Path:
    """Return a new folder below this one's ``.cache``: nothing is written elsewhere."""
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))


class Project:
    """A folder with models, data and a home of its own.

    Parameters
    ----------
    folder
        Scratch folder; made.
    models
        Content by file name, for the folder ``models/``.
    data
        Files of the project's ``data/`` that the models start from.
    settings
        Further ``RETRUE_`` variables.
    """

    def __init__(
        self, folder: Path, *, models: Mapping[str, str], data: tuple[str, ...], settings: Mapping[str, str]
    ) -> None:
        self.folder, self.home = folder, folder / "home"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        for name in ("models", "data"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name, text in models.items():
            (folder / "models" / name).write_text(text)
        for name in data:
            shutil.copyfile(ROOT / "data" / name, folder / "data" / name)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RETRUE_")},
            "RETRUE_HOME": str(self.home),
            "RETRUE_MODELS_FOLDER": str(folder / "models"),
            "RETRUE_HOST": "127.0.0.1",
            "RETRUE_PORT": str(self.port),
            **settings,
        }

    @property
    def database(self) -> str:
        """URL of the state database."""
        return self.environ.get("RETRUE_DATABASE_URL") or f"sqlite:///{self.home / 'retrue.db'}"


class Launched:
    """One process of ours, with its log."""

    def __init__(self, project: Project, *words: str, log: str) -> None:
        self.words = words
        # Where the source is, so that `-m service` is the code beside this file, whatever is installed.
        with (project.folder / log).open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service", *words],
                cwd=ROOT,
                env=project.environ,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def stop(self, *, patience_s: float = 20.0) -> int:
        """Ask it to leave; return its exit code, or -9 if it had to be killed with all of its group."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                return self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(5)
        return int(self.process.returncode)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(claim: Callable[[], Any], *, deadline_s: float, what: str, pause_s: float = 0.05) -> Any:
    """Return what `claim` returns as soon as it is true; a service that is on its way up or down is waited for.

    Raises
    ------
    TimeoutError
        If it does not become true in time.
    """
    ends = time.monotonic() + deadline_s
    while True:
        with suppress(Refused, Unreachable):
            value = claim()
            if value:
                return value
        if time.monotonic() > ends:
            msg = f"{what}: not within {deadline_s:.0f} s"
            raise TimeoutError(msg)
        time.sleep(pause_s)
