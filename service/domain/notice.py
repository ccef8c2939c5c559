"""Notices: what is told to other systems, as CloudEvents 1.0, and how each telling is signed and tried again. Pure."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from service.domain.run import TERMINAL, RunState

__all__ = [
    "MEDIA_TYPE",
    "RUN_KINDS",
    "DeliveryState",
    "Endpoint",
    "Kind",
    "body_of",
    "endpoints_of",
    "pause_after",
    "secrets_of",
    "signatures",
]

MEDIA_TYPE = "application/cloudevents+json"
SECRET_PREFIX = "whsec_"  # noqa: S105  how the Standard Webhooks specification marks one
LEAST_SECRET, LARGEST_SECRET = 24, 64
"""Bytes, as that specification has them."""
GROWTH = 3
LONGEST = timedelta(hours=6)


class Kind(StrEnum):
    """What is told. A closed set: the value, behind ``retrue.``, is the event's type."""

    RUN_SUCCEEDED = "run.succeeded"
    RUN_REJECTED = "run.rejected"
    RUN_FAILED = "run.failed"
    RUN_TIMED_OUT = "run.timed_out"
    RUN_CANCELLED = "run.cancelled"
    RUN_EXPIRED = "run.expired"
    RUN_SUPERSEDED = "run.superseded"
    RUN_SKIPPED = "run.skipped"
    RUN_BLOCKED_DATA = "run.blocked_data"
    RUN_ROLLED_BACK = "run.rolled_back"
    APPROVAL_WANTED = "run.approval_wanted"
    CHAMPION_PROMOTED = "champion.promoted"
    CHAMPION_ROLLED_BACK = "champion.rolled_back"
    DRIFT_CONFIRMED = "drift.confirmed"
    DATA_QUARANTINED = "data.quarantined"
    BREAKER_OPENED = "breaker.opened"
    PROBATION_FAILED = "probation.failed"

    @property
    def type(self) -> str:
        """The CloudEvents type."""
        return f"retrue.{self.value}"


RUN_KINDS: Mapping[RunState, Kind] = {
    RunState.AWAITING_APPROVAL: Kind.APPROVAL_WANTED,
    **{state: Kind(f"run.{state.value}") for state in TERMINAL},
}
"""What is told when a run comes to a state; nothing of the others."""


class DeliveryState(StrEnum):
    """How far one notice has come on its way to one endpoint. A closed set: it is a metric label."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"  # given up; a person may have it sent again


@dataclass(frozen=True)
class Endpoint:
    """Somebody who wants to be told."""

    name: str
    """Host and a digest: addresses hold passwords and tokens, and this stands in the database, the API and the log."""
    url: str


def endpoints_of(text: str) -> tuple[Endpoint, ...]:
    """Return the endpoints that a list of addresses, separated by spaces or commas, names.

    Raises
    ------
    ValueError
        If one is no http or https address.

    Examples
    --------
    >>> [endpoint.name for endpoint in endpoints_of("https://hooks.example/T0/secret")]
    ['https://hooks.example#9cbbbae8']
    """
    found: dict[str, Endpoint] = {}
    for url in text.replace(",", " ").split():
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            msg = "write addresses that begin with https:// or http://, separated by spaces"
            raise ValueError(msg)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        address = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
        found[url] = Endpoint(f"{address}#{hashlib.sha256(url.encode()).hexdigest()[:8]}", url)
    return tuple(found.values())


def secrets_of(text: str) -> tuple[bytes, ...]:
    """Return the keys to sign with: the first is the newest, others are on their way out.

    Raises
    ------
    ValueError
        If one is not ``whsec_`` and 24 to 64 bytes in base64.
    """
    found = []
    for word in text.split():
        try:
            key = base64.b64decode(word.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not word.startswith(SECRET_PREFIX) or not LEAST_SECRET <= len(key) <= LARGEST_SECRET:
            msg = f"write {SECRET_PREFIX} and {LEAST_SECRET} to {LARGEST_SECRET} random bytes in base64"
            raise ValueError(msg)
        found.append(key)
    return tuple(found)


def body_of(*, notice_id: str, kind: Kind, source: str, subject: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    """Return the event in structured JSON mode: the same bytes each time that it is told."""
    event = {
        "specversion": "1.0",
        "id": notice_id,
        "source": source,
        "type": kind.type,
        "subject": subject,
        "time": at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": dict(data),
    }
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def signatures(keys: Iterable[bytes], *, notice_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``: one signature for each key, over id, time and body."""
    signed = f"{notice_id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)


def pause_after(tries: int, *, first: timedelta, asked: timedelta | None = None) -> timedelta:
    """Return how long to wait after so many tries that failed.

    Parameters
    ----------
    asked
        What the endpoint itself asked for.

    Examples
    --------
    >>> [pause_after(tries, first=timedelta(seconds=5)).total_seconds() for tries in (1, 2, 3, 20)]
    [5.0, 15.0, 45.0, 21600.0]
    """
    own = min(first * int(GROWTH ** min(tries - 1, 20)), LONGEST)
    return own if asked is None else max(own, min(asked, LONGEST))
