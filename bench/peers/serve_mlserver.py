# /// script
# dependencies = ["mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop==0.21.0"]
# ///
"""MLServer with one inference worker, its default; `batched` turns its adaptive batching on. Newer uvloops kill it."""

import json
import os
import sys
from pathlib import Path

BATCH = {"max_batch_size": 64, "max_batch_time": 0.002}


def main() -> None:
    """Write the folder of models, and become the server."""
    folder = Path(os.environ["PEER_FOLDER"]) / "mlserver"
    is_batched = sys.argv[1:] == ["batched"]
    port = int(os.environ["PEER_PORT"])
    for name, path in json.loads(os.environ["PEER_MODELS"]).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        settings = {
            "name": name,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": path, "version": "1"},
            **(BATCH if is_batched else {}),
        }
        (folder / name / "model-settings.json").write_text(json.dumps(settings))
    ports = {"host": "127.0.0.1", "http_port": port, "grpc_port": 0, "metrics_port": 0}
    (folder / "settings.json").write_text(json.dumps({**ports, "debug": False}))
    os.chdir(folder)  # it leaves a folder of metrics where it runs
    os.execvp("mlserver", ["mlserver", "start", str(folder)])  # noqa: S606, S607  of its own environment


if __name__ == "__main__":
    main()
