"""Structured log lines: a slug that says what happened, and the facts as fields; for people or as JSON.

``log.info("swap_done", extra=facts(model="bikes", version=3))``. Each call has a slug of its own, so a line names the
place that wrote it. What is `bound` stands in every line of its task: a request's id, the run of a trainer.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, ClassVar

from typing_extensions import override

__all__ = ["ConsoleFormatter", "JsonFormatter", "bind", "bound", "facts", "set_up"]

_bound: ContextVar[Mapping[str, Any]] = ContextVar("bound")
_process: dict[str, Any] = {}


def facts(**fields: Any) -> dict[str, Any]:
    """Return `fields` in the shape that `logging`'s ``extra`` takes."""
    return {"facts": fields}


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Let every line of this task, and of the threads that it waits for, carry `fields` for a while."""
    token = _bound.set({**_bound.get({}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bind(**fields: Any) -> None:
    """Let every further line of this process carry `fields`: one that was started for one thing says so once."""
    _process.update(fields)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    @override
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": _moment(record),
            "level": record.levelname.lower(),
            "role": self._role,
            "action": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """A line for people: time, level, who, what, facts."""

    LEVELS: ClassVar[dict[int, str]] = {
        logging.DEBUG: "debug", logging.INFO: "info ", logging.WARNING: "WARN ", logging.ERROR: "ERROR"
    }  # fmt: skip

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    @override
    def format(self, record: logging.LogRecord) -> str:
        shown = " ".join(f"{name}={_word(value)}" for name, value in _fields(record).items())
        level = self.LEVELS.get(record.levelno, record.levelname)
        line = f"{_moment(record)[11:23]} {level} {self._role:<11} {record.getMessage()} {shown}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up(role: str, *, level: str = "info", style: str = "console") -> None:
    """Send every log line of this process to standard error.

    Parameters
    ----------
    role
        What this process is: controller, committer, api-0, trainer …
    level
        Least level that is written.
    style
        ``console`` or ``json``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role) if style == "json" else ConsoleFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Their info lines tell an operator nothing: a tick every quarter of a second, a migration step, an access.
    for chatty in ("alembic", "uvicorn", "uvicorn.access", "httpx", "evidently", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)  # `control.tick` tells what matters, once
    logging.captureWarnings(capture=True)


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = {**_process, **_bound.get({}), **getattr(record, "facts", {})}
    return found if record.name.startswith("service") else {"logger": record.name, **found}


def _word(value: Any) -> str:
    text = str(value)
    # A line break out of somebody's request must not look like a line of ours.
    is_plain = text.isprintable() and not {" ", '"'} & set(text)
    return text if is_plain and text else json.dumps(text, ensure_ascii=not text.isprintable())
