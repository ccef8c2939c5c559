# /// script
# dependencies = ["bentoml==1.4.39"]
# ///
# mypy: ignore-errors
"""BentoML with one worker; `batched` turns its adaptive batching on."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import bentoml
import joblib
import numpy as np

PATHS = json.loads(os.environ["PEER_MODELS"])
IS_BATCHED = os.environ.get("PEER_BATCHED") == "1"
OPTIONS: dict[str, Any] = {"batchable": True, "max_batch_size": 4096, "max_latency_ms": 1000} if IS_BATCHED else {}


@bentoml.service(workers=1, traffic={"timeout": 30})
class Peer:
    """Answers with all models."""

    def __init__(self) -> None:
        self.models = {name: joblib.load(path) for name, path in PATHS.items()}

    @bentoml.api(**OPTIONS)
    def linear(self, x: np.ndarray) -> np.ndarray:
        """Answer with the linear model."""
        return self.models["linear"].predict(x)

    @bentoml.api(**OPTIONS)
    def boosting(self, x: np.ndarray) -> np.ndarray:
        """Answer with boosted trees."""
        return self.models["boosting"].predict(x)

    @bentoml.api(**OPTIONS)
    def forest(self, x: np.ndarray) -> np.ndarray:
        """Answer with the forest."""
        return self.models["forest"].predict(x)


def main() -> None:
    """Become the server."""
    here = Path(__file__)
    own = {
        "BENTOML_HOME": f"{os.environ['PEER_FOLDER']}/bentoml",
        "BENTOML_DO_NOT_TRACK": "True",
        "PEER_BATCHED": str(int(sys.argv[1:] == ["batched"])),
    }
    words = ["serve", f"{here.stem}:Peer", "--working-dir", str(here.parent), "--port", os.environ["PEER_PORT"]]
    os.execvpe("bentoml", ["bentoml", *words, "--host", "127.0.0.1"], os.environ | own)  # noqa: S606, S607


if __name__ == "__main__":
    main()
