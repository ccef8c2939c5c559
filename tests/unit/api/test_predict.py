"""Predict and feedback over HTTP."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.serving.bundle import load
from service.storage.spool import LabelBatch, PredictionBatch, read_segment, segments_of, streams
from tests.served import instance
from tests.unit.api.conftest import Api

URL = "/v1/models/flip/predict"


def spooled(api: Api) -> list[Any]:
    return [
        record
        for stream in streams(api.home / "spool")
        for segment in segments_of(stream, with_open=True)
        for record in read_segment(segment.path)
    ]


def test_an_answer_names_its_version_and_is_what_that_version_says(api: Api) -> None:
    rows = [instance(a=place / 3) for place in range(5)]
    answer = api.client.post(URL, json={"instances": rows}).json()
    bundle = load(api.store, api.first, generation=1)
    block = bundle.decoder.decode(json.dumps({"instances": rows}).encode(), max_rows=9)
    expected = bundle.answer(block)
    assert (answer["model"], answer["version"], answer["generation"]) == ("flip", 1, 1)
    assert answer["predictions"] == expected.outputs.tolist()
    assert expected.probabilities is not None
    assert answer["probabilities"] == expected.probabilities.tolist()
    assert answer["classes"] == ["DOWN", "UP"]
    (batch,) = spooled(api)
    assert isinstance(batch, PredictionBatch)
    assert batch.output == answer["predictions"]
    np.testing.assert_array_equal(batch.numeric, block.numeric)


def test_bad_rows_are_refused_with_a_problem_and_nothing_is_recorded(api: Api) -> None:
    response = api.client.post(URL, json={"instances": [instance(a="secret-value"), instance(zone=None)]})
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert [(error["row"], error["field"]) for error in problem["errors"]] == [(0, "a"), (1, "zone")]
    assert "secret-value" not in response.text
    assert spooled(api) == []


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/models/nothing/predict", b'{"instances": [{}]}', 404, "unknown-model"),
        ("/v1/models/price/predict", b'{"instances": [{}]}', 503, "no-champion"),
        ("/v1/models/price/feedback", b'{"labels": [{}]}', 503, "no-champion"),
        (URL, b"", 400, "invalid-request"),
        (URL, b"\xff\xfe\xfd", 400, "invalid-request"),
        (URL, b"[" * 50_000, 400, "invalid-request"),
        (URL, b'{"instances":' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400, "invalid-request"),
        (URL, b"x" * 100_001, 413, "body-too-large"),
        (URL, json.dumps({"instances": [[0, 0, None, True, 1]] * 501}).encode(), 413, "body-too-large"),
        ("/v1/models/flip/feedback", b"\xff", 400, "invalid-request"),
        ("/v1/models/flip/feedback", b'{"labels": [{"id": "x", "label": "UP"}]}', 422, "invalid-rows"),
    ],
)
def test_bad_input_is_refused_with_a_problem(shared_api: Api, path: str, body: bytes, status: int, code: str) -> None:
    response = shared_api.client.post(path, content=body)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in response.text


def test_a_body_that_grows_past_the_limit_while_it_comes_in_is_refused(api: Api) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b"x" * 1000

    assert api.client.post(URL, content=endless()).status_code == 413


ZIPPED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": lambda body: zlib.compress(body, wbits=-15),
}


@pytest.mark.parametrize("encoding", ZIPPED)
def test_a_zipped_body_is_answered_as_the_plain_one(shared_api: Api, encoding: str) -> None:
    body = json.dumps({"instances": [instance(a=0.25)]}).encode()
    zipped = shared_api.client.post(URL, content=ZIPPED[encoding](body), headers={"Content-Encoding": encoding})
    plain = shared_api.client.post(URL, content=body, headers={"Content-Encoding": "identity"})
    assert zipped.status_code == plain.status_code == 200
    assert zipped.json()["probabilities"] == plain.json()["probabilities"]


@pytest.mark.parametrize("encoding", ZIPPED)
def test_a_body_that_unzips_to_more_than_the_limit_is_refused(shared_api: Api, encoding: str) -> None:
    bomb = ZIPPED[encoding](b" " * 50_000_000)
    assert len(bomb) < 100_000
    tracemalloc.start()
    response = shared_api.client.post(URL, content=bomb, headers={"Content-Encoding": encoding})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (response.status_code, response.json()["code"]) == (413, "body-too-large")
    assert most < 5_000_000


def test_many_zipped_files_in_a_row_are_one_body_and_share_the_limit(shared_api: Api) -> None:
    body = json.dumps({"instances": [instance()]}).encode()
    parts = gzip.compress(body[:10]) + gzip.compress(body[10:])
    assert shared_api.client.post(URL, content=parts, headers={"Content-Encoding": "gzip"}).status_code == 200
    bombs = gzip.compress(b" " * 60_000) * 2
    assert shared_api.client.post(URL, content=bombs, headers={"Content-Encoding": "gzip"}).status_code == 413


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"x", 415),
        ("gzip, gzip", b"x", 415),
        ("gzip", b"x", 400),
        ("gzip", gzip.compress(b"{}" * 99, mtime=0)[:-9], 400),
    ],
)
def test_a_body_that_cannot_be_unzipped_is_refused(shared_api: Api, encoding: str, body: bytes, status: int) -> None:
    response = shared_api.client.post(URL, content=body, headers={"Content-Encoding": encoding})
    assert response.status_code == status
    assert (response.headers.get("accept-encoding") == "gzip, deflate") == (status == 415)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", URL, "POST"),
        ("DELETE", URL, "POST"),
        ("PUT", URL, "POST"),
        ("PATCH", "/v1/models/flip/feedback", "POST"),
        ("DELETE", "/v1/models/flip/champion", "PUT"),
        ("GET", "/v1/models/flip/pause", "PUT, DELETE"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("PUT", "/v1/models/flip/checks", "GET, HEAD, POST"),
        ("POST", "/readyz", "GET, HEAD"),
        ("TRACE", "/metrics", "GET, HEAD"),
    ],
)
def test_a_method_that_an_address_does_not_take_is_a_problem_that_names_those_it_takes(
    shared_api: Api, method: str, path: str, allowed: str
) -> None:
    response = shared_api.client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/nowhere"), ("GET", "/v1/models/flip/nothing"), ("DELETE", "/v1/models/flip/price")]
)
def test_an_address_that_is_not_there_is_a_problem(shared_api: Api, method: str, path: str) -> None:
    response = shared_api.client.request(method, path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models", "/v1/models/flip", "/metrics", "/openapi.json"])
def test_what_can_be_got_can_be_asked_for_its_head(shared_api: Api, path: str) -> None:
    got, head = shared_api.client.get(path), shared_api.client.request("HEAD", path)
    assert (head.status_code, head.headers["content-type"]) == (200, got.headers["content-type"])


def test_every_refusal_is_counted_by_its_reason(api: Api) -> None:
    api.client.post(URL, content=b"x" * 100_001)
    api.client.post(URL, content=b"x", headers={"Content-Encoding": "br"})
    api.client.post("/v1/models/price/predict", content=b"{}")
    text = api.client.get("/metrics").text
    for reason in ("body_too_large", "body_encoding", "no_champion"):
        assert f'retrue_refused_requests_total{{reason="{reason}"}} 1.0' in text


def test_labels_are_recorded_before_they_are_acknowledged(api: Api) -> None:
    ids = api.client.post(URL, json={"instances": [instance(), instance()]}).json()["ids"]
    body = {"labels": [{"id": ids[0], "label": "UP"}, {"id": ids[1], "label": 7}]}
    response = api.client.post("/v1/models/flip/feedback", json=body)
    assert response.status_code == 202
    answer = response.json()
    assert (answer["accepted"], answer["refused"], answer["errors"][0]["item"]) == (1, 1, 1)
    (labels,) = [record for record in spooled(api) if isinstance(record, LabelBatch)]
    assert (labels.ids, labels.labels) == ([ids[0]], ["UP"])


def test_odd_values_are_counted_by_feature(api: Api) -> None:
    api.client.post(URL, json={"instances": [instance(b=50, zone=9)]})
    text = api.client.get("/metrics").text
    assert 'retrue_flagged_values_total{feature="b",model="flip",signal="out_of_range"} 1.0' in text
    assert 'retrue_flagged_values_total{feature="zone",model="flip",signal="unseen"} 1.0' in text


def test_a_name_out_of_a_request_is_no_metric_label(api: Api) -> None:
    api.client.post("/v1/models/scanner/predict", content=b"{}")
    text = api.client.get("/metrics").text
    assert "scanner" not in text
    assert 'retrue_requests_total{endpoint="predict",model="unknown",outcome="refused"} 1.0' in text


def test_an_answer_that_cannot_be_recorded_is_not_given(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.worker.recorder._spool, "_cap_bytes", 1)
    response = api.client.post(URL, json={"instances": [instance()]})
    assert (response.status_code, response.json()["code"]) == (503, "not-recorded")
    assert int(response.headers["retry-after"]) > 0
