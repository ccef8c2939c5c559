"""Makes a process of the service die at a named step, without a hook in its code. Only for `bench/chaos.py`.

Python imports this file at every start when its folder is on PYTHONPATH. It wraps functions of the service as their
modules are imported; a wrapped step looks for a token, a file named like the step. Who takes the token away is killed,
so each token kills once. Steps that the service does not have (any more) are noted, never an error.
"""

import contextlib
import functools
import importlib.machinery
import inspect
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

__all__: list[str] = []

FOLDER = os.environ.get("CHAOS_FOLDER", "")
_local = threading.local()


def note(kind: str, **facts: Any) -> None:
    """Append one line to the harness's journal."""
    line = json.dumps({"kind": kind, "pid": os.getpid(), "at": time.time(), **facts}) + "\n"
    journal = os.open(f"{FOLDER}/journal.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(journal, line.encode())
    os.close(journal)


def claim(step: str) -> str | None:
    """Return the token's content if there was one for `step`; it is gone then."""
    path = f"{FOLDER}/tokens/{step}"
    try:
        with open(path, encoding="utf-8") as token:  # noqa: PTH123  in the path of every request: no objects
            content = token.read()
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return None
    return content


def reach(step: str) -> None:
    """Die here if a token says so; or kill the process that it names."""
    content = claim(step)
    if content is None:
        return
    target = os.getpid() if content == "self" else int(content)
    note("kill", step=step, target=target, role=role())
    with contextlib.suppress(ProcessLookupError):
        os.kill(target, signal.SIGKILL)


def role() -> str:
    """Return what this process is."""
    words = " ".join(("", *sys.argv))
    known = ("worker", "committer", "controller", "api")
    return os.environ.get("CHAOS_ROLE") or next((name for name in known if f" {name}" in words), "unknown")


def around(owner: Any, name: str, step: str) -> None:
    """Wrap a function: the steps `step`.before and `step`.after."""
    inner = _found(owner, name)
    if inner is None:
        return

    @functools.wraps(inner)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        reach(f"{step}.before")
        result = inner(*args, **kwargs)
        reach(f"{step}.after")
        return result

    setattr(owner, name, wrapped)


def written(owner: Any, name: str, step: Callable[..., str] | str) -> None:
    """Wrap a function that writes in its caller's transaction: the steps `step`.uncommitted and `step`.committed."""
    inner = _found(owner, name)
    if inner is None:
        return

    @functools.wraps(inner)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        named = step if isinstance(step, str) else step(*args, **kwargs)
        reach(f"{named}.uncommitted")
        _pending().append(functools.partial(reach, f"{named}.committed"))
        return result

    setattr(owner, name, wrapped)


def _pending() -> list[Callable[[], None]]:
    """Return what is to be done once this thread's transaction has committed."""
    after: list[Callable[[], None]] | None = getattr(_local, "after", None)
    if after is None:
        after = _local.after = []
    return after


def _found(owner: Any, name: str) -> Any:
    inner = getattr(owner, name, None)
    if not callable(inner):
        note("absent", step=f"{getattr(owner, '__name__', owner)}.{name}")
        return None
    return inner


def _database(module: ModuleType) -> None:
    inner = module.Database.write

    @contextlib.contextmanager
    def write(self: Any) -> Iterator[Any]:
        _pending().clear()
        with inner(self) as connection:
            yield connection
        after, _local.after = _pending(), []
        for act in after:
            act()

    module.Database.write = write


def _runs(module: ModuleType) -> None:
    def named(_conn: Any, _run: Any, after: Any, **_: Any) -> str:
        return f"run.{after.value}"

    written(module, "transition", named)
    written(module, "create", "run.queued")


def _champions(module: ModuleType) -> None:
    written(module, "swap", "swap.commit")
    written(module, "request_swap", "swap.ask")
    written(module, "fail_swap", "swap.fail")


def _replicas(module: ModuleType) -> None:
    inner = module.answer_swap

    @functools.wraps(inner)
    def answer_swap(conn: Any, replica_id: str, swap_id: str, *args: Any, **kwargs: Any) -> Any:
        result = inner(conn, replica_id, swap_id, *args, **kwargs)
        _pending().append(functools.partial(note, "agreed", swap=swap_id, ready=kwargs.get("ready")))
        return result

    module.answer_swap = answer_swap  # type: ignore[attr-defined]
    written(module, "answer_swap", "replica.answer")


def _slots(module: ModuleType) -> None:
    inner = module.Slots.bind

    @functools.wraps(inner)
    def bind(self: Any, bundle: Any) -> Any:
        reach("replica.bind.before")
        result = inner(self, bundle)
        note("bound", model=bundle.model, version=bundle.version, generation=bundle.generation)
        reach("replica.bind.after")
        return result

    module.Slots.bind = bind


def _spool(module: ModuleType) -> None:
    writer = module.SpoolWriter
    inner = _found(writer, "_append")
    if inner is not None:

        @functools.wraps(inner)
        def append(self: Any, buffers: Any) -> None:
            inner(self, buffers)
            if claim("spool.torn") is not None:
                # As if the process had died in the middle of the write: half a record, and no answer.
                size = sum(map(len, buffers))
                os.ftruncate(self._file, self._size - size // 2)
                note("kill", step="spool.torn", target=os.getpid(), role=role())
                os.kill(os.getpid(), signal.SIGKILL)

        writer._append = append
    around(writer, "_append", "spool.append")
    around(writer, "_rotate", "spool.rotate")


def _committer(module: ModuleType) -> None:
    around(module.Committer, "_append", "committer.append")
    around(module.Committer, "_dispose", "committer.dispose")


def _artifacts(module: ModuleType) -> None:
    around(module.ArtifactStore, "put", "artifact.put")
    inner = module.ArtifactStore.put

    @functools.wraps(inner)
    def put(self: Any, content: Any) -> Any:
        sha256 = inner(self, content)
        harm = claim("artifact.corrupt")
        if harm is not None:
            note("corrupt", how=harm, artifact=sha256)
            _corrupt(self.root / sha256, harm)
        return sha256

    module.ArtifactStore.put = put


def _corrupt(path: Any, harm: str) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
        return
    if harm == "flip":
        content[len(content) // 2] ^= 0x10
    path.write_bytes(content if harm == "flip" else content[: len(content) // 2])
    path.chmod(0o444)


def _processes(module: ModuleType) -> None:
    inner = _found(module, "_enter")
    if inner is None:
        return

    @functools.wraps(inner)
    def _enter(kind: Any, *args: Any, **kwargs: Any) -> Any:
        # The fork server's children look alike from outside: each says what it is.
        os.environ["CHAOS_ROLE"] = {"train": "trainer", "check": "checker"}.get(kind, str(kind))
        note("child", role=os.environ["CHAOS_ROLE"])
        return inner(kind, *args, **kwargs)

    module._enter = _enter  # type: ignore[attr-defined]


def _every(prefix: str) -> Callable[[ModuleType], None]:
    def install(module: ModuleType) -> None:
        for name in getattr(module, "__all__", ()):
            if inspect.isfunction(getattr(module, name, None)):
                written(module, name, f"{prefix}.{name}")

    return install


HOOKS: dict[str, Callable[[ModuleType], None]] = {
    "service.storage.database": _database,
    "service.storage.runs": _runs,
    "service.storage.champions": _champions,
    "service.storage.probations": _every("probation"),
    "service.storage.leases": lambda module: written(module, "acquire", "lease.acquire"),
    "service.storage.replicas": _replicas,
    "service.storage.versions": lambda module: written(module, "insert", "version.insert"),
    "service.storage.artifacts": _artifacts,
    "service.storage.spool": _spool,
    "service.storage.lake": lambda module: around(module.Lake, "maintain", "lake.maintain"),
    "service.storage.committer": _committer,
    "service.serving.slot": _slots,
    "service.control.processes": _processes,
    "service.control.verdict": lambda module: written(module, "conclude", "check.conclude"),
    "service.learning.examine": lambda module: around(module, "examine", "check.examine"),
}


class Finder:
    """Hands a module to its hook as soon as its code has run."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Return the module's own spec, with a loader that installs the hook."""
        install = HOOKS.get(name)
        spec = None if install is None else importlib.machinery.PathFinder.find_spec(name, path, target)
        loader: Any = None if spec is None else spec.loader
        if install is None or spec is None or loader is None:
            return None
        inner = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            inner(module)
            install(module)

        loader.exec_module = exec_module
        return spec


if FOLDER:
    sys.meta_path.insert(0, Finder)
