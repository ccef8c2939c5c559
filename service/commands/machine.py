"""What the doctor asks this machine, whether a service runs or not: home, disk, packages, port, the address itself."""

import os
import platform
import re
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from service.client import Retrue
from service.commands.finding import Finding, good, remark, wrong
from service.settings import Settings

__all__ = ["disk", "home", "packages", "port", "remote"]

GIB = 1 << 30
LEAST_FREE = GIB
"""Below it the next lake commit or artifact may fail."""
LITTLE_FREE = 5 * GIB
LEAST_FILES = 1000
OLDEST_PYTHON = (3, 11)
ANSWER_S = 5.0

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*)(;.*)?")
_BOUND = re.compile(r"(<=|>=|<|>|==)\s*([0-9.]+)")


def home(settings: Settings) -> Iterator[Finding]:
    """Look at the home folder and what this user may do in it."""
    folder = settings.home
    if not folder.exists():
        parent = _nearest(folder)
        if os.access(parent, os.W_OK | os.X_OK):
            yield remark("home", f"{folder} is not there yet", "the first `retrue serve` makes it")
        else:
            remedy = f"make it by hand with rights for {_me()}, or choose another with RETRUE_HOME"
            yield wrong("home", f"{folder} is not there, and {parent} can't be written", remedy)
        return
    if not folder.is_dir():
        yield wrong("home", f"{folder} is a file", "choose another with RETRUE_HOME")
        return
    parts = (folder, settings.artifacts, settings.lake, settings.spool, settings.reports, settings.run)
    closed = [str(part) for part in parts if part.exists() and not os.access(part, os.R_OK | os.W_OK | os.X_OK)]
    if closed:
        remedy = f"give {_me()} the rights, for instance with chown -R, or choose another with RETRUE_HOME"
        yield wrong("home", f"{', '.join(closed)}: can't be read and written", remedy)
        return
    if stat.S_IMODE(folder.stat().st_mode) & stat.S_IWOTH:
        words = f"everybody on this machine may write {folder}, and with it the models that are served"
        yield wrong("home", words, f"chmod o-w {folder}")
        return
    yield good("home", f"{folder}: read and written by {_me()}")


def disk(settings: Settings) -> Iterator[Finding]:
    """Look at the room that is left where the home is."""
    place = _nearest(settings.home)
    free = shutil.disk_usage(place).free
    words = f"{free / GIB:.1f} GiB free at {place}"
    remedy = "make room: shorten Retention in the model files, or move the home with RETRUE_HOME"
    if free < LEAST_FREE:
        yield wrong("disk", words, remedy)
    elif free < max(LITTLE_FREE, settings.spool_cap_bytes):
        yield remark("disk", words, remedy)
    else:
        yield good("disk", words)
    found = os.statvfs(place)
    if found.f_files and found.f_favail < LEAST_FILES:
        yield wrong("disk", f"room for {found.f_favail} more files at {place}", "remove files there, or move the home")


def packages() -> Iterator[Finding]:
    """Compare what is installed with what this release asks for."""
    if sys.version_info < OLDEST_PYTHON:
        yield wrong("python", platform.python_version(), f"use Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    try:
        wanted = metadata.requires("retrue") or []
    except metadata.PackageNotFoundError:
        yield remark(
            "packages", "not compared: Retrue runs from its folder and is not installed", "`make serve` does it"
        )
        return
    bad = [fault for text in wanted if (fault := _misfit(text))]
    if bad:
        yield wrong("packages", "; ".join(bad), "install what requirements.lock names (`make` does it), then restart")
    else:
        words = f"Python {platform.python_version()}, scikit-learn {metadata.version('scikit-learn')}"
        yield good("packages", f"{words}; all {len(wanted)} requirements are met")


def port(settings: Settings) -> Iterator[Finding]:
    """Look who listens where the service listens, or would."""
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104  compared, not bound
    address = f"{host}:{settings.port}"
    if settings.port == 0:
        yield remark("port", "the service takes any free one; its log says which")
        return
    try:
        socket.create_connection((host, settings.port), timeout=ANSWER_S).close()
    except ConnectionRefusedError:
        yield good("port", f"{address} is free: no service listens")
        return
    except OSError as error:
        remedy = "set RETRUE_HOST and RETRUE_PORT to an address of this machine"
        yield wrong("port", f"{address} can't be reached: {error.strerror or error}", remedy)
        return
    with Retrue(_url(host, settings.port), timeout_s=ANSWER_S, retries=0) as retrue:
        if retrue.is_alive():
            yield good("port", f"{address}: a Retrue service answers")
        else:
            remedy = "stop it, or set RETRUE_PORT to a free port; if it is Retrue, restart it"
            yield wrong("port", f"on {address} something listens that does not answer as Retrue does", remedy)


def remote(retrue: Retrue) -> Iterator[Finding]:
    """Look whether the service at an address lives and answers predictions; closes the connection."""
    with retrue:
        yield from _answers(retrue)


def _answers(retrue: Retrue) -> Iterator[Finding]:
    if not retrue.is_alive():
        yield wrong("service", f"no Retrue service answers at {retrue.url}", "start it, or name another with --url")
        return
    if not retrue.is_ready():
        remedy = "see `retrue status` for models without a champion, and its log"
        yield wrong("service", f"{retrue.url} lives, and answers no prediction yet", remedy)
        return
    yield good("service", f"{retrue.url} answers predictions")


def _misfit(requirement: str) -> str | None:
    match = _REQUIREMENT.match(requirement)
    if match is None or match[3]:  # an extra, or for another system
        return None
    name, bounds = match[1], match[2]
    try:
        here = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is not installed"
    for sign, bound in _BOUND.findall(bounds):
        if not _holds(_numbers(here), sign, _numbers(bound)):
            return f"{name} {here} is installed, {bounds.strip()} is asked for"
    return None


def _holds(here: tuple[int, ...], sign: str, bound: tuple[int, ...]) -> bool:
    width = max(len(here), len(bound))
    left, right = (numbers + (0,) * (width - len(numbers)) for numbers in (here, bound))
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right, "==": left == right}[sign]


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _me() -> str:
    return f"user {os.geteuid()}"


def _url(host: str, number: int) -> str:
    return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"
