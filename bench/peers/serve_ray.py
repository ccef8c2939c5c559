# /// script
# dependencies = ["ray[serve]==2.60.0"]
# ///
# mypy: ignore-errors
"""Ray Serve with one replica a model; `batched` joins requests that wait."""

import json
import os
import signal
import sys
import threading
from typing import Any

import joblib
import numpy as np
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=256)
class Plain:
    """Answers each request by itself."""

    def __init__(self, path: str) -> None:
        self.model = joblib.load(path)

    async def __call__(self, request: Request) -> Any:
        """Answer one request."""
        rows = np.array((await request.json())["instances"], dtype=np.float64)
        return {"predictions": self.model.predict(rows).tolist()}


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=256)
class Batched:
    """Joins requests."""

    def __init__(self, path: str) -> None:
        self.model = joblib.load(path)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0)
    async def answer(self, blocks: list[Any]) -> list[Any]:
        """Answer several requests at once."""
        ends = np.cumsum([len(rows) for rows in blocks])[:-1]
        parts = np.split(self.model.predict(np.concatenate(blocks)), ends)
        return [{"predictions": part.tolist()} for part in parts]

    async def __call__(self, request: Request) -> Any:
        """Answer one request."""
        return await self.answer(np.array((await request.json())["instances"], dtype=np.float64))


def main() -> None:
    """Run until told to end."""
    stop = threading.Event()
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False,
        _temp_dir=f"{os.environ['PEER_FOLDER']}/ray", object_store_memory=200 * 2**20,
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    kind = Batched if sys.argv[1:] == ["batched"] else Plain
    for name, path in json.loads(os.environ["PEER_MODELS"]).items():
        serve.run(kind.bind(path), name=name, route_prefix=f"/{name}")
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
