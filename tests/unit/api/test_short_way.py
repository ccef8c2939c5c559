"""The short way to predict and feedback: it takes what the router would take there, and answers for what goes wrong."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.routing import Match

from service.api import predict
from service.api.access import FRAMES, HEADERS
from service.api.body import Intake
from service.api.trail import PARENT, REQUEST_ID
from service.serving.batcher import Batcher
from tests.served import instance
from tests.unit.api.conftest import Api

TRAIL = {PARENT.decode(), REQUEST_ID.decode()}
PIECES = st.sampled_from(
    ["/", "v1", "/v1/models/", "flip", "predict", "feedback", "/predict", "/feedback", "a b", ".", ""]
)
PATHS = st.one_of(
    st.lists(PIECES, max_size=6).map("".join),
    st.text(max_size=8).map(lambda name: f"/v1/models/{name}/predict"),
    st.text(max_size=8).map(lambda name: f"/v1/models/flip/{name}"),
)


@pytest.fixture(scope="module")
def routes(shared_api: Api) -> list[Any]:
    return predict.routes(shared_api.worker, Intake(shared_api.worker.limits, shared_api.worker.telemetry))


@example(path="/v1/models/a/b/predict", method="POST", root="", kind="http")
@example(path="/v1/models//predict", method="POST", root="", kind="http")
@given(
    path=PATHS,
    method=st.sampled_from(["POST", "GET", "PUT", "post"]),
    root=st.sampled_from(["", "/x"]),
    kind=st.sampled_from(["http", "websocket"]),
)
def test_the_short_way_takes_only_what_the_router_takes_to_the_same_place(
    routes: list[Any], path: str, method: str, root: str, kind: str
) -> None:
    scope = {"type": kind, "path": path, "method": method, "root_path": root}
    found = predict.Short(routes).way(scope)
    matches = [(route.matches({**scope, "root_path": ""}), route) for route in routes]
    full = [(child, route) for (match, child), route in matches if match is Match.FULL]
    if found is None:
        # What it leaves out goes the long way, which is as right: only the plain case must not.
        assert not full or root or kind == "websocket" or path.endswith("\n")
        return
    ((child, route),) = full
    assert found is route.endpoint
    assert scope["path_params"] == child["path_params"]


def test_both_ways_answer_alike(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    short = api.client.post("/v1/models/flip/predict", json={"instances": [instance()]})
    monkeypatch.setattr(predict.Short, "way", lambda _self, _scope: None)
    long = api.client.post("/v1/models/flip/predict", json={"instances": [instance()]})
    assert (short.status_code, long.status_code) == (200, 200)
    first, second = short.json(), long.json()
    assert first.pop("ids") != second.pop("ids")
    assert first == second
    guards = {name.decode(): value.decode() for name, value in HEADERS.items()}
    guards |= {"content-security-policy": FRAMES.decode(), "cache-control": "no-store"}
    told = dict(long.headers)
    # The short way follows whoever asks for it; the long way everybody.
    assert told.keys() >= TRAIL
    assert not TRAIL & short.headers.keys()
    assert {name: value for name, value in told.items() if name not in TRAIL} == dict(short.headers) | guards


def test_what_nobody_foresaw_is_a_problem_and_counted_and_the_next_request_is_answered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Batcher, "submit", broken)
        refused = api.client.post("/v1/models/flip/predict", json={"instances": [instance()]})
    assert refused.status_code == 500
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "internal"
    assert "ZeroDivision" not in refused.text
    assert 'outcome="failed"} 1.0' in api.client.get("/metrics").text
    assert api.client.post("/v1/models/flip/predict", json={"instances": [instance()]}).status_code == 200
