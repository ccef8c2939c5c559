"""OpenTelemetry traces, where the extra is installed and a collector is named; else nothing of it is even imported.

A request's span stands for itself. Checks and runs are told when they are over, from the times in their rows: no
process that works on one needs to know of traces, and the trace's id is the run's own.
"""

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from service.domain.errors import InvalidSetup

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["Parent", "Span", "Stage", "Traces", "open_traces"]

CLOSE_S = 2.0
"""What a collector that is away may cost at the end."""
NANO = 1_000_000_000

_wanted: ContextVar[int | None] = ContextVar("wanted", default=None)


@dataclass(frozen=True)
class Parent:
    """A span of somebody else's."""

    trace: str
    span: str
    is_sampled: bool


@dataclass(frozen=True)
class Stage:
    """A part of something that is over."""

    name: str
    began: datetime
    ended: datetime
    about: Mapping[str, Any]


class Span:
    """A request under way."""

    def __init__(self, span: Any) -> None:
        self._span = span
        context = span.get_span_context()
        self.id = f"{context.span_id:016x}"
        self.is_sampled = bool(context.trace_flags & 1)

    def end(self, name: str, about: Mapping[str, Any], *, is_error: bool) -> None:
        """End it: the request is answered."""
        from opentelemetry.trace import StatusCode

        self._span.update_name(name)
        self._span.set_attributes(dict(about))
        if is_error:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Traces:
    """Where the spans of one process go.

    Parameters
    ----------
    provider
        An SDK's, with whatever exports its spans.
    predictions
        Share of predictions that are traced although their sender traces none.
    """

    def __init__(self, provider: "TracerProvider", *, predictions: float = 0.0) -> None:
        self._provider, self._predictions = provider, predictions
        self._tracer = provider.get_tracer("retrue")

    def takes_prediction(self) -> bool:
        """Return whether to trace this one."""
        return random.random() < self._predictions  # noqa: S311  no secret

    def request(self, parent: Parent | None, trace: str) -> Span:
        """Begin a request's span in that trace."""
        from opentelemetry import trace as api

        around = None
        if parent is not None:
            flags = api.TraceFlags(1 if parent.is_sampled else 0)
            above = api.SpanContext(int(parent.trace, 16), int(parent.span, 16), is_remote=True, trace_flags=flags)
            around = api.set_span_in_context(api.NonRecordingSpan(above))
        with _named(trace):
            return Span(self._tracer.start_span("request", context=around, kind=api.SpanKind.SERVER))

    def tell(self, whole: Stage, parts: Sequence[Stage], *, trace: str, is_error: bool) -> None:
        """Tell of something that is over, and of its parts."""
        from opentelemetry import trace as api

        with _named(trace):
            top = self._tracer.start_span(
                whole.name, context=api.set_span_in_context(api.INVALID_SPAN), attributes=dict(whole.about),
                start_time=_nano(whole.began),
            )  # fmt: skip
        around = api.set_span_in_context(top)
        for part in parts:
            child = self._tracer.start_span(
                part.name, context=around, attributes=dict(part.about), start_time=_nano(part.began)
            )
            child.end(_nano(part.ended))
        if is_error:
            top.set_status(api.StatusCode.ERROR)
        top.end(_nano(whole.ended))

    def close(self) -> None:
        """Send what is left, as far as somebody takes it soon."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def open_traces(endpoint: str, *, role: str, predictions: float = 0.0) -> Traces | None:
    """Return where the spans of this process go; None where no collector is named.

    Raises
    ------
    InvalidSetup
        If one is named and the extra is not installed.
    """
    if not endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        msg = "RETRUE_OTLP_ENDPOINT is set, and OpenTelemetry is not installed: pip install 'retrue[otel]'"
        raise InvalidSetup(msg) from None
    made = provider(role)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return Traces(made, predictions=predictions)


def provider(role: str) -> "TracerProvider":
    """Return an SDK's provider whose traces have the ids that we want."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

    class Ids(RandomIdGenerator):
        """A trace that stands for something with an id has that id."""

        def generate_trace_id(self) -> int:
            """Return the wanted id, or any."""
            return _wanted.get() or super().generate_trace_id()

    resource = Resource.create({"service.name": "retrue", "service.instance.role": role})
    return TracerProvider(sampler=ParentBased(ALWAYS_ON), resource=resource, id_generator=Ids(), shutdown_on_exit=False)


@contextmanager
def _named(trace: str) -> Iterator[None]:
    token = _wanted.set(int(trace, 16))
    try:
        yield
    finally:
        _wanted.reset(token)


def _nano(moment: datetime) -> int:
    return round(moment.timestamp() * NANO)
