"""The console on a database of its own, asked in this very process."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from service.api import problems
from service.api.problems import status_of
from service.console.door import Door
from service.console.routes import router
from service.console.site import Site
from service.storage.database import Database
from tests.asgi import Client, serving
from tests.fleet import Fleet, fleet
from tests.forms import Operator
from tests.migrated import migrated

SETTINGS = [
    {"name": "home", "variable": "RETRUE_HOME", "value": "/srv/retrue", "origin": "environment"},
    {"name": "database_url", "variable": "RETRUE_DATABASE_URL", "value": "postgresql://r:***@db/r", "origin": ".env"},
    {"name": "webhook_secret", "variable": "RETRUE_WEBHOOK_SECRET", "value": "hush-hush", "origin": "environment"},
    {"name": "port", "variable": "RETRUE_PORT", "value": "8080", "origin": "default"},
]


class Console:
    """The console with its parts."""

    database: Database
    made: Fleet
    client: Client
    site: Site
    leaving = False

    @property
    def operator(self) -> Operator:
        """Somebody at a browser."""
        return Operator(self.client)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fleet]:
    """Return a database with a fleet, and what is in it: written once, copied for each test."""
    file = tmp_path_factory.mktemp("written") / "retrue.db"
    database = migrated(file)
    made = fleet(database)
    database.close()
    return file, made


@contextmanager
def opened(home: Path, *, door: Door | None = None, written: tuple[Path, Fleet] | None = None) -> Iterator[Console]:
    console = Console()
    if written is not None:
        for file in written[0].parent.glob("retrue.db*"):
            shutil.copy(file, home)
        console.made = written[1]
    console.database = migrated(home / "retrue.db") if written is None else Database(f"sqlite:///{home / 'retrue.db'}")
    console.site = Site(
        console.database, settings=SETTINGS, status_of=status_of, is_leaving=lambda: console.leaving, door=door,
        patience_s=60,
    )  # fmt: skip
    app: Any = FastAPI(docs_url=None, redoc_url=None)
    problems.install(app)
    app.include_router(router(console.site))
    with serving(app) as console.client:
        yield console
    console.database.close()


@pytest.fixture
def console(tmp_path: Path, written: tuple[Path, Fleet]) -> Iterator[Console]:
    with opened(tmp_path, written=written) as made:
        yield made


@pytest.fixture(scope="module")
def shared_console(tmp_path_factory: pytest.TempPathFactory, written: tuple[Path, Fleet]) -> Iterator[Console]:
    """For tests that change nothing."""
    with opened(tmp_path_factory.mktemp("home"), written=written) as made:
        yield made


@pytest.fixture(scope="module")
def empty_console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """On a database in which nothing was ever written."""
    with opened(tmp_path_factory.mktemp("empty")) as made:
        yield made
