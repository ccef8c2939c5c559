"""Traces: spans of requests, checks and runs where a collector is named, and nothing at all where none is."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.api.trail import Trails
from service.control.traced import trace_check, trace_run
from service.domain.errors import InvalidSetup
from service.domain.run import RunState, Trigger
from service.storage import checks, models, runs
from service.traces import Traces, open_traces, provider
from tests.migrated import migrated
from tests.served import instance
from tests.unit.api.conftest import Api, running

ROOT = Path(__file__).parents[2]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROWS = {"instances": [instance()]}
AT = datetime(2026, 1, 1, tzinfo=UTC)
S = RunState


class Memory:
    """Traces that a test can look at."""

    def __init__(self, *, predictions: float = 0.0) -> None:
        self.exporter = InMemorySpanExporter()
        made = provider("test")
        made.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.traces = Traces(made, predictions=predictions)

    def spans(self) -> tuple[ReadableSpan, ...]:
        found: tuple[ReadableSpan, ...] = self.exporter.get_finished_spans()
        self.exporter.clear()
        return found


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def api(tmp_path: Path, memory: Memory) -> Iterator[Api]:
    with running(tmp_path) as made:
        made.app.trails = Trails(memory.traces)
        yield made


def test_a_request_is_a_span_in_its_senders_trace_and_the_answer_names_it(api: Api, memory: Memory) -> None:
    sent = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    answer = api.client.get("/v1/models/flip", headers=sent)
    (span,) = memory.spans()
    assert span.context is not None
    assert span.parent is not None
    assert (trace_of(span), f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert answer.headers["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert span.name == "GET /v1/models/{model}"
    assert about(span) == {
        "http.request.method": "GET", "http.route": "/v1/models/{model}", "http.response.status_code": 200,
        "retrue.model": "flip",
    }  # fmt: skip


def test_a_sender_that_traces_nothing_is_believed(api: Api, memory: Memory) -> None:
    answer = api.client.get("/v1/models/flip", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
    assert memory.spans() == ()
    assert answer.headers["traceparent"].endswith("-00")


def test_a_request_without_a_sender_that_traces_begins_a_trace_that_its_answer_names(api: Api, memory: Memory) -> None:
    answer = api.client.get("/v1/models/nobody")
    (span,) = memory.spans()
    assert (span.parent, about(span)["http.response.status_code"], span.status.is_ok) == (None, 404, True)
    assert answer.headers["traceparent"].split("-")[1] == trace_of(span) == answer.headers["x-request-id"]


def test_a_prediction_is_traced_as_often_as_is_set_and_whenever_its_sender_does(api: Api, memory: Memory) -> None:
    def ask(**headers: str) -> None:
        assert api.client.post("/v1/models/flip/predict", json=ROWS, headers=headers).status_code == 200

    for _ in range(20):
        ask()
    assert memory.spans() == ()
    ask(traceparent=f"00-{TRACE}-{SPAN}-01")
    (span,) = memory.spans()
    assert (span.name, trace_of(span)) == ("POST /v1/models/{model}/predict", TRACE)
    always = Memory(predictions=1.0)
    api.app.trails = Trails(always.traces)
    ask()
    assert len(always.spans()) == 1


def test_a_run_is_a_trace_of_its_own_id_with_a_span_for_each_stage(tmp_path: Path, memory: Memory) -> None:
    database = migrated(tmp_path / "retrue.db")
    steps = [S.PREPARING, S.VALIDATING, S.TRAINING, S.FAILED]
    with database.write() as conn:
        models.register(conn, "shop", spec_json={}, file="shop.py", at=AT)
        run = runs.create(conn, "shop", trigger=Trigger.DRIFT, actor="controller", reason="r", at=AT)
        for place, state in enumerate(steps, start=1):
            at = AT + timedelta(seconds=place * 10)
            run = runs.transition(conn, run.id, state, actor="t", reason="r", at=at, code="train_error")
        trace_run(memory.traces, run, runs.events(conn, run.id))
    *parts, whole = memory.spans()
    assert [span.name for span in parts] == ["run.queued", "run.preparing", "run.validating", "run.training"]
    assert {trace_of(span) for span in (*parts, whole)} == {run.id.replace("-", "")}
    assert whole.context is not None
    assert {span.parent.span_id for span in parts if span.parent} == {whole.context.span_id}
    assert [((s.end_time or 0) - (s.start_time or 0)) / 1e9 for s in (*parts, whole)] == [10, 10, 10, 10, 40]
    assert whole.status.is_ok is False
    assert (about(whole)["retrue.model"], about(whole)["retrue.code"]) == ("shop", "train_error")
    database.close()


def test_a_check_is_a_span_with_its_verdict(tmp_path: Path, memory: Memory) -> None:
    database = migrated(tmp_path / "retrue.db")
    with database.write() as conn:
        models.register(conn, "shop", spec_json={}, file="shop.py", at=AT)
        check = checks.create(conn, "shop", actor="schedule", at=AT)
        later = AT + timedelta(seconds=3)
        check = checks.finish(conn, check.id, at=later, verdict="drifted", rows=7, decision={"code": "cooldown"})
    trace_check(memory.traces, check)
    (span,) = memory.spans()
    assert (span.name, trace_of(span)) == ("check", check.id.replace("-", ""))
    assert (about(span)["retrue.verdict"], about(span)["retrue.decision"]) == ("drifted", "cooldown")
    database.close()


def test_without_a_collector_nothing_of_it_is_imported_where_requests_are_answered() -> None:
    program = (
        "import json, sys, service.api.application, service.control.controller, service.traces\n"
        "assert service.traces.open_traces('', role='api') is None\n"
        "parts = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"  # FastAPI itself imports the bare interface
        "print(json.dumps([name for name in sys.modules if name.startswith(parts)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_collector_without_the_extra_is_one_line_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(InvalidSetup, match=r"pip install 'retrue\[otel\]'"):
        open_traces("http://collector:4318", role="api")


def test_a_collector_that_is_away_does_not_hold_up_the_end() -> None:
    traces = open_traces("http://127.0.0.1:1", role="api")
    assert traces is not None
    began = datetime.now(UTC)
    traces.request(None, TRACE).end("x", {}, is_error=False)
    traces.close()
    assert datetime.now(UTC) - began < timedelta(seconds=10)
