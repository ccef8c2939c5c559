# /// script
# dependencies = ["mlflow==3.17.2"]
# ///
# mypy: ignore-errors
"""`mlflow models serve` with one worker for one model."""

import json
import os
import shutil
from pathlib import Path

import joblib
import mlflow.sklearn


def main() -> None:
    """Save the model in MLflow's own form, and become the server."""
    folder = Path(os.environ["PEER_FOLDER"]) / "mlflow"
    ((name, path),) = json.loads(os.environ["PEER_MODELS"]).items()
    shutil.rmtree(folder / name, ignore_errors=True)
    mlflow.sklearn.save_model(
        joblib.load(path), str(folder / name), pip_requirements=[], serialization_format="cloudpickle"
    )
    words = ["models", "serve", "-m", str(folder / name), "--env-manager", "local", "-h", "127.0.0.1", "-w", "1"]
    os.chdir(folder)
    os.execvp("mlflow", ["mlflow", *words, "-p", os.environ["PEER_PORT"]])  # noqa: S606, S607


if __name__ == "__main__":
    main()
