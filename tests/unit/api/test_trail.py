"""Trails: the sender's trace context and id are honoured, answered, and in each log line of the request."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.api.trail import trail_of
from service.journal import JsonFormatter
from tests.served import instance
from tests.unit.api.conftest import Api, running

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
ROWS = {"instances": [instance()]}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("home")) as made:
        yield made


class Lines(logging.Handler):
    """What is logged, as JSON lines: formatted at once, as the service does."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter("api-0"))
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))

    def of(self, action: str) -> list[dict[str, object]]:
        return [line for line in self.lines if line["action"] == action]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("service")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_trace_is_gone_on_with_and_answered_with_a_span_of_our_own(api: Api) -> None:
    answer = api.client.get("/v1/models", headers={"traceparent": PARENT, "x-request-id": "order-7"})
    match = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", answer.headers["traceparent"])
    assert match is not None
    assert match[1] == TRACE
    assert match[2] != SPAN
    assert answer.headers["x-request-id"] == "order-7"


def test_a_request_without_a_trace_begins_one_and_its_id_is_the_requests(api: Api) -> None:
    first, second = (api.client.get("/livez").headers for _ in range(2))
    trace = first["traceparent"].split("-")[1]
    assert (first["x-request-id"], trace) == (trace, first["traceparent"].split("-")[1])
    assert first["traceparent"].endswith("-00")
    assert trace != second["traceparent"].split("-")[1]


@pytest.mark.parametrize(
    "header",
    [
        "", "00", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE[1:]}-{SPAN}-01", f"{PARENT}\xff",
    ],
)  # fmt: skip
def test_what_is_no_trace_context_is_as_if_it_had_not_been_sent(header: str) -> None:
    trail = trail_of({"headers": [(b"traceparent", header.encode("latin-1"))]})
    assert trail.parent is None
    assert trail.trace != TRACE


def test_a_later_version_of_the_header_may_say_more() -> None:
    trail = trail_of({"headers": [(b"traceparent", f"cc-{TRACE}-{SPAN}-00-what-ever".encode())]})
    assert (trail.trace, trail.traceparent[-2:]) == (TRACE, "00")


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ü", "a\tb"])
def test_an_id_that_could_forge_a_line_is_not_taken(given: str) -> None:
    assert trail_of({"headers": [(b"x-request-id", given.encode())]}).request_id != given


def test_a_change_is_logged_with_its_trail_and_what_its_address_names(api: Api, lines: Lines) -> None:
    answer = api.client.put("/v1/models/flip/pause", headers={"traceparent": PARENT, "x-request-id": "order-7"})
    assert answer.status_code == 200
    (line,) = lines.of("request_done")
    assert (line["trace"], line["request"], line["level"]) == (TRACE, "order-7", "info")
    assert (line["method"], line["status"], line["model"], line["switch"]) == ("PUT", 200, "flip", "pause")
    assert (line["route"], line["actor"]) == ("/v1/models/{model}/{switch:switch}", "operator")


def test_a_look_is_logged_for_those_alone_who_look_into_it(api: Api, lines: Lines) -> None:
    api.client.get("/v1/models/flip")
    assert [(line["level"], line["model"]) for line in lines.of("request_done")] == [("debug", "flip")]


def test_a_failure_that_nobody_foresaw_is_logged_with_its_trail(
    api: Api, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("service.api.reads.described", broken)
    monkeypatch.setattr(api.worker, "predict", broken)
    headers = {"traceparent": PARENT}
    assert api.client.get("/v1/models/flip", headers=headers).status_code == 500
    assert api.client.post("/v1/models/flip/predict", headers=headers, json=ROWS).status_code == 500
    (slow,), (fast,) = lines.of("request_failed"), lines.of("fast_request_failed")
    assert (slow["trace"], slow["model"]) == (TRACE, "flip")
    assert fast["trace"] == TRACE


def test_a_prediction_answers_the_trail_that_it_was_sent_with_and_else_has_none(api: Api, lines: Lines) -> None:
    ask: dict[str, Any] = {"path": "/v1/models/flip/predict", "json": ROWS}
    plain = api.client.post(**ask)
    traced = api.client.post(**ask, headers={"traceparent": PARENT})
    named = api.client.post(**ask, headers={"x-request-id": "order-7"})
    assert [answer.status_code for answer in (plain, traced, named)] == [200, 200, 200]
    assert not {"traceparent", "x-request-id"} & set(plain.headers)
    assert traced.headers["traceparent"].split("-")[1] == TRACE
    assert named.headers["x-request-id"] == "order-7"
    assert lines.of("request_done") == []  # a line each would cost more than the prediction


def test_a_refusal_at_the_door_has_its_trail_too(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        api.app.gate._may_be_open = False
        answer = api.client.get("/v1/models", headers={"traceparent": PARENT})
        assert (answer.status_code, answer.headers["traceparent"].split("-")[1]) == (401, TRACE)
