"""Refusals under ``/v2`` in the Open Inference Protocol's own form, whoever in the house refused."""

from typing import Any

import msgspec
from starlette.types import Message, Scope, Send

from service.api.problems import MEDIA_TYPE

__all__ = ["PREFIX", "in_protocol"]

PREFIX = "/v2"
TOLD = 5
"""So many faults stand in an error's one sentence."""


def in_protocol(scope: Scope, send: Send) -> Send:
    """Return what sends a problem as ``{"error": …}`` if the address speaks the protocol; else `send` itself."""
    path = scope.get("path", "")
    if path != PREFIX and not path.startswith(PREFIX + "/"):
        return send
    held: Message | None = None
    parts: list[bytes] = []

    async def said(message: Message) -> None:
        nonlocal held
        if message["type"] == "http.response.start" and _is_problem(message):
            held = message
        elif held is None:
            await send(message)
        else:
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                for one in _translated(held, b"".join(parts)):
                    await send(one)

    return said


def _is_problem(message: Message) -> bool:
    return (b"content-type", MEDIA_TYPE.encode()) in message["headers"]


def _translated(start: Message, body: bytes) -> tuple[Message, Message]:
    content = msgspec.json.encode({"error": _words(msgspec.json.decode(body))})
    headers = [pair for pair in start["headers"] if pair[0] not in {b"content-type", b"content-length"}]
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    # The protocol knows 400 alone for a request that is not as it should be.
    status = 400 if start["status"] == 422 else start["status"]
    return (
        {**start, "status": status, "headers": headers},
        {"type": "http.response.body", "body": content, "more_body": False},
    )


def _words(problem: dict[str, Any]) -> str:
    """Return the problem's detail, which names the first fault, and a few further ones."""
    faults = [fault for fault in problem.get("errors", []) if "row" in fault]
    words = [problem["detail"]]
    words += [f"row {fault['row']}, field {fault['field']!r}: {fault['detail']}" for fault in faults[1:TOLD]]
    more = max(len(faults) - TOLD, 0) + problem.get("more", 0)
    return "; ".join(words) + (f"; and {more} more" if more else "")
