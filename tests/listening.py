"""An application behind a real socket, on this machine's loopback, for clients that know nothing else."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from prometheus_client import CollectorRegistry

from service.api.application import Parts, create
from service.serving.worker import Worker
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.telemetry import Telemetry
from tests.served import spool

__all__ = ["listening"]


@contextmanager
def listening(home: Path, database: Database, store: ArtifactStore) -> Iterator[str]:
    """Yield the address, as host and port, of a server with what stands in `database`."""
    telemetry = Telemetry(CollectorRegistry())
    worker = Worker(database, store, spool=spool(home / "spool"), telemetry=telemetry)
    app = create(Parts(worker=worker, database=database, telemetry=telemetry, home=home))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=20), base_url=f"http://{address}") as client:
                while client.get("/readyz").status_code != httpx.codes.OK:
                    pass
            yield address
        finally:
            server.should_exit = True
            thread.join(20)
