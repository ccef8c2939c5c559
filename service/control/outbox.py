"""Sends notices to webhooks: the leader alone, each endpoint in a thread of its own: one that hangs delays none.

The look only writes down who is owed what. A thread sends, and marks what came of it under the leader's token: at least
once, under the same id each time.
"""

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from service import __version__
from service.control.leader import Term
from service.domain.errors import LeaseLost, RetrueError
from service.domain.notice import MEDIA_TYPE, DeliveryState, Endpoint, body_of, pause_after, signatures
from service.journal import facts
from service.storage import outbox
from service.storage.models import ModelRow
from service.storage.outbox import Delivery

__all__ = ["Answer", "Outbox", "Webhooks"]

log = logging.getLogger(__name__)

POLL_S = 1.0
ROUND = 20
KEPT = timedelta(days=30)
"""What was told, or given up, so long ago is forgotten."""
GONE = 410
"""An endpoint's own word that it wants nothing any more."""
STOP_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Webhooks:
    """Who is told, and how hard it is tried."""

    endpoints: Sequence[Endpoint] = ()
    keys: Sequence[bytes] = ()
    """What is signed with."""
    source: str = "urn:retrue"
    timeout_s: float = 5.0
    """For one try, from the look-up of the name to the answer's status."""
    tries: int = 10
    first_pause: timedelta = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an endpoint said to one try."""

    status: int | None = None
    error: str | None = None
    """None: it took it."""
    asked: timedelta | None = None
    """How long it wants to be left alone."""


class Outbox:
    """The leader's post office.

    Parameters
    ----------
    webhooks
        See `Webhooks`.
    term
        Returns the present term; None while another one leads.
    counted
        Told of each try: ``delivered``, ``failed`` or ``dead``.
    """

    def __init__(self, webhooks: Webhooks, *, term: Callable[[], Term | None], counted: Callable[[str], None]) -> None:
        self._names = [endpoint.name for endpoint in webhooks.endpoints]
        self._couriers = [Courier(endpoint, webhooks, term=term, counted=counted) for endpoint in webhooks.endpoints]

    def start(self) -> None:
        """Begin to send; nothing goes out while another controller leads."""
        for courier in self._couriers:
            courier.start()

    def stop(self) -> None:
        """End; what is under way is waited for a moment, and sent again by the next leader if it was not marked."""
        for courier in self._couriers:
            courier.ask_to_stop()
        ends = time.monotonic() + STOP_S
        for courier in self._couriers:
            courier.join(max(ends - time.monotonic(), 0.0))

    def look(self, term: Term, known: Mapping[str, ModelRow]) -> None:  # noqa: ARG002  the parts of a look are alike
        """Write down who is owed what is new; no network here."""
        with term.database.read() as conn:
            if not outbox.has_work(conn, self._names):
                return
        with term.write() as conn:
            outbox.spread(conn, self._names, at=term.database.now(conn))
        for courier in self._couriers:
            courier.wake()

    def tidy(self, term: Term) -> None:
        """Forget what is long over."""
        with term.write() as conn:
            outbox.forget(conn, before=term.database.now(conn) - KEPT)


class Courier:
    """Sends what one endpoint is owed."""

    def __init__(
        self,
        endpoint: Endpoint,
        webhooks: Webhooks,
        *,
        term: Callable[[], Term | None],
        counted: Callable[[str], None],
    ) -> None:
        self._endpoint, self._webhooks, self._term, self._counted = endpoint, webhooks, term, counted
        self._stopping, self._woken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"webhook-{endpoint.name}", daemon=True)
        self._tls: ssl.SSLContext | bool = False if endpoint.url.startswith("http:") else ssl.create_default_context()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self._woken.set()

    def ask_to_stop(self) -> None:
        """Send nothing more."""
        self._stopping.set()
        self._woken.set()

    def join(self, within_s: float) -> None:
        """Wait for the end."""
        self._thread.join(within_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                is_busy = self._round()
            except LeaseLost:
                is_busy = False  # the next leader sends it again
            except RetrueError as error:
                log.warning("webhook_waits", extra=facts(endpoint=self._endpoint.name, why=error.detail))
                is_busy = False
            except Exception:
                # Nobody else would tell this endpoint anything any more.
                log.exception("webhook_broke", extra=facts(endpoint=self._endpoint.name))
                is_busy = False
            if not is_busy:
                self._woken.wait(POLL_S)
                self._woken.clear()

    def _round(self) -> bool:
        term = self._term()
        if term is None:
            return False
        with term.database.read() as conn:
            found = outbox.due(conn, self._endpoint.name, at=term.database.now(conn), limit=ROUND)
        for delivery in found:
            if self._stopping.is_set() or self._term() is None:
                return False
            self._send(term, delivery)
        return bool(found)

    def _send(self, term: Term, delivery: Delivery) -> None:
        answer = asyncio.run(self._post(delivery))
        tries = delivery.tries + 1
        if answer.error is None:
            state = DeliveryState.DELIVERED
        elif answer.status == GONE or tries >= self._webhooks.tries:
            state = DeliveryState.DEAD
        else:
            state = DeliveryState.WAITING
        pause = pause_after(tries, first=self._webhooks.first_pause, asked=answer.asked)
        with term.write() as conn:
            outbox.mark(
                conn, delivery, state, at=term.database.now(conn), status=answer.status, error=answer.error,
                pause=pause if state is DeliveryState.WAITING else timedelta(),
            )  # fmt: skip
        told = facts(
            endpoint=self._endpoint.name, event=delivery.notice.id, kind=delivery.notice.kind.value, tries=tries,
            model=delivery.notice.model, status=answer.status, why=answer.error,
        )  # fmt: skip
        if state is DeliveryState.DELIVERED:
            self._counted("delivered")
            log.debug("webhook_delivered", extra=told)
        elif state is DeliveryState.DEAD:
            self._counted("dead")
            log.error("webhook_given_up", extra=told)
        else:
            self._counted("failed")
            log.warning("webhook_failed", extra=told)

    async def _post(self, delivery: Delivery) -> Answer:
        # One deadline for all of it: the client's own begin anew with every byte that an endpoint lets trickle.
        try:
            async with asyncio.timeout(self._webhooks.timeout_s):
                return await self._asked(delivery)
        except TimeoutError:
            return Answer(error=f"no answer in {self._webhooks.timeout_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # Its words may hold the address, and that a token.
            return Answer(error=type(error).__name__)

    async def _asked(self, delivery: Delivery) -> Answer:
        notice = delivery.notice
        body = body_of(
            notice_id=notice.id, kind=notice.kind, source=self._webhooks.source, subject=notice.subject, at=notice.at,
            data=notice.data,
        )  # fmt: skip
        timestamp = int(time.time())
        headers = {
            "content-type": MEDIA_TYPE,
            "user-agent": f"retrue/{__version__}",
            "webhook-id": notice.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(self._webhooks.keys, notice_id=notice.id, timestamp=timestamp, body=body),
        }
        async with (
            httpx.AsyncClient(verify=self._tls, timeout=self._webhooks.timeout_s) as client,
            client.stream("POST", self._endpoint.url, content=body, headers=headers) as response,
        ):
            if response.is_success:
                return Answer(status=response.status_code)
            return Answer(
                status=response.status_code,
                error=f"it answered {response.status_code}",
                asked=_asked_pause(response.headers),
            )


def _asked_pause(headers: Mapping[str, Any]) -> timedelta | None:
    with suppress(ValueError, OverflowError):
        return timedelta(seconds=max(int(headers.get("retry-after", "")), 0))
    return None
