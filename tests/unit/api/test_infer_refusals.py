"""What is wrong with an Open Inference request is said in the protocol's form, and harms nobody who asks after it."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from service.storage.spool import segments_of, streams
from tests.served import instance
from tests.tensors import LENGTH, answers, as_binary, as_json, columns, matrix
from tests.unit.api.conftest import Api

URL = "/v2/models/flip/infer"
ROWS = [instance(), instance(a=2.0)]


def refused(
    api: Api, content: bytes, headers: dict[str, str] | None = None, *, status: int = 400, url: str = URL
) -> str:
    """Return the error's words; a right request is answered after it."""
    response = api.client.post(url, content=content, headers=headers)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    problem = response.json()
    assert list(problem) == ["error"]
    assert len(problem["error"]) < 1000
    assert answers(api.client.post(URL, content=json.dumps(as_json(columns(ROWS)))))["predictions"]
    words: str = problem["error"]
    return words


def body(**changes: Any) -> bytes:
    """Return a right request but for `changes` of its first input, a feature's."""
    request = as_json(columns(ROWS))
    request["inputs"][0] |= changes
    return json.dumps(request).encode()


def frame(**changes: Any) -> bytes:
    return json.dumps(as_json(columns(ROWS)) | changes).encode()


def binary(**changes: Any) -> tuple[bytes, str]:
    """Return a right binary request but for `changes` of its one input, and the length of its head."""
    content, headers = as_binary(matrix(ROWS))
    at = int(headers[LENGTH])
    request = json.loads(content[:at])
    request["inputs"][0] |= changes
    head = json.dumps(request).encode()
    return head + content[at:], str(len(head))


