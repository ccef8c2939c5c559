"""The two routes that must be fast: predict and feedback, as plain ASGI endpoints."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.api.body import ClientGone, Intake
from service.api.problems import internal, problem, problem_of
from service.domain.errors import InvalidRows, NotReady, RetrueError
from service.serving.batcher import Answered
from service.serving.worker import Worker
from service.storage.ids import QuotedIds
from service.telemetry import CountTally, Slug, TimeTally

__all__ = ["Endpoint", "Headers", "Short", "routes"]

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode
Headers = list[tuple[bytes, bytes]]
_JSON = (b"content-type", b"application/json")
_AS_SAID = (b"x-content-type-options", b"nosniff")


def routes(worker: Worker, intake: Intake) -> list[Route]:
    """Return the routes; they must stand before FastAPI's own, which look at a request much longer."""
    return [
        Route("/v1/models/{model}/predict", Predict(worker, intake), methods=["POST"], name="predict"),
        Route("/v1/models/{model}/feedback", Feedback(worker, intake), methods=["POST"], name="feedback"),
    ]


class Short:
    """The short way to the fast routes: by their addresses alone.

    Parameters
    ----------
    routes
        As `routes` gave them.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._ways: dict[str, tuple[str, Endpoint]] = {}
        for route in routes:
            prefix, verb = route.path.partition("{")[0], route.path.rpartition("/")[2]
            if isinstance(route.endpoint, Endpoint) and route.path == f"{prefix}{{model}}/{verb}":
                self._ways[verb] = prefix, route.endpoint

    def way(self, scope: Scope) -> "Endpoint | None":
        """Return the endpoint that `scope` asks for, and leave there what a router would; None: ask the router."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope.get("root_path"):
            return None
        address, _, verb = scope["path"].rpartition("/")
        found = self._ways.get(verb)
        if found is None or not address.startswith(found[0]):
            return None
        prefix, endpoint = found
        model = address[len(prefix) :]
        if not model or "/" in model:
            return None
        scope["path_params"] = {"model": model}
        return endpoint


class Endpoint(ABC):
    """What both have in common: the body, the outcome, the clock."""

    name = ""

    def __init__(self, worker: Worker, intake: Intake) -> None:
        self._worker, self._intake, self._limits = worker, intake, worker.limits
        self._telemetry = worker.telemetry
        self._meters: dict[tuple[str, str], tuple[CountTally, TimeTally]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        model: str = scope["path_params"]["model"]
        try:
            body = await self._intake.read(scope, receive)
            status, content, headers = await self.answer(scope, model, body)
        except RetrueError as error:
            self._refused(model, error)
            await problem_of(error)(scope, receive, send)
            return
        except HTTPException as error:
            self._count(model, "refused")
            self._intake.refused("body_late" if error.status_code == 408 else "body_encoding")
            refusal = problem(error.status_code, str(error.detail), code="body", headers=dict(error.headers or {}))
            await refusal(scope, receive, send)
            return
        except ClientGone:
            self._count(model, "gone")
            return
        except Exception as error:
            # No middleware stands around it that would answer for it.
            log.exception(Slug.FAST_REQUEST_FAILED, extra={"facts": {"path": self.name, "error": type(error).__name__}})
            self._count(model, "failed")
            await internal()(scope, receive, send)
            return
        headers = [*headers, _AS_SAID, (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        self._count(model, "ok", time.perf_counter() - started)

    @abstractmethod
    async def answer(self, scope: Scope, model: str, body: bytes) -> tuple[int, bytes, Headers]:
        """Return status, content, and the headers that say what it is."""

    def _refused(self, model: str, error: RetrueError) -> None:
        if isinstance(error, InvalidRows):
            outcome = "invalid_rows"
        elif isinstance(error, NotReady):
            outcome = error.code.replace("-", "_")
        else:
            outcome = "refused" if not error.code.startswith("broken") else "failed"
        self._count(model, outcome)
        self._intake.refused(error.code.replace("-", "_"))
        if isinstance(error, InvalidRows) and self._is_known(model):
            self._telemetry.refused_rows.labels(model).inc(error.facts.get("rows", 1))

    def _count(self, model: str, outcome: str, seconds: float | None = None) -> None:
        # A name out of a request is no metric label unless a model has it.
        key = (model, outcome)
        meter = self._meters.get(key)
        if meter is None:
            if not self._is_known(model):
                self._telemetry.requests.labels("unknown", self.name, outcome).inc()
                return
            meter = self._meters[key] = (
                self._telemetry.counting(self._telemetry.requests.labels(model, self.name, outcome)),
                self._telemetry.timing(self._telemetry.request_seconds.labels(model, self.name)),
            )
        meter[0].inc()
        if seconds is not None:
            meter[1].observe(seconds)

    def _is_known(self, model: str) -> bool:
        return model in self._worker.slots.bundles()


class Predict(Endpoint):
    """``POST /v1/models/{model}/predict``."""

    name = "predict"

    async def answer(self, _scope: Scope, model: str, body: bytes) -> tuple[int, bytes, Headers]:
        """Return the rows' answers. The bundle that is taken here validates, answers, and signs them."""
        bundle = self._worker.slots.take(model)
        block = bundle.decoder.decode(body, max_rows=self._limits.request_rows)
        return 200, _content(await self._worker.predict(bundle, block)), [_JSON]


class Feedback(Endpoint):
    """``POST /v1/models/{model}/feedback``."""

    name = "feedback"

    async def answer(self, _scope: Scope, model: str, body: bytes) -> tuple[int, bytes, Headers]:
        """Write the good labels down; name the bad ones."""
        labels = self._worker.decode_labels(model, body)
        if labels.ids:
            await self._worker.record_labels(model, labels)
        self._telemetry.labels.labels(model, "accepted").inc(len(labels.ids))
        if labels.errors:
            self._telemetry.labels.labels(model, "refused").inc(len(labels.errors))
        content = {
            "model": model,
            "accepted": len(labels.ids),
            "refused": len(labels.errors),
            "errors": labels.errors[:100],
        }
        if not labels.ids:
            msg = "no label of the request can be accepted: " + labels.errors[0]["detail"]
            raise InvalidRows(msg, **content)
        return 202, _encode(content), [_JSON]


def _content(answered: Answered) -> bytes:
    parts: dict[str, Any] = {"predictions": answered.outputs}
    if answered.probabilities is not None:
        parts["probabilities"] = answered.probabilities
    ids = answered.ids
    parts["ids"] = msgspec.Raw(ids.json()) if isinstance(ids, QuotedIds) else ids
    if not answered.ids:
        parts["recorded"] = False
    return answered.bundle.head + b"," + _encode(parts)[1:]
