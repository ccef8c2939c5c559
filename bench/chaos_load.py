"""Clients that go on whatever happens: predictions with event times that move forward, labels that follow late.

Every answer is written down, and every request that was not answered as it should be, with the moment; the ledger
judges later whether there was a reason.
"""

import asyncio
import heapq
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec

from bench.chaos_ledger import Answered, Labelled
from bench.wire import Connection
from service.replay import Rows

__all__ = ["Load", "Refusal", "Stream"]

BEFORE = datetime.min.replace(tzinfo=UTC)
DELAY = timedelta(days=1)
"""Event time from a row to its truth."""
DEADLINE_S = 30.0
SLOW_S = 12.0
"""The service's own deadline and a little: whoever answers later must have been dead when it was asked."""
LABELS_A_REQUEST = 40
LATE, TWICE, CORRECTED = 0.1, 0.05, 0.04
"""Shares of labels that come some days later than the others, twice, and again with another value."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A request that was not answered with success."""

    at: float
    """When it was sent, seconds since the epoch."""
    ended: float
    model: str
    kind: str
    """``predict`` or ``feedback``."""
    status: int
    """0 when no answer came."""
    code: str
    words: str


@dataclass(kw_only=True)
class Stream:
    """One model's traffic."""

    model: str
    rows: Rows
    rate: float
    """Rows a second."""
    clients: int
    span: timedelta
    """Added to the times each time the rows begin anew."""
    now: datetime = BEFORE
    """Event time of the newest row that was sent."""
    place: int = 0
    due: list[tuple[datetime, int, Labelled]] = field(default_factory=list)

    def take(self, size: int, timestamp: str) -> list[tuple[dict[str, Any], Any, datetime]]:
        """Return the next rows with their labels and times."""
        taken = []
        for _ in range(size):
            turn, at = divmod(self.place, len(self.rows))
            self.place += 1
            moment = self.rows.times[at] + turn * self.span
            text = moment.isoformat().replace("+00:00", "Z")
            taken.append((self.rows.instances[at] | {timestamp: text}, self.rows.labels[at], moment))
        self.now = taken[-1][2]
        return taken


