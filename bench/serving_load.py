"""Load by wrk, and what it says; the answers are compared by a client of our own, before and after each pass."""

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import msgspec
import numpy as np

__all__ = ["Expected", "Form", "Load", "Reading", "checked", "fault", "load", "parsed", "wrk_is_here"]

SCRIPT = Path(__file__).with_name("serving_wrk.lua")
OK = 200
TOLERANCE = 1e-5
"""Of a probability: a compiled version may sum in another order."""
PATIENCE_S = 60.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    status: int
    """Answers with a status above 399."""
    connect: int
    read: int
    write: int
    timeout: int

    @property
    def rate(self) -> float:
        """Requests a second that were answered well."""
        return (self.requests - self.status) / self.seconds

    @property
    def errors(self) -> int:
        """Answers that were none."""
        return self.status + self.connect + self.read + self.write + self.timeout


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the pipeline itself answers to the rows of one body."""

    outputs: tuple[float, ...]
    probabilities: tuple[tuple[float, ...], ...] = ()
    close: bool = False
    """Whether these are numbers that may differ in the last digits."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a server answered to one body."""

    outputs: Sequence[float]
    probabilities: Sequence[Sequence[float]] | None = None


class Form(Protocol):
    """Reads a server's answers."""

    def __call__(self, body: bytes) -> Reading:
        """Return what the answer says."""


def wrk_is_here() -> bool:
    """Return whether wrk is on the path."""
    return shutil.which("wrk") is not None


def load(url: str, path: str, bodies: Path, *, connections: int, seconds: int) -> Load:
    """Send the lines of `bodies` for so long over so many kept-alive connections.

    Raises
    ------
    RuntimeError
        If wrk fails.
    """
    words = [
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(SCRIPT), url, "--",
        str(bodies), path,
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + PATIENCE_S, check=False)
    if done.returncode != 0:
        msg = f"wrk ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        raise RuntimeError(msg)
    return parsed(done.stdout)


def parsed(output: str) -> Load:
    """Return the line that our script printed in the midst of wrk's own words.

    Raises
    ------
    ValueError
        If there is none, or nothing was sent.
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if len(lines) != 1:
        msg = f"wrk printed {len(lines)} lines of figures instead of 1"
        raise ValueError(msg)
    found = msgspec.json.decode(lines[0], type=Load)
    if found.seconds <= 0:
        msg = "wrk measured no time at all"
        raise ValueError(msg)
    return found


def checked(
    url: str, path: str, bodies: Sequence[bytes], expected: Sequence[Expected], *, form: Form, connections: int
) -> tuple[int, str]:
    """Send each body once, so many at a time, and return how many answers are wrong, with the first one's words."""
    return asyncio.run(_checked(url + path, bodies, expected, form=form, connections=connections))


async def _checked(
    url: str, bodies: Sequence[bytes], expected: Sequence[Expected], *, form: Form, connections: int
) -> tuple[int, str]:
    waiting = list(range(len(bodies)))
    wrong: list[str] = []
    limits = httpx.Limits(max_connections=connections)

    async def ask(client: httpx.AsyncClient) -> None:
        while waiting:
            place = waiting.pop()
            words = await _fault(client, url, bodies[place], expected[place], form)
            if words:
                wrong.append(words)

    async with httpx.AsyncClient(timeout=PATIENCE_S, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(ask(client) for _ in range(connections)))
    return len(wrong), wrong[0] if wrong else ""


async def _fault(client: httpx.AsyncClient, url: str, body: bytes, expected: Expected, form: Form) -> str:
    try:
        answer = await client.post(url, content=body, headers={"Content-Type": "application/json"})
    except httpx.TransportError as error:
        return f"no answer ({type(error).__name__})"
    if answer.status_code != OK:
        return f"status {answer.status_code}: {answer.text[:200]}"
    try:
        reading = form(answer.content)
    except (KeyError, TypeError, ValueError, IndexError, msgspec.MsgspecError) as error:
        return f"unreadable ({type(error).__name__}): {answer.text[:200]}"
    return fault(reading, expected)


def fault(reading: Reading, expected: Expected) -> str:
    """Return what is wrong with an answer; nothing if it is right."""
    if len(reading.outputs) != len(expected.outputs):
        return f"{len(reading.outputs)} outputs for {len(expected.outputs)} rows"
    if expected.close:
        is_same = bool(np.allclose(reading.outputs, expected.outputs, rtol=0, atol=TOLERANCE))
    else:
        is_same = _is_same(reading.outputs, expected)
    if not is_same:
        return "other outputs than the pipeline's own"
    if reading.probabilities is None:
        return ""
    found, wanted = np.asarray(reading.probabilities), np.asarray(expected.probabilities)
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=0, atol=TOLERANCE):
        return "other probabilities than the pipeline's own"
    return ""


def _is_same(outputs: Sequence[float], expected: Expected) -> bool:
    """Return whether the classes are the same, but where two probabilities lie within the tolerance of each other."""
    for place, (found, wanted) in enumerate(zip(outputs, expected.outputs, strict=True)):
        if found == wanted:
            continue
        likely = sorted(expected.probabilities[place]) if expected.probabilities else [0.0, 1.0]
        if likely[-1] - likely[-2] > 2 * TOLERANCE:
            return False
    return True
