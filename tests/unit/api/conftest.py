"""An application on a home of its own, with one classifier that serves and one model without a champion."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.api.application import Parts, create
from service.serving.limits import Limits
from service.serving.worker import Worker
from service.telemetry import Telemetry
from tests.asgi import Client, serving
from tests.served import spool
from tests.staged import staged


class Api:
    """The application with its parts."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.database, self.store, self.first = staged(home)
        telemetry = Telemetry(CollectorRegistry())
        self.worker = Worker(
            self.database,
            self.store,
            spool=spool(home / "spool"),
            telemetry=telemetry,
            limits=Limits(body_bytes=100_000, request_rows=500, deadline_s=2.0),
        )
        self.app = create(Parts(worker=self.worker, database=self.database, telemetry=telemetry, home=home))
        self.client: Client


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """For tests that change nothing."""
    with running(tmp_path_factory.mktemp("home")) as made:
        yield made


@contextmanager
def running(home: Path) -> Iterator[Api]:
    made = Api(home)
    made.worker.replica.look()  # ready at once: no test waits for a thread
    with serving(made.app) as made.client:
        yield made
    made.database.close()