LONG = "x" * 100
ONE = {"name": "on", "shape": [2], "datatype": "BOOL", "data": [True, False]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"  ", "empty"),
        (b"{", "not JSON"),
        (b"\xff\xfe\xfd", "UTF-8"),
        (b"[]", "not what the protocol asks for"),
        (b"{}", "inputs"),
        (b'{"inputs": 7}', "inputs"),
        (b'{"inputs": []}', "missing: 'a', 'b', 'n', 'on', 'zone'"),
        (b'{"inputs": [7]}', "inputs"),
        (b"[" * 90_000, "nested too deeply"),
        (b'{"inputs": ' + b"[" * 40_000 + b"]" * 40_000 + b"}", "nested too deeply"),
        (body(data=[[[0.0]] * 2]), "no list of FP64"),
        (body().replace(b"[0.5, 2.0]", b"[" * 20_000 + b"]" * 20_000), "nested too deeply"),
        (b'{"inputs": [], "id": 7}', "id"),
        (frame(id="\ud800"), "half of a character"),
        (frame(parameters=7), "parameters"),
        (frame(parameters={"x": [1]}), "parameters"),
        (frame(parameters={"content_type": "base64"}), "content_type"),
        (frame(parameters={"content_type": 7}), "content_type"),
        (frame(parameters={"binary_data_output": 1}), "true or false"),
        (frame(outputs=[{"name": "predict"}]), "none of predictions, probabilities, ids"),
        (frame(outputs=[{"name": "ids"}, {"name": "ids"}]), "twice"),
        (frame(outputs=[{"name": "ids", "parameters": {"binary_data": "yes"}}]), "true or false"),
        (frame(outputs=[{"name": "ids", "parameters": {"classification": 2}}]), "classification"),
        (frame(outputs=[{"name": "ids", "parameters": {"shared_memory_region": "r"}}]), "shared_memory"),
        (frame(outputs=[7]), "outputs"),
        (body(name=LONG), "missing: 'a'"),
        (body(name="on"), "same name"),
        (body(name="zon"), "did you mean 'zone'"),
        (body(datatype="FP8"), "datatype"),
        (body(datatype="BYTES", data=["1", "2"]), "holds no strings"),
        (body(datatype="BOOL", data=[True, False]), "holds numbers"),
        (body(datatype="INT8", data=[1, 128]), "does not fit INT8"),
        (body(datatype="UINT16", data=[1, -1]), "does not fit UINT16"),
        (body(datatype="UINT64", data=[1, 2**64]), "does not fit UINT64"),
        (body(datatype="INT64", data=[1, 1.5]), "no list of INT64"),
        (body(datatype="INT64", data=[1, None]), "no list of INT64"),
        (body(datatype="INT64", data=[1, True]), "no list of INT64"),
        (body(datatype="FP16", data=[1, 1e5]), "does not fit FP16"),
        (body(datatype="FP32", data=[1, 1e39]), "does not fit FP32"),
        (body(datatype="FP64", data=[1, "2"]), "no list of FP64"),
        (body(datatype="FP64", data=[1, True]), "no list of FP64"),
        (body(data=None), "no list of FP64"),
        (body(data={"a": 1}), "no list of FP64"),
        (body(data=[]), "0 values"),
        (body(data=[1.0]), "1 values"),
        (body(data=[1.0, 2.0, 3.0]), "3 values"),
        (body(data=[[1.0, 2.0]]), "not nested as its shape says"),
        (body(shape=[2, 1], data=[[1.0], [2.0, 3.0]]), "not nested as its shape says"),
        (body(shape=[2, 1], data=[[1.0], 2.0]), "no list of FP64"),
        (body(shape=[]), "shape"),
        (body(shape=[-2]), "shape"),
        (body(shape=[-1, -2]), "shape"),
        (body(shape=[2, 1, 1]), "shape"),
        (body(shape=[2, 3]), "shape"),
        (body(shape=[2, 2**63]), "shape"),
        (body(shape=[1.5]), "shape"),
        (body(shape=["2"]), "shape"),
        (body(shape=[0], data=[]), "no rows"),
        (body(shape=[1], data=[1.0]), "equally many rows"),
        (body(shape=[2, 5], data=[1.0] * 10), "is one feature"),
        (body(parameters={"content_type": "base64"}), "content_type"),
        (body(parameters={"shared_memory_region": "r"}), "shared memory"),
        (body(parameters={"binary_data_size": 16}), "both data and binary_data_size"),
        (json.dumps({"inputs": [ONE] * 7}).encode(), "more than the model has features"),
        (json.dumps({"inputs": [{"name": "a", "shape": [1], "datatype": "FP64"}]}).encode(), "has no data"),
        (json.dumps(as_json({"x": np.zeros((2, 4))})).encode(), "[n, 5]"),
        (json.dumps(as_json({"x": np.zeros(5)})).encode(), "[n, 5]"),
        (json.dumps(as_json({"x": np.zeros((1, 5), dtype=bool)})).encode(), "feature 'a' holds numbers"),
        (json.dumps(as_json({"x": np.array([["u"] * 5], dtype=object)})).encode(), "feature 'a' holds no strings"),
        (json.dumps(as_json(matrix(ROWS), parameters={"content_type": "pd"})).encode(), "missing"),
        (json.dumps(as_json({**columns(ROWS), "at": np.zeros((2, 5))})).encode(), "event time"),
        (json.dumps(as_json({**columns(ROWS), "at": np.zeros(2)})).encode(), "event time"),
    ],
)  # fmt: skip
def test_a_request_that_is_not_the_protocols_is_refused(shared_api: Api, content: bytes, words: str) -> None:
    said = refused(shared_api, content)
    assert words in said
    assert LONG not in said


