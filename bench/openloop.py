"""Open-loop load from a process of its own: requests go out at fixed moments, whether others are answered or not.

A latency counts from the moment at which the request was due, so that a service that stalls cannot hide it by keeping
the client from asking (coordinated omission).
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import msgspec

from bench.wire import Connection

__all__ = ["OpenLoop", "Sent"]

CONNECTIONS = 32
"""Kept open from the start, used in turn: both workers get their share."""
DEADLINE_S = 20.0


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """One request and what came of it."""

    due: float
    """When it should have gone out, seconds since the epoch."""
    late_s: float
    """How much later the client sent it."""
    latency_s: float
    """From `due` to the whole answer."""
    payload: int
    """Position of its body in the payloads."""
    status: int
    """HTTP status; 0 when no answer came."""
    body: bytes
    """The answer, or the error's words."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is sent where."""

    port: int
    path: str
    rate: float
    payloads: Sequence[bytes]
    out: str


class OpenLoop:
    """A running load.

    Parameters
    ----------
    port, path
        Where requests go, on this machine.
    rate
        Requests a second.
    payloads
        Bodies, sent in turn.
    out
        File for the results.
    """

    def __init__(self, port: int, path: str, *, rate: float, payloads: Sequence[bytes], out: Path) -> None:
        context = get_context("spawn")
        self._out = out
        self._stop = context.Event()
        plan = Plan(port=port, path=path, rate=rate, payloads=payloads, out=str(out))
        self._process = context.Process(target=_run, args=(plan, self._stop), name="load", daemon=True)
        self._process.start()

    def stop(self) -> list[Sent]:
        """End the load, wait for the answers that are still out, and return all of it in the order of sending."""
        self._stop.set()
        self._process.join(DEADLINE_S + 40)
        if self._process.exitcode != 0:
            msg = f"the load's process ended with {self._process.exitcode}"
            raise RuntimeError(msg)
        return msgspec.msgpack.decode(self._out.read_bytes(), type=list[Sent])


def _run(plan: Plan, stop: Event) -> None:
    try:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    except ImportError:
        loop = asyncio.new_event_loop()
    sent = loop.run_until_complete(_drive(plan, stop))
    Path(plan.out).write_bytes(msgspec.msgpack.encode(sorted(sent, key=lambda one: one.due)))


async def _drive(plan: Plan, stop: Event) -> list[Sent]:
    loop = asyncio.get_running_loop()
    now = time.perf_counter  # uvloop's own clock knows whole milliseconds only
    free = deque(Connection("127.0.0.1", plan.port) for _ in range(CONNECTIONS))
    sent: list[Sent] = []
    out: set[asyncio.Task[Any]] = set()
    epoch, start = time.time(), now()
    count = 0
    while not stop.is_set():
        due = start + count / plan.rate
        if due > now():
            await asyncio.sleep(due - now())
        task = loop.create_task(_one(plan, count, due, epoch - start, free, sent))
        out.add(task)
        task.add_done_callback(out.discard)
        count += 1
    await asyncio.gather(*out)
    for connection in free:
        connection.close()
    return sent


async def _one(
    plan: Plan, count: int, due: float, shift: float, free: deque[Connection], sent: list[Sent]
) -> None:  # one request of the load
    which = count % len(plan.payloads)
    # A request never waits for another one's connection.
    connection = free.popleft() if free else Connection("127.0.0.1", plan.port)
    late_s = time.perf_counter() - due
    try:
        async with asyncio.timeout(DEADLINE_S):
            status, body = await connection.post(plan.path, plan.payloads[which])
    except (OSError, TimeoutError) as error:
        status, body = 0, f"{type(error).__name__}: {error}".encode()
    free.append(connection)
    sent.append(
        Sent(
            due=due + shift, late_s=late_s, latency_s=time.perf_counter() - due, payload=which, status=status, body=body
        )
    )
