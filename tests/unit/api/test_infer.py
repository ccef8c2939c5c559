"""The Open Inference Protocol: whatever form rows come in, they get what /v1 answers, by the same way."""

import gzip
import json
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Match

from service.api import infer, predict
from service.api.body import Intake
from service.storage.spool import LabelBatch, PredictionBatch, read_segment, segments_of, streams
from tests.served import FLIP, crown, flip, instance, pack
from tests.tensors import LENGTH, answers, as_binary, as_json, columns, matrix
from tests.unit.api.conftest import Api

URL = "/v2/models/flip/infer"
ROWS = [instance(a=-0.5), instance(a=0.25, n=0.5, on=False, zone=3), instance(a=3.0, b=-2.5, n=1.0)]


def v1(api: Api, rows: list[dict[str, Any]]) -> tuple[list[str], list[float]]:
    answer = api.client.post("/v1/models/flip/predict", json={"instances": rows}).json()
    return answer["predictions"], [value for row in answer["probabilities"] for value in row]


def ask(api: Api, content: bytes, headers: dict[str, str], url: str = URL) -> httpx.Response:
    return api.client.post(url, content=content, headers=headers)


def ask_json(api: Api, body: dict[str, Any], **headers: str) -> httpx.Response:
    return api.client.post(URL, content=json.dumps(body), headers=headers)


def said(response: httpx.Response) -> tuple[list[str], list[float]]:
    found = answers(response)
    return found["predictions"], found["probabilities"]


def spooled(api: Api, kind: type[Any]) -> list[Any]:
    return [
        record
        for stream in streams(api.home / "spool")
        for segment in segments_of(stream, with_open=True)
        for record in read_segment(segment.path)
        if isinstance(record, kind)
    ]


def test_every_form_of_the_same_rows_gets_the_answers_of_v1(shared_api: Api) -> None:
    expected = v1(shared_api, ROWS)
    single, whole = columns(ROWS), matrix(ROWS)
    upright = {name: values.reshape(-1, 1) for name, values in single.items()}
    reverse = dict(reversed(single.items()))
    binary = {"binary_data_output": True}
    for tensors in (single, upright, reverse, whole):
        assert said(ask_json(shared_api, as_json(tensors))) == expected
        assert said(ask_json(shared_api, as_json(tensors, nested=True))) == expected
        assert said(ask_json(shared_api, as_json(tensors, parameters=binary))) == expected
        assert said(ask(shared_api, *as_binary(tensors))) == expected
        assert said(ask(shared_api, *as_binary(tensors, parameters=binary))) == expected
    assert said(ask_json(shared_api, as_json(single, parameters={"content_type": "pd"}))) == expected
    assert said(ask_json(shared_api, as_json(whole, parameters={"content_type": "np"}))) == expected


def test_some_tensors_may_be_binary_and_others_json(shared_api: Api) -> None:
    tensors = columns(ROWS)
    plain = as_json({name: tensors[name] for name in ("a", "n")})["inputs"]
    content, headers = as_binary({name: tensors[name] for name in ("b", "on", "zone")})
    head = json.loads(content[: int(headers[LENGTH])])
    inputs = json.dumps({"inputs": [plain[0], *head["inputs"], plain[1]]}).encode()
    body = inputs + content[int(headers[LENGTH]) :]
    assert said(ask(shared_api, body, {LENGTH: str(len(inputs))})) == v1(shared_api, ROWS)