@pytest.mark.parametrize(
    ("changes", "length", "words"),
    [
        ({}, "x", "one number"),
        ({}, "-1", "one number"),
        ({}, "1" * 30, "one number"),
        ({}, "", "one number"),
        ({}, "0", "without a JSON head"),
        ({}, -1, "not JSON"),
        ({}, 1, "not"),
        ({}, "99999", "has only"),
        ({"parameters": {"binary_data_size": 79}}, 0, "has 79 bytes; its shape and datatype ask for 80"),
        ({"parameters": {"binary_data_size": 81}}, 0, "only 80 are left"),
        ({"parameters": {"binary_data_size": 2**70}}, 0, "only 80 are left"),
        ({"parameters": {"binary_data_size": -1}}, 0, "number of bytes"),
        ({"parameters": {"binary_data_size": True}}, 0, "number of bytes"),
        ({"parameters": {"binary_data_size": "80"}}, 0, "number of bytes"),
        ({"parameters": {}}, 0, "has no data"),
        ({"shape": [1, 5]}, 0, "ask for 40"),
        ({"shape": [1, 5], "parameters": {"binary_data_size": 40}}, 0, "40 bytes of binary data are left over"),
        ({"shape": [-2, -5]}, 0, "shape"),
        ({"shape": [2**62, 2**62]}, 0, "shape"),
        ({"datatype": "FP32"}, 0, "ask for 40"),
        ({"datatype": "BYTES"}, 0, "element"),
        ({"datatype": "INT64"}, 0, "break the model's schema"),
    ],
)
def test_binary_data_that_is_not_as_the_head_says_is_refused(
    shared_api: Api, changes: dict[str, Any], length: str | int, words: str
) -> None:
    content, at = binary(**changes)
    given = str(int(at) + length) if isinstance(length, int) else length
    said = refused(shared_api, content, {LENGTH: given})
    assert words in said


def test_binary_data_without_the_length_of_its_head_is_refused(shared_api: Api) -> None:
    content, at = binary()
    assert "not" in refused(shared_api, content)
    assert "Inference-Header-Content-Length must be sent" in refused(shared_api, content[: int(at)])


def test_two_lengths_of_the_head_are_refused(shared_api: Api) -> None:
    content, at = binary()
    response = shared_api.client.post(URL, content=content, headers=[(LENGTH, at), (LENGTH, at)])
    assert (response.status_code, list(response.json())) == (400, ["error"])


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"\x01\0\0\0a", "holds 1 elements; its shape asks for 2"),
        (b"\x01\0\0\0a\x05\0\0\0b", "longer than what is left"),
        (b"\xff\xff\xff\xffa", "longer than what is left"),
        (b"\x01\0\0\0a\x01\0\0\0b!", "more than the 2 elements"),
        (b"\x01\0\0\0\xff\x01\0\0\0b", "element 0 is not UTF-8"),
        (b"\x01\0", "holds 0 elements"),
    ],
)
def test_texts_whose_lengths_lie_are_refused(shared_api: Api, blob: bytes, words: str) -> None:
    content, headers = as_binary(columns(ROWS))
    at = int(headers[LENGTH])
    request = json.loads(content[:at])
    size = {"binary_data_size": len(blob)}
    request["inputs"].append({"name": "at", "shape": [2], "datatype": "BYTES", "parameters": size})
    head = json.dumps(request).encode()
    said = refused(shared_api, head + content[at:] + blob, {LENGTH: str(len(head))})
    assert words in said


