"""A body's first part may be here already, come later, never, or not at all: whoever waits for it waits rightly."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from service.api.body import ClientGone, Intake
from service.domain.errors import BodyTooLarge
from service.serving.limits import Limits
from service.telemetry import Telemetry

SCOPE: dict[str, Any] = {"type": "http", "headers": []}
WHOLE = {"type": "http.request", "body": b"whole", "more_body": False}
HALF = {"type": "http.request", "body": b"half", "more_body": True}
GONE = {"type": "http.disconnect"}


class Late:
    """Gives its messages one by one, each after so many turns of the loop; the last is waited for without an end."""

    def __init__(self, *messages: Any, turns: int) -> None:
        self.messages, self.turns = list(messages), turns
        self.was_cancelled = False

    async def receive(self) -> Any:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if not self.messages:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise
        message = self.messages.pop(0)
        if isinstance(message, Exception):
            raise message
        return message


def read(client: Late, **limits: Any) -> bytes:
    async def play() -> bytes:
        return await Intake(Limits(**limits), Telemetry(CollectorRegistry())).read(SCOPE, client.receive)

    return asyncio.run(play())


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_body_is_read_whether_it_is_here_or_still_comes(turns: int) -> None:
    assert read(Late(WHOLE, turns=turns)) == b"whole"
    assert read(Late(HALF, HALF, WHOLE, turns=turns)) == b"halfhalfwhole"
    with pytest.raises(BodyTooLarge):
        read(Late(WHOLE, turns=turns), body_bytes=4)
    with pytest.raises(ClientGone):
        read(Late(GONE, turns=turns))
    with pytest.raises(ClientGone):
        read(Late(HALF, GONE, turns=turns))
    with pytest.raises(ConnectionError, match="broken"):
        read(Late(ConnectionError("broken"), turns=turns))


@pytest.mark.parametrize("messages", [(), (HALF,)])
def test_what_does_not_come_is_given_up_at_the_deadline_and_nobody_waits_on(messages: tuple[Any, ...]) -> None:
    client = Late(*messages, turns=1)
    with pytest.raises(HTTPException) as caught:
        read(client, deadline_s=0.01)
    assert caught.value.status_code == 408
    assert client.was_cancelled


@pytest.mark.parametrize("client", [Late(turns=0), Late(WHOLE, turns=2)])
def test_a_cancelled_request_waits_no_longer(client: Late) -> None:
    async def play() -> None:
        reading = asyncio.create_task(
            Intake(Limits(), Telemetry(CollectorRegistry())).read(SCOPE, client.receive)  # its first part never comes
        )
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    before = len(client.messages)
    asyncio.run(play())
    assert len(client.messages) == before
