"""What a process takes in at once, and what becomes of it when the process is told to end."""

import asyncio
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from service.api.body import Intake
from service.api.connection import connections
from service.domain.errors import Overloaded
from service.serving.limits import Limits
from service.telemetry import Telemetry

SCOPE: dict[str, Any] = {"type": "http", "headers": []}


def intake(**limits: Any) -> Intake:
    return Intake(Limits(**limits), Telemetry(CollectorRegistry()))


class Client:
    """Sends a body in parts, the last one only when it may."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)
        self.may_end = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if not self.parts:
            await self.may_end.wait()
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": self.parts.pop(0), "more_body": True}


def test_bodies_that_come_in_share_a_limit_and_give_it_back() -> None:
    async def play() -> None:
        one = intake(intake_bytes=1000)
        clients = [Client(b"x" * 400) for _ in range(2)]
        reading = [asyncio.create_task(one.read(SCOPE, client.receive)) for client in clients]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await one.read(SCOPE, Client(b"x" * 400).receive)
        for client in clients:
            client.may_end.set()
        assert [len(body) for body in await asyncio.gather(*reading)] == [400, 400]
        last = Client(b"x" * 900)
        last.may_end.set()
        assert len(await one.read(SCOPE, last.receive)) == 900

    asyncio.run(play())


def test_a_body_that_still_comes_in_when_the_process_is_told_to_end_gets_a_moment() -> None:
    async def play() -> float:
        one = intake(deadline_s=60.0)
        reading = asyncio.create_task(one.read(SCOPE, Client(b"x").receive))
        await asyncio.sleep(0)
        began = time.monotonic()
        one.leave()
        with pytest.raises(HTTPException) as refused:
            await reading
        assert refused.value.status_code == 408
        return time.monotonic() - began

    assert asyncio.run(play()) < 5


class Transport(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.is_closed = b"", False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


def test_more_connections_than_there_may_be_are_told_to_come_back() -> None:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    async def play() -> list[Transport]:
        kind = connections(Limits(connections=2), Telemetry(CollectorRegistry()))
        state = ServerState()
        config = Config(app=lambda *_: None, log_config=None)
        config.load()
        lines = [Transport() for _ in range(3)]
        for line in lines:
            kind(config, state, {}).connection_made(line)
        return lines

    first, second, third = asyncio.run(play())
    assert (first.is_closed, second.is_closed, third.is_closed) == (False, False, True)
    assert third.written.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in third.written
    assert b"application/problem+json" in third.written
