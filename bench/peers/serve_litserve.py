# /// script
# dependencies = ["litserve==0.2.19"]
# ///
# mypy: ignore-errors
"""LitServe with one worker for one model; `batched` joins requests that wait."""

import json
import os
import sys
from typing import Any

import joblib
import litserve
import numpy as np


class Peer(litserve.LitAPI):
    """Answers with the one model."""

    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe's own signature
        """Load the model."""
        (path,) = json.loads(os.environ["PEER_MODELS"]).values()
        self.model = joblib.load(path)

    def decode_request(self, request):  # noqa: ANN001, ANN201  a type would be asked for
        """Return the rows."""
        return np.array(request["instances"], dtype=np.float64)

    def predict(self, x: Any) -> Any:
        """Answer rows."""
        return self.model.predict(x)

    def encode_response(self, output: Any) -> Any:
        """Return plain values."""
        return {"predictions": output.tolist()}


class Batched(Peer):
    """The same, for several requests at once."""

    def predict(self, x: Any) -> Any:
        """Answer the joined rows."""
        rows, ends = x
        return np.split(self.model.predict(rows), ends)

    def batch(self, inputs: list[Any]) -> Any:
        """Join requests."""
        return np.concatenate(inputs), np.cumsum([len(rows) for rows in inputs])[:-1]

    def unbatch(self, output: Any) -> Any:
        """Return each request's own answers."""
        return output


if __name__ == "__main__":
    peer = Batched(max_batch_size=64, batch_timeout=0.0) if sys.argv[1:] == ["batched"] else Peer()
    server = litserve.LitServer(peer, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(os.environ["PEER_PORT"]), log_level="warning", access_log=False,
        generate_client_file=False, num_api_servers=1,
    )  # fmt: skip
