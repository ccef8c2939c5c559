"""What the Open Inference Protocol tells of service and models, and what the OpenAPI document tells of it."""

import json
from typing import Any

import pytest

from service.api.inference import EXTENSIONS
from tests.served import FLIP, crown, flip, instance, named, pack, register
from tests.tensors import as_json, columns
from tests.unit.api.conftest import Api


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_service_names_the_extensions_that_are_here(shared_api: Api, path: str) -> None:
    told = shared_api.client.get(path).json()
    assert (told["name"], told["extensions"]) == ("retrue", EXTENSIONS)
    assert told["version"] == shared_api.app.version


def test_health_is_that_of_livez_and_readyz(api: Api) -> None:
    assert api.client.get("/v2/health/live").json() == {"live": True}
    assert api.client.get("/v2/health/ready").json() == {"ready": True}
    assert api.client.get("/v2/models/flip/ready").json() == {"name": "flip", "ready": True}
    api.worker.slots._slots["flip"].bundle = None
    response = api.client.get("/v2/health/ready")
    assert (response.status_code, list(response.json())) == (503, ["error"])


def test_a_model_whose_estimator_fails_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = api.worker.slots.take("flip")
    monkeypatch.setattr(bundle.estimator, "predict_proba", lambda _rows: 1 / 0)
    response = api.client.get("/v2/models/flip/ready")
    assert (response.status_code, list(response.json())) == (503, ["error"])


def test_the_metadata_is_the_schemas_and_a_request_made_from_it_is_answered(api: Api) -> None:
    told = api.client.get("/v2/models/flip").json()
    assert told == api.client.get("/v2/models/flip/versions/1").json()
    assert (told["name"], told["versions"], told["platform"]) == ("flip", ["1"], "sklearn_joblib")
    assert [(one["name"], one["datatype"], one["shape"]) for one in told["inputs"]] == [
        ("a", "FP64", [-1, 1]),
        ("b", "FP64", [-1, 1]),
        ("n", "FP64", [-1, 1]),
        ("on", "BOOL", [-1, 1]),
        ("zone", "INT64", [-1, 1]),
    ]
    assert [(one["name"], one["datatype"], one["shape"]) for one in told["outputs"]] == [
        ("predictions", "BYTES", [-1]),
        ("probabilities", "FP64", [-1, 2]),
        ("ids", "BYTES", [-1]),
    ]
    assert told["parameters"] == {"generation": 1, "event_time_input": "at", "classes": '["DOWN","UP"]'}
    tensors = {name: values.reshape(-1, 1) for name, values in columns([instance(), instance()]).items()}
    request = as_json(tensors)
    for one, described in zip(request["inputs"], told["inputs"], strict=True):
        assert (one["name"], one["datatype"]) == (described["name"], described["datatype"])
    answer = api.client.post("/v2/models/flip/infer", content=json.dumps(request)).json()
    for given, described in zip(answer["outputs"], told["outputs"], strict=True):
        assert (given["name"], given["datatype"]) == (described["name"], described["datatype"])
        assert given["shape"] == [2 if size == -1 else size for size in described["shape"]]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"", ["flip", "price"]),
        (b"{}", ["flip", "price"]),
        (b'{"ready": false}', ["flip", "price"]),
        (b'{"ready": true}', ["flip"]),
    ],
)
@pytest.mark.parametrize("kind", [None, "application/octet-stream", "application/json"])
def test_the_index_tells_what_the_worker_holds(
    shared_api: Api, body: bytes, names: list[str], kind: str | None
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    told = shared_api.client.post("/v2/repository/index", content=body, headers=headers).json()
    assert [one["name"] for one in told] == names
    assert told[0] == {"name": "flip", "version": "1", "state": "READY", "reason": ""}
    assert all(one["state"] == "UNAVAILABLE" and one["reason"] for one in told[1:])


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ready": 1}', b'{"model": "flip"}', b"\xff"])
def test_an_index_that_is_asked_for_otherwise_is_refused(shared_api: Api, body: bytes) -> None:
    response = shared_api.client.post("/v2/repository/index", content=body)
    assert (response.status_code, list(response.json())) == (400, ["error"])


def test_a_new_champion_is_in_the_index_and_the_metadata_at_once(api: Api) -> None:
    crown(api.database, pack(api.store, FLIP, flip(1), number=2))
    other = named(FLIP, "other")
    register(api.database, other)
    crown(api.database, pack(api.store, other, flip(2), rows=[instance(n=0.5)]))
    api.worker.replica.look()
    told = api.client.post("/v2/repository/index").json()
    assert [(one["name"], one.get("version")) for one in told] == [("flip", "2"), ("other", "1"), ("price", None)]
    assert api.client.get("/v2/models/flip").json()["versions"] == ["2"]


def test_the_document_tells_the_routes_and_their_errors(shared_api: Api) -> None:
    document = shared_api.client.get("/openapi.json").json()
    paths = {path for path in document["paths"] if path.startswith("/v2")}
    model = "/v2/models/{model}"
    assert paths == {
        "/v2", "/v2/health/live", "/v2/health/ready", "/v2/repository/index", model, f"{model}/ready", f"{model}/infer",
        f"{model}/versions/{{version}}", f"{model}/versions/{{version}}/ready", f"{model}/versions/{{version}}/infer",
    }  # fmt: skip
    for path in paths:
        for operation in document["paths"][path].values():
            told: dict[str, Any] = operation["responses"]
            assert "422" not in told
            for status in ("404", "500", "503"):
                (schema,) = (one["schema"] for one in told[status]["content"].values())
                assert schema == {"$ref": "#/components/schemas/InferenceError"}
    assert "application/problem+json" in document["paths"]["/v1/models"]["get"]["responses"]["404"]["content"]