def test_a_truth_that_is_neither_0_nor_1_is_refused(shared_api: Api) -> None:
    content, headers = as_binary(columns(ROWS) | {"on": np.array([1, 2], dtype=np.uint8)})
    at = int(headers[LENGTH])
    assert "field 'on': must be true or false" in refused(shared_api, content, {LENGTH: str(at)})
    head = content[:at].replace(b'"UINT8"', b'"BOOL" ')
    assert "must be 0 or 1" in refused(shared_api, head + content[at:], {LENGTH: str(at)})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("a", np.nan, "field 'a': must not be null"),
        ("a", np.inf, "field 'a': must be finite"),
        ("n", -np.inf, "field 'n': must be finite"),
        ("n", 1.5, "field 'n': lies outside"),
        ("on", 0.5, "field 'on': must be true or false"),
        ("on", np.nan, "field 'on': must not be null"),
        ("zone", 1.5, "field 'zone': must be an integer"),
        ("zone", 2.0**60, "field 'zone': must be an integer"),
        ("zone", np.nan, "field 'zone': must not be null"),
    ],
)
def test_a_bad_value_is_named_with_its_row_and_field_in_every_form(
    shared_api: Api, name: str, value: float, words: str
) -> None:
    tensors = {key: values.astype(np.float64) for key, values in columns(ROWS).items()}
    tensors[name][1] = value
    whole = {"x": np.stack(list(tensors.values()), axis=1)}
    for given in (tensors, whole):
        content, headers = as_binary(given)
        assert f"row 1, {words}" in refused(shared_api, content, headers)
        bare = json.dumps(as_json(given)).encode().replace(b"null", b"NaN")
        assert f"row 1, {words}" in refused(shared_api, bare)
        assert f"row 1, {words}" in refused(shared_api, json.dumps(as_json(given)).encode())


def test_nan_written_bare_is_null_where_a_feature_takes_it(shared_api: Api) -> None:
    bare = json.dumps(as_json(columns(ROWS))).replace("null", "NaN")
    assert "NaN" in bare
    found = answers(shared_api.client.post(URL, content=bare))
    assert (
        found["predictions"]
        == answers(shared_api.client.post(URL, content=json.dumps(as_json(columns(ROWS)))))["predictions"]
    )


@pytest.mark.parametrize(
    ("kind", "value", "is_taken"),
    [
        ("int64", 2**53, True),
        ("int64", 2**53 + 1, False),
        ("int64", 2**60, True),
        ("int64", -(2**53) - 1, False),
        ("int64", 2**63 - 1, False),
        ("int64", -(2**63), True),
        ("uint64", 2**64 - 1, False),
        ("uint64", 2**63, True),
        ("uint64", 2**63 + 1, False),
    ],
)
def test_an_integer_that_no_float_holds_is_refused_and_never_rounded(
    shared_api: Api, kind: str, value: int, is_taken: bool
) -> None:
    alone = columns(ROWS) | {"a": np.array([1, value], dtype=kind)}
    whole = {"x": np.array([[1, 0, 0, 1, 1], [value, 0, 0, 1, 1]], dtype=kind)}
    for given in (alone, whole):
        content, headers = as_binary(given)
        if is_taken:
            assert answers(shared_api.client.post(URL, content=content, headers=headers))
            assert answers(shared_api.client.post(URL, content=json.dumps(as_json(given))))
        else:
            assert "row 1, field 'a': is held by no 64-bit float" in refused(shared_api, content, headers)
            assert "is held by no 64-bit float" in refused(shared_api, json.dumps(as_json(given)).encode())


def test_many_bad_values_are_named_by_the_first_and_their_number(shared_api: Api) -> None:
    content, headers = as_binary({"x": np.full((500, 5), np.nan)})
    said = refused(shared_api, content, headers)
    assert said.startswith("500 rows break the model's schema; row 0, field 'a': must not be null")
    assert said.endswith("; and 1995 more")  # `n` takes nulls


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00", "yesterday", "", None, 2**62, -(2**63)])
def test_an_event_time_without_zone_or_sense_is_refused(shared_api: Api, moment: Any) -> None:
    kind = np.int64 if isinstance(moment, int) else np.object_
    right = 0 if isinstance(moment, int) else "2026-01-01T00:00:00Z"
    tensors = {**columns(ROWS), "at": np.array([right, moment], dtype=kind)}
    assert "row 1, field 'at'" in refused(shared_api, json.dumps(as_json(tensors)).encode())
    if moment is not None:
        content, headers = as_binary(tensors)
        assert "row 1, field 'at'" in refused(shared_api, content, headers)