SMALL = st.floats(-1000, 1000, width=16)
RANDOM = st.fixed_dictionaries(
    {
        "a": SMALL,
        "b": SMALL,
        "n": st.none() | st.floats(0, 1, width=16),
        "on": st.booleans(),
        "zone": st.integers(-9, 9),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(RANDOM, min_size=1, max_size=6),
    kinds=st.tuples(*[st.sampled_from(["float16", "float32", "float64"])] * 3),
    zone=st.sampled_from(["int8", "int16", "int32", "int64", "float16", "float32", "float64"]),
    on=st.sampled_from(["bool", "uint8", "int64", "float32"]),
    whole=st.sampled_from(["float16", "float32", "float64"]),
    is_nested=st.booleans(),
    is_binary=st.booleans(),
)
def test_any_rows_in_any_form_get_the_answers_of_v1(
    shared_api: Api,
    rows: list[dict[str, Any]],
    kinds: tuple[str, ...],
    zone: str,
    on: str,
    whole: str,
    is_nested: bool,
    is_binary: bool,
) -> None:
    expected = v1(shared_api, rows)
    single = columns(rows)
    types = dict(zip(single, [*kinds, on, zone], strict=True))
    tensors = {name: values.astype(types[name]) for name, values in single.items()}
    frame = {"parameters": {"binary_data_output": is_binary}}
    for given_ in (tensors, matrix(rows, whole)):
        assert said(ask_json(shared_api, as_json(given_, nested=is_nested, **frame))) == expected
        assert said(ask(shared_api, *as_binary(given_, **frame))) == expected


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16"])
def test_every_datatype_of_numbers_is_taken(shared_api: Api, kind: str) -> None:
    rows = [instance(a=100.0, b=3, n=1.0, zone=2), instance(a=0, b=1, n=0.0, on=False, zone=1)]
    whole = matrix(rows, kind)
    assert said(ask(shared_api, *as_binary(whole))) == v1(shared_api, rows)
    assert said(ask_json(shared_api, as_json(whole))) == v1(shared_api, rows)


def test_digits_in_json_are_taken_as_written_whatever_the_datatype(shared_api: Api) -> None:
    body = as_json(columns([instance(a=0.1)]))
    body["inputs"][0]["datatype"] = "FP32"
    assert said(ask_json(shared_api, body)) == v1(shared_api, [instance(a=0.1)])


def test_what_is_answered_is_written_and_its_ids_take_labels(api: Api) -> None:
    for at, (content, headers) in enumerate([as_binary(columns(ROWS)), as_binary(matrix(ROWS * 10))]):
        found = answers(ask(api, content, headers))
        batch: PredictionBatch = spooled(api, PredictionBatch)[at]
        assert batch.output == found["predictions"]
        assert [one.replace("-", "") for one in found["ids"]] == [bytes(one).hex() for one in batch.ids]
        labels = {"labels": [{"id": found["ids"][0], "label": "UP"}]}
        assert api.client.post("/v1/models/flip/feedback", json=labels).status_code == 202
        assert spooled(api, LabelBatch)[at].ids == [found["ids"][0]]
    found = answers(ask(api, *as_binary(matrix(ROWS * 10), parameters={"binary_data_output": True})))
    texts = [bytes(one).hex() for one in spooled(api, PredictionBatch)[2].ids]
    assert [one.replace("-", "") for one in found["ids"]] == texts
    text = api.client.get("/metrics").text
    assert 'retrue_requests_total{endpoint="infer",model="flip",outcome="ok"} 3.0' in text
    assert 'retrue_predictions_total{model="flip",role="champion"} 63.0' in text


def test_an_answer_that_cannot_be_recorded_is_not_given(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.worker.recorder._spool, "_cap_bytes", 1)
    response = ask(api, *as_binary(columns(ROWS)))
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert list(response.json()) == ["error"]


def test_an_answer_that_may_go_unrecorded_says_so_and_has_no_ids(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.worker.recorder._spool, "_cap_bytes", 1)
    monkeypatch.setattr(api.worker.recorder, "_when_full", lambda _model: "answer")
    for is_binary in (False, True):
        response = ask_json(api, as_json(columns(ROWS), parameters={"binary_data_output": is_binary}))
        found = answers(response)
        assert (len(found["predictions"]), found["ids"]) == (3, [])
        assert b'"recorded":false' in response.content


def test_an_answer_names_version_generation_and_classes_and_echoes_the_id(api: Api) -> None:
    answer = ask_json(api, as_json(columns(ROWS), id='é"1')).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("flip", "1", 'é"1')
    assert answer["parameters"] == {"version": 1, "generation": 1, "classes": '["DOWN","UP"]'}
    assert [(one["name"], one["datatype"], one["shape"]) for one in answer["outputs"]] == [
        ("predictions", "BYTES", [3]),
        ("probabilities", "FP64", [3, 2]),
        ("ids", "BYTES", [3]),
    ]
    assert "id" not in ask_json(api, as_json(columns(ROWS))).json()


def test_outputs_come_in_the_order_and_the_form_they_are_asked_for(shared_api: Api) -> None:
    outputs = [
        {"name": "ids", "parameters": {"binary_data": True}},
        {"name": "probabilities"},
        {"name": "predictions", "parameters": {"binary_data": False}},
    ]
    response = ask_json(shared_api, as_json(columns(ROWS), outputs=outputs))
    assert list(answers(response)) == ["ids", "probabilities", "predictions"]
    head = json.loads(response.content[: int(response.headers[LENGTH])])
    assert ["data" in one for one in head["outputs"]] == [False, True, True]
    assert response.headers["content-type"] == "application/octet-stream"
    response = ask_json(
        shared_api, as_json(columns(ROWS), outputs=outputs[1:], parameters={"binary_data_output": True})
    )
    head = json.loads(response.content[: int(response.headers[LENGTH])])
    assert ["data" in one for one in head["outputs"]] == [False, True]
    assert list(answers(ask_json(shared_api, as_json(columns(ROWS), outputs=[])))) == [
        "predictions", "probabilities", "ids",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("times", [1, 50, 160])
def test_zipped_requests_and_answers_are_those_of_plain_ones(shared_api: Api, encoding: str, times: int) -> None:
    rows = ROWS * times
    content, headers = as_binary(matrix(rows), parameters={"binary_data_output": True})
    zipped = gzip.compress(content) if encoding == "gzip" else zlib.compress(content)
    response = ask(shared_api, zipped, {**headers, "Content-Encoding": encoding, "Accept-Encoding": encoding})
    assert response.headers.get("content-encoding") == (encoding if times > 1 else None)
    assert said(response) == v1(shared_api, rows)


@pytest.mark.parametrize("accepted", ["identity", "br", "gzip;q=0", "deflate; q=0.0, br"])
def test_an_answer_is_zipped_only_for_who_takes_it(shared_api: Api, accepted: str) -> None:
    response = ask(shared_api, *as_binary(matrix(ROWS * 50)))
    assert "content-encoding" in response.headers  # httpx takes gzip by itself
    content, headers = as_binary(matrix(ROWS * 50))
    response = ask(shared_api, content, {**headers, "Accept-Encoding": accepted})
    assert "content-encoding" not in response.headers


MOMENTS = ["2026-01-01T01:00:00.000001+01:00", "2026-01-02T00:00:00Z"]
MICROS = [1_767_225_600_000_001, 1_767_312_000_000_000]


@pytest.mark.parametrize("moments", [np.array(MOMENTS, dtype=object), np.array(MICROS), np.array(MICROS).reshape(2, 1)])
def test_rows_may_carry_their_event_time(api: Api, moments: Any) -> None:
    for tensors in (columns(ROWS[:2]), matrix(ROWS[:2])):
        assert ask(api, *as_binary({**tensors, "at": moments})).status_code == 200
        assert ask_json(api, as_json({"at": moments, **tensors})).status_code == 200
    for batch in spooled(api, PredictionBatch):
        assert batch.event_time_us.tolist() == MICROS


def test_only_the_champion_answers_and_who_names_another_version_is_told_which_it_is(api: Api) -> None:
    content, headers = as_binary(columns(ROWS))
    first = "/v2/models/flip/versions/1"
    assert answers(ask(api, content, headers, f"{first}/infer"))["predictions"]
    assert [api.client.get(f"{first}{tail}").status_code for tail in ("", "/ready")] == [200, 200]
    crown(api.database, pack(api.store, FLIP, flip(1), number=2))
    api.worker.replica.look()
    for response in (
        ask(api, content, headers, f"{first}/infer"),
        api.client.get(first),
        api.client.get(f"{first}/ready"),
        api.client.get("/v2/models/flip/versions/x%0Ay/ready"),
    ):
        assert response.status_code == 404
        assert "champion is version 2" in response.json()["error"]
    answer = json.loads(ask_json(api, as_json(columns(ROWS))).content)
    assert (answer["model_version"], answer["parameters"]["generation"]) == ("2", 2)


def test_the_short_way_to_infer_ends_where_the_router_ends(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = infer.routes(api.worker, Intake(api.worker.limits, api.worker.telemetry))
    scope = {"type": "http", "path": URL, "method": "POST", "root_path": ""}
    short = predict.Short(routes)
    assert short.way(scope) is routes[0].endpoint
    match, child = routes[0].matches({**scope})
    assert (match, child["path_params"]) == (Match.FULL, scope["path_params"])
    for path in ("/v2/models/a/b/infer", "/v2/models//infer", "/v1/models/flip/infer", "/v2/models/flip/predict"):
        assert short.way({**scope, "path": path}) is None
    content, headers = as_binary(matrix(ROWS * 100), parameters={"binary_data_output": True})
    before = said(ask(api, content, headers))
    monkeypatch.setattr(predict.Short, "way", lambda _self, _scope: None)
    assert said(ask(api, content, headers)) == before