class Load:
    """Runs in a thread of its own.

    Parameters
    ----------
    port
        Of the service, on this machine.
    streams
        What is sent.
    seed
        Of the sizes of requests and the fate of labels.
    """

    def __init__(self, port: int, streams: list[Stream], *, seed: int) -> None:
        self.answered: list[Answered] = []
        self.labelled: list[Labelled] = []
        self.refusals: list[Refusal] = []
        self.requests = {"predict": 0, "feedback": 0}
        self.latencies: list[float] = []
        self._port, self._streams = port, streams
        self._random = random.Random(seed)  # noqa: S311  chances, not secrets
        self._order = count()
        self._asks = self._tells = True
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop_asking(self) -> None:
        """Send no more rows; labels that are due still go out."""
        self._asks = False

    def stop(self, *, patience_s: float = 30.0) -> None:
        """Send what is due of the labels, and end."""
        self._asks = self._tells = False
        self._thread.join(patience_s)

    async def _run(self) -> None:
        tasks = [
            task
            for stream in self._streams
            for task in (*(self._client(stream) for _ in range(stream.clients)), self._teller(stream))
        ]
        await asyncio.gather(*tasks)

    async def _client(self, stream: Stream) -> None:
        connection = Connection("127.0.0.1", self._port)
        timestamp = "timestamp"
        while self._asks:
            began = time.monotonic()
            rows = stream.take(self._random.randint(1, 4), timestamp)
            body = msgspec.json.encode({"instances": [instance for instance, _, _ in rows]})
            for pause in self._patience():
                answer = await self._post(connection, stream.model, "predict", body, ok=200)
                if answer is not None:
                    self._note(stream, rows, answer)
                    break
                await asyncio.sleep(pause)
            rest = len(rows) * stream.clients / stream.rate - (time.monotonic() - began)
            if rest > 0:
                await asyncio.sleep(rest * self._random.uniform(0.6, 1.4))
        connection.close()

    def _patience(self) -> Iterator[float]:
        pause = 0.05
        while self._asks:
            yield pause
            pause = min(pause * 2, 1.0)

    def _note(self, stream: Stream, rows: list[tuple[dict[str, Any], Any, datetime]], answer: dict[str, Any]) -> None:
        version, generation = answer["version"], answer["generation"]
        for (_, label, at), row_id, output in zip(rows, answer["ids"], answer["predictions"], strict=True):
            told = Answered(id=row_id, model=stream.model, version=version, generation=generation, output=output)
            self.answered.append(told)
            self._plan(stream, Labelled(id=row_id, model=stream.model, label=label, observed_at=at + DELAY))

    def _plan(self, stream: Stream, label: Labelled) -> None:
        """Put a label where it becomes due; some come late, twice, or are corrected, before or after the first."""
        fate = self._random.random()
        due = label.observed_at
        if fate < LATE:
            due += timedelta(days=self._random.uniform(0.5, 3))
        self._push(stream, due, label)
        if LATE <= fate < LATE + TWICE:
            self._push(stream, due + timedelta(hours=self._random.uniform(0, 12)), label)
        elif LATE + TWICE <= fate < LATE + TWICE + CORRECTED:
            other = self._random.choice(stream.rows.labels)
            # Its own time is later or earlier than the first one's; it arrives before or after it.
            shift = timedelta(hours=self._random.choice((-6, 6)))
            again = Labelled(id=label.id, model=label.model, label=other, observed_at=label.observed_at + shift)
            self._push(stream, due + timedelta(hours=self._random.uniform(-3, 8)), again)

    def _push(self, stream: Stream, due: datetime, label: Labelled) -> None:
        heapq.heappush(stream.due, (due, next(self._order), label))

    async def _teller(self, stream: Stream) -> None:
        connection = Connection("127.0.0.1", self._port)
        while self._tells:
            ripe: list[Labelled] = []
            while stream.due and len(ripe) < LABELS_A_REQUEST and stream.due[0][0] <= stream.now:
                ripe.append(heapq.heappop(stream.due)[2])
            if ripe:
                await self._tell(connection, stream, ripe)
            await asyncio.sleep(0.02 if len(ripe) == LABELS_A_REQUEST else 0.2)
        connection.close()

    async def _tell(self, connection: Connection, stream: Stream, ripe: list[Labelled]) -> None:
        self._random.shuffle(ripe)
        body = msgspec.json.encode(
            {"labels": [{"id": one.id, "label": one.label, "observed_at": _text(one.observed_at)} for one in ripe]}
        )
        pause = 0.05
        while True:
            answer = await self._post(connection, stream.model, "feedback", body, ok=202)
            if answer is not None:
                break
            if not self._tells:
                # Perhaps written, perhaps not: whoever sent them does not know, and nor does the ledger.
                self.labelled += [_unsure(one) for one in ripe]
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)
        if answer["refused"]:
            now = time.time()
            self.refusals.append(
                Refusal(
                    at=now, ended=now, model=stream.model, kind="feedback", status=202, code="refused-labels",
                    words=str(answer["errors"][:2]),
                )
            )  # fmt: skip
        self.labelled += ripe

    async def _post(
        self, connection: Connection, model: str, kind: str, body: bytes, *, ok: int
    ) -> dict[str, Any] | None:
        """Return the answer; None, and a note of the refusal, if it was no success."""
        self.requests[kind] += 1
        at, status, code, words = time.time(), 0, "", ""
        try:
            async with asyncio.timeout(DEADLINE_S):
                status, content = await connection.post(f"/v1/models/{model}/{kind}", body)
            if status == ok:
                took = time.time() - at
                self.latencies.append(took)
                if took > SLOW_S:
                    slow = Refusal(
                        at=at, ended=at + took, model=model, kind=kind, status=ok, code="slow", words=f"{took:.1f} s"
                    )
                    self.refusals.append(slow)
                answer: dict[str, Any] = msgspec.json.decode(content)
                return answer
            problem = msgspec.json.decode(content)
            code, words = str(problem.get("code", "")), str(problem.get("detail", ""))
        except TimeoutError:
            code = "timeout"
        except OSError as error:
            code = "refused" if isinstance(error, ConnectionRefusedError) else "reset"
            words = str(error)
        except ValueError as error:
            code, words = "unreadable", str(error)
        self.refusals.append(
            Refusal(at=at, ended=time.time(), model=model, kind=kind, status=status, code=code, words=words[:200])
        )
        return None


def _unsure(one: Labelled) -> Labelled:
    return Labelled(id=one.id, model=one.model, label=one.label, observed_at=one.observed_at, accepted=False)


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
