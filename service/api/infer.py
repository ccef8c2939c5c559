"""``POST /v2/models/{model}/infer``: the Open Inference Protocol's way to the same answers as predict's."""

import asyncio
import gzip
import zlib

from starlette.routing import Route
from starlette.types import Scope

from service.api.body import Intake
from service.api.predict import Endpoint, Headers
from service.domain.errors import InvalidRequest, UnknownVersion
from service.serving.bundle import Bundle
from service.serving.outputs import choose, write
from service.serving.tensors import Extent, read
from service.serving.worker import Worker

__all__ = ["Infer", "routes", "the_champion"]

LENGTH = b"inference-header-content-length"
_DIGITS = 12
WORTH_ZIPPING = 1 << 10
LONG = 64 << 10
"""An answer that is longer is zipped on a thread."""
LEVEL = 1


def routes(worker: Worker, intake: Intake) -> list[Route]:
    """Return the routes; like predict's they stand before FastAPI's own."""
    infer = Infer(worker, intake)
    paths = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
    return [Route(path, infer, methods=["POST"], name="infer") for path in paths]


def the_champion(bundle: Bundle, version: str | None) -> Bundle:
    """Return `bundle` if it is the `version` that was named; nothing else answers.

    Raises
    ------
    UnknownVersion
        If it is another one.
    """
    if version is None or version == str(bundle.version):
        return bundle
    named = f"version {version}" if version.isdecimal() and len(version) <= _DIGITS else "a version of that name"
    msg = f"{named} of {bundle.model!r} does not answer: the champion is version {bundle.version}"
    raise UnknownVersion(msg, model=bundle.model, champion=bundle.version)


class Infer(Endpoint):
    """The endpoint: decoded, validated, answered, recorded and counted as predict is."""

    name = "infer"

    async def answer(self, scope: Scope, model: str, body: bytes) -> tuple[int, bytes, Headers]:
        """Return the rows' answers. The bundle that is taken here validates, answers, and signs them."""
        bundle = the_champion(self._worker.slots.take(model), scope["path_params"].get("version"))
        extent = Extent(self._limits.request_rows, len(bundle.schema.features))
        request = read(body, head_bytes=_head_bytes(scope), extent=extent)
        chosen = choose(request, bundle)
        answered = await self._worker.predict(bundle, bundle.table.block(request))
        content = write(answered, request.id, chosen)
        headers = [(b"content-type", b"application/json")]
        if content.head_bytes is not None:
            headers = [(b"content-type", b"application/octet-stream"), (LENGTH, b"%d" % content.head_bytes)]
        encoding = _encoding(scope) if len(content.body) >= WORTH_ZIPPING else None
        if encoding is None:
            return 200, content.body, headers
        headers.append((b"content-encoding", encoding))
        if len(content.body) < LONG:
            return 200, _zipped(content.body, encoding), headers
        return 200, await asyncio.to_thread(_zipped, content.body, encoding), headers


def _head_bytes(scope: Scope) -> int | None:
    found = [value.strip() for name, value in scope["headers"] if name == LENGTH]
    if not found:
        return None
    if len(found) > 1 or not found[0].isdigit() or len(found[0]) > _DIGITS:
        msg = "Inference-Header-Content-Length must be one number of bytes"
        raise InvalidRequest(msg)
    return int(found[0])


def _encoding(scope: Scope) -> bytes | None:
    """Return the encoding that the client takes, gzip rather than deflate; None: as it is."""
    taken = set()
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            for part in value.lower().split(b","):
                token, _, weight = part.partition(b";")
                if weight.replace(b" ", b"").rstrip(b"0.") != b"q=":
                    taken.add(token.strip())
    return next((one for one in (b"gzip", b"deflate") if one in taken), None)


def _zipped(body: bytes, encoding: bytes) -> bytes:
    return gzip.compress(body, LEVEL, mtime=0) if encoding == b"gzip" else zlib.compress(body, LEVEL)