def test_too_many_rows_and_too_large_bodies_are_refused(shared_api: Api) -> None:
    content, headers = as_binary({"x": np.zeros((501, 5))})
    assert "more than one request may hold" in refused(shared_api, content, headers, status=413)
    assert "larger than" in refused(shared_api, b"x" * 100_001, status=413)
    shape = {"name": "x", "shape": [2**63, 5], "datatype": "FP64", "data": [1]}
    assert "more than one request" in refused(shared_api, json.dumps({"inputs": [shape]}).encode(), status=413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nowhere", 404),
        ("POST", "/v2/models/flip", 405),
        ("GET", URL, 405),
        ("POST", "/v2/models/nothing/infer", 404),
        ("GET", "/v2/models/nothing", 404),
        ("GET", "/v2/models/nothing/ready", 404),
        ("POST", "/v2/models/price/infer", 503),
        ("GET", "/v2/models/price", 503),
        ("GET", "/v2/models/price/ready", 503),
        ("POST", "/v2/repository/models/flip/load", 404),
        ("GET", "/v2/models/flip/config", 404),
        ("POST", "/v2/models/" + "%2F..%2F" * 25 + "/infer", 404),
        ("POST", "/v2/models/" + "a" * 200 + "/infer", 404),
        ("POST", "/v2/models/..%2F..%2Fetc%2Fpasswd/versions/1/infer", 404),
        ("GET", "/v2/models/" + "%2F..%2F" * 25, 404),
    ],
)
def test_a_refusal_under_v2_speaks_the_protocol(shared_api: Api, method: str, path: str, status: int) -> None:
    response: httpx.Response = shared_api.client.request(method, path, content=frame() if method == "POST" else None)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert list(response.json()) == ["error"]
    assert int(response.headers["content-length"]) == len(response.content)
    assert (int(response.headers.get("retry-after", 0)) > 0) == (status == 503)
    assert ("allow" in response.headers) == (status == 405)
    assert "aaaa" not in shared_api.client.get("/metrics").text
    assert ".." not in response.text


def test_what_is_wrong_under_v1_is_still_a_problem(shared_api: Api) -> None:
    for path in ("/v1/models/flip/infer", "/v2x", "/v1/models/nothing/predict"):
        response = shared_api.client.post(path, content=b"{}")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


def test_other_encodings_and_accidents_speak_the_protocol_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "gzip" in refused(api, b"x", {"Content-Encoding": "br"}, status=415)
    assert "zipped" in refused(api, b"x", {"Content-Encoding": "gzip"})

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(api.worker, "predict", broken)
        response = api.client.post(URL, content=frame())
    assert (response.status_code, list(response.json())) == (500, ["error"])
    assert "ZeroDivision" not in response.text
    assert "larger than" in refused(api, b"x" * 70_000, status=413, url="/v2/repository/index")


def test_refusals_are_counted_and_nothing_of_them_is_recorded(api: Api) -> None:
    api.client.post(URL, content=b"{")
    content, headers = as_binary({"x": np.full((3, 5), np.inf)})
    api.client.post(URL, content=content, headers=headers)
    api.client.post("/v2/models/scanner/infer", content=b"{}")
    text = api.client.get("/metrics").text
    assert 'retrue_requests_total{endpoint="infer",model="flip",outcome="refused"} 1.0' in text
    assert 'retrue_requests_total{endpoint="infer",model="flip",outcome="invalid_rows"} 1.0' in text
    assert 'retrue_requests_total{endpoint="infer",model="unknown",outcome="refused"} 1.0' in text
    assert 'retrue_refused_rows_total{model="flip"} 3.0' in text
    assert "scanner" not in text
    assert not any(segments_of(stream, with_open=True) for stream in streams(api.home / "spool"))


def test_an_output_that_is_not_there_is_refused_before_anything_is_answered(api: Api) -> None:
    api.client.post(URL, content=frame(outputs=[{"name": "nothing"}]))
    assert 'retrue_predictions_total{model="flip"' not in api.client.get("/metrics").text
