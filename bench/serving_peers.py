"""The other model servers: one environment each, made from the versions that its file in `bench/peers` pins."""

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.launched import ROOT
from bench.serving_load import Reading
from bench.serving_servers import PEERS, Server, lists, python

__all__ = ["PACKAGES", "installed", "peers", "requirements"]

CACHE = ROOT / ".cache" / "peers"
HEADER = re.compile(r"^# /// script\n((?:# .*\n)*)# ///$", re.MULTILINE)
OURS = ("scikit-learn", "joblib")
"""A pipeline can only be read by the release that wrote it."""
PATIENCE_S = 1200.0
PACKAGES = ("mlserver", "litserve", "bentoml", "mlflow", "ray")

decode = msgspec.json.decode


def requirements(text: str) -> list[str]:
    """Return the requirements in a script's own header (PEP 723).

    Raises
    ------
    ValueError
        If it has none.
    """
    found = HEADER.search(text)
    if found is None:
        msg = "the file has no `# /// script` header"
        raise ValueError(msg)
    plain = "".join(line[2:] for line in found[1].splitlines(keepends=True))
    return list(tomllib.loads(plain)["dependencies"])


def installed(package: str) -> Path:
    """Return the interpreter of a peer's environment, which is made first if it is not there as pinned.

    Raises
    ------
    RuntimeError
        If it can't be made.
    """
    wanted = requirements((PEERS / f"serve_{package}.py").read_text())
    wanted += [f"{name}=={version(name)}" for name in OURS]
    folder, digest = CACHE / package, hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    interpreter, stamp = folder / "bin" / "python", folder / "requirements.sha256"
    if stamp.exists() and stamp.read_text() == digest:
        return interpreter
    print(f"installing {' '.join(wanted)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv")
    if uv:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        _run([uv, "pip", "install", "--quiet", "--python", str(interpreter), *wanted])
    else:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(interpreter), "-m", "pip", "install", "--quiet", *wanted])
    stamp.write_text(digest)
    return interpreter


def peers(artifacts: Mapping[str, Path], *, only: Sequence[str] | None) -> tuple[list[Server], dict[str, str]]:
    """Return the servers that could be installed, and why the others could not."""
    servers: list[Server] = []
    failed: dict[str, str] = {}
    for package in PACKAGES:
        names = [name for name, (of, *_) in KINDS.items() if of == package]
        names = [name for name in names if not only or any(word in name for word in only)]
        if not names:
            continue
        try:
            interpreter = installed(package)
        except (RuntimeError, subprocess.SubprocessError) as error:
            failed |= dict.fromkeys(names, f"not installed: {error}")
            continue
        servers += [_server(name, interpreter, artifacts) for name in names]
    return servers, failed


Block = NDArray[np.float64]


def _v2(rows: Block) -> bytes:
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    return msgspec.json.encode({"inputs": [tensor]})


def _predictions(body: bytes) -> Reading:
    return Reading(outputs=decode(body)["predictions"])


def _path(words: str) -> Callable[[str], str]:
    return lambda model: words.format(model=model)


INFER, OWN = _path("/v2/models/{model}/infer"), _path("/{model}")
FORMS: dict[str, dict[str, Any]] = {
    "mlserver": {
        "path": INFER,
        "body": _v2,
        "form": lambda body: Reading(outputs=np.ravel(decode(body)["outputs"][0]["data"]).tolist()),
    },
    "bentoml": {
        "path": OWN,
        "body": lambda rows: msgspec.json.encode({"x": rows.tolist()}),
        "form": lambda body: Reading(outputs=decode(body)),
    },
    "litserve": {"path": _path("/predict"), "body": lists, "form": _predictions, "one_model": True},
    "mlflow": {
        "path": _path("/invocations"),
        "body": lambda rows: msgspec.json.encode({"inputs": rows.tolist()}),
        "form": _predictions,
        "one_model": True,
    },
    "ray": {"path": OWN, "body": lists, "form": _predictions},
}
"""What each is asked, as its documentation shows it."""
KINDS: dict[str, tuple[str, ...]] = {
    "MLServer": ("mlserver",),
    "MLServer, batching": ("mlserver", "batched"),
    "LitServe": ("litserve",),
    "LitServe, batching": ("litserve", "batched"),
    "BentoML": ("bentoml",),
    "BentoML, batching": ("bentoml", "batched"),
    "MLflow": ("mlflow",),
    "Ray Serve": ("ray",),
    "Ray Serve, batching": ("ray", "batched"),
}
MORE = {"ray": {"RAY_USAGE_STATS_ENABLED": "0"}, "mlflow": {"MLFLOW_DISABLE_TELEMETRY": "true"}}


def _server(name: str, interpreter: Path, artifacts: Mapping[str, Path]) -> Server:
    package, *arguments = KINDS[name]
    start = python(interpreter, f"serve_{package}.py", *arguments, artifacts=artifacts, **MORE.get(package, {}))
    return Server(name=name, command=start, **FORMS[package])


def _run(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if done.returncode != 0:
        msg = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}")[-300:]
        raise RuntimeError(msg)
