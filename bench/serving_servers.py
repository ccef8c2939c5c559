"""The servers that are measured: how each is started, what it is asked, how its answers read; ours first."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.launched import ROOT, Project, free_port, wait_for
from bench.serving_load import Expected, Form, Reading
from bench.serving_models import FEATURES, MODELS
from bench.serving_usage import MARK, cpu_s, processes

__all__ = ["ECHOES", "HANDWRITTEN", "OURS", "Running", "Server", "echoed", "local", "python", "retrue"]

PEERS = ROOT / "bench" / "peers"
OURS = ("Retrue, compiled", "Retrue, compiled, 2 workers", "Retrue, compiling off")
HANDWRITTEN = "hand-written FastAPI"
ECHOES = ("bare ASGI echo", "Starlette echo", "FastAPI echo")
READY_S, LEAVE_S = 180.0, 20.0
CALM_S, CALM_SHARE, LOOK_S = 30.0, 0.15, 1.0
"""A server that answers may still be starting: its other processes get so long to use no more of a core than this."""

Block = NDArray[np.float64]
encode = msgspec.json.encode
decode = msgspec.json.decode


@dataclass(frozen=True, kw_only=True)
class Server:
    """One row of the table.

    Attributes
    ----------
    command
        Returns the words to start it with, given a port and the models that it shall answer with.
    path
        Of a model's predictions.
    body
        Encodes rows as its users do.
    form
        Reads an answer.
    one_model
        Whether a process answers with one model only, so that it is started once for each.
    is_echo
        Whether it answers with each row's first value instead of a prediction.
    settle
        Waits for what is still being done about requests that were answered.
    """

    name: str
    command: Callable[[int, Sequence[str]], tuple[list[str], dict[str, str]]]
    path: Callable[[str], str]
    body: Callable[[Block], bytes]
    form: Form
    one_model: bool = False
    is_echo: bool = False
    settle: Callable[[], None] = field(default=lambda: None)
    models: tuple[str, ...] = MODELS


class Running:
    """A server's process with all of its children; they carry a mark of ours in their environment.

    Raises
    ------
    RuntimeError
        If it leaves, or does not answer in time.
    """

    def __init__(self, server: Server, models: Sequence[str], *, folder: Path, probe: Block) -> None:
        self.server, self.mark = server, uuid4().hex
        port = free_port()
        words, environ = server.command(port, models)
        self.url = f"http://127.0.0.1:{environ.get('RETRUE_PORT', port)}"
        self.log = folder / f"{server.name.replace(' ', '-').replace(',', '')}.log"
        began = time.perf_counter()
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                words,
                cwd=ROOT,
                env=environ | {MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        try:
            for model in models:
                self._wait(server.path(model), server.body(probe))
        except BaseException:
            self.stop()
            raise
        self.start_s = time.perf_counter() - began
        self._calm()

    def stop(self) -> None:
        """End it and whatever it left behind."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + LEAVE_S
        while self._process.poll() is None and time.monotonic() < ends:
            time.sleep(0.05)
        while left := processes(self.mark):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL if time.monotonic() > ends else signal.SIGTERM)
                except ProcessLookupError:
                    continue
            self._process.poll()
            time.sleep(0.1)
        self._process.wait(5)

    def _wait(self, path: str, body: bytes) -> None:
        import httpx

        def answers() -> bool:
            if self._process.poll() is not None:
                msg = f"{self.server.name} left with exit code {self._process.returncode}: {self.last_words()}"
                raise RuntimeError(msg)
            try:
                answer = httpx.post(
                    self.url + path, content=body, headers={"Content-Type": "application/json"}, timeout=10.0,
                    trust_env=False,
                )  # fmt: skip
            except httpx.TransportError:
                return False
            return answer.status_code == httpx.codes.OK

        try:
            wait_for(answers, deadline_s=READY_S, what=f"{self.server.name} answers {path}")
        except TimeoutError as error:
            msg = f"{error}: {self.last_words()}"
            raise RuntimeError(msg) from error

    def _calm(self) -> None:
        ends = time.monotonic() + CALM_S
        before = cpu_s(self.mark)
        while time.monotonic() < ends:
            time.sleep(LOOK_S)
            now = cpu_s(self.mark)
            if now - before <= CALM_SHARE * LOOK_S:
                return
            before = now

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-3:])[-300:]


def retrue(name: str, made: Project, *, workers: int = 1, extra: Mapping[str, str] | None = None) -> Server:
    """Return our own service over the home of `made`, with everything on: committer and controller beside it."""

    def command(_port: int, _models: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        words = [sys.executable, "-m", "service", "serve", "--workers", str(workers)]
        return words, made.environ | dict(extra or {})

    def settle() -> None:
        # The committer's work belongs to the requests: it counts, and must not run into the next case.
        wait_for(lambda: not _waiting(made.home / "spool"), deadline_s=60, what="the spool is in the lake")

    return Server(
        name=name,
        command=command,
        path=lambda model: f"/v1/models/{model}/predict",
        body=lambda rows: objects(rows) if len(rows) == 1 else lists(rows),
        form=_ours,
        settle=settle,
    )


def local(name: str, file: str, *arguments: str, path: Callable[[str], str], artifacts: Mapping[str, Path]) -> Server:
    """Return a server program of `bench/peers` that runs in our own environment and is asked with objects."""
    is_echo = name in ECHOES
    return Server(
        name=name,
        command=python(Path(sys.executable), file, *arguments, artifacts=artifacts),
        path=path,
        body=objects,
        form=lambda body: Reading(outputs=decode(body)["predictions"]),
        is_echo=is_echo,
        models=MODELS[:1] if is_echo else MODELS,
    )


def python(
    interpreter: Path, file: str, *arguments: str, artifacts: Mapping[str, Path], **more: str
) -> Callable[[int, Sequence[str]], tuple[list[str], dict[str, str]]]:
    """Return what starts a file of `bench/peers`: it reads port and models from its environment."""

    def command(port: int, models: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        home = ROOT / ".cache" / "peers" / "home"
        home.mkdir(parents=True, exist_ok=True)
        own = {
            "PEER_PORT": str(port),
            "PEER_MODELS": encode({model: str(artifacts[model]) for model in models}).decode(),
            "PEER_FOLDER": str(home),
            "HOME": str(home),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "DO_NOT_TRACK": "1",
            # Console scripts of its own environment must be found before ours.
            "PATH": f"{interpreter.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RETRUE_", "PYTHON"))}
        return [str(interpreter), str(PEERS / file), *arguments], kept | own | more

    return command


def echoed(rows: Block) -> Expected:
    """Return what an echo answers."""
    return Expected(outputs=tuple(rows[:, 0].tolist()), close=True)


def objects(rows: Block) -> bytes:
    """Return rows as objects by feature name."""
    return encode({"instances": [dict(zip(FEATURES, row, strict=True)) for row in rows.tolist()]})


def lists(rows: Block) -> bytes:
    """Return rows as lists in the features' order."""
    return encode({"instances": rows.tolist()})


def _ours(body: bytes) -> Reading:
    answer: Any = decode(body)
    if len(answer["ids"]) != len(answer["predictions"]):
        msg = "an answer without ids was not recorded"
        raise ValueError(msg)
    return Reading(outputs=answer["predictions"], probabilities=answer["probabilities"])


def _waiting(spool: Path) -> list[Path]:
    return [path for path in spool.rglob("*") if path.suffix in {".open", ".ready"}]
