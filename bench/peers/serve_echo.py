# /// script
# dependencies = []
# ///
"""The limits: decode the rows and answer at once, as bare ASGI, as a Starlette route, as a FastAPI endpoint."""

import os
import sys
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class Row(msgspec.Struct, gc=False):
    """One row."""

    f0: float
    f1: float
    f2: float
    f3: float
    f4: float
    f5: float
    f6: float
    f7: float


class Rows(msgspec.Struct, gc=False):
    """What is asked."""

    instances: list[Row]


decode = msgspec.json.Decoder(Rows).decode
encode = msgspec.json.Encoder().encode


def answer(body: bytes) -> bytes:
    """Return each row's first value."""
    return encode({"predictions": [row.f0 for row in decode(body).instances]})


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request alike."""
    if scope["type"] != "http":
        return
    body, has_more = b"", True
    while has_more:
        message = await receive()
        body += message.get("body", b"")
        has_more = message.get("more_body", False)
    content = answer(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def endpoint(request: Request) -> Response:
    """Answer as a Starlette route does."""
    return Response(answer(await request.body()), media_type="application/json")


class PydanticRow(BaseModel):
    """One row."""

    f0: float
    f1: float
    f2: float
    f3: float
    f4: float
    f5: float
    f6: float
    f7: float


class PydanticRows(BaseModel):
    """What is asked."""

    instances: list[PydanticRow]


async def typed(rows: PydanticRows) -> dict[str, list[float]]:
    """Answer as a FastAPI endpoint does."""
    return {"predictions": [row.f0 for row in rows.instances]}


def application(kind: str) -> Any:
    """Return the application of that kind."""
    if kind == "asgi":
        return bare
    if kind == "starlette":
        return Starlette(routes=[Route("/predict", endpoint, methods=["POST"])])
    app = FastAPI()
    app.post("/predict")(typed)
    return app


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[1]),
        port=int(os.environ["PEER_PORT"]),
        log_level="warning",
        access_log=False,
        lifespan="off",
    )
