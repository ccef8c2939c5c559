"""The protocol's best known client, as it comes from its makers: what it asks is answered as /v1 answers it."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from service.domain.access import Role
from service.storage import keys
from service.storage.artifacts import ArtifactStore
from tests.electricity import ELECTRICITY, electricity
from tests.electricity import ROWS as DOCUMENTED
from tests.listening import listening
from tests.migrated import migrated
from tests.served import FLIP, PRICE, crown, flip, instance, pack, price, register
from tests.tensors import columns, datatype, matrix

ROOT = Path(__file__).parents[2]
ROWS = [instance(a=-0.5), instance(a=0.25, n=0.5, on=False, zone=3), instance(a=3.0, b=-2.5, n=1.0)]
ALL = ["predictions", "probabilities", "ids"]


class Served(NamedTuple):
    """Where it listens, and what /v1 says to `ROWS`."""

    address: str
    predictions: list[str]
    probabilities: list[list[float]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    database, store = migrated(home / "retrue.db"), ArtifactStore(home / "artifacts")
    for schema in (FLIP, PRICE, ELECTRICITY):
        register(database, schema)
    crown(database, pack(store, FLIP, flip(0)))
    crown(database, pack(store, ELECTRICITY, electricity(), rows=DOCUMENTED))
    with listening(home, database, store) as address:
        asked = httpx.post(f"http://{address}/v1/models/flip/predict", json={"instances": ROWS}).json()
        yield Served(address, asked["predictions"], asked["probabilities"])
    database.close()


class Sync:
    """The client that waits."""

    def __init__(self, address: str) -> None:
        self._address = address

    def call(self, name: str, *given: Any, **named: Any) -> Any:
        with triton.InferenceServerClient(self._address) as client:
            return getattr(client, name)(*given, **named)


class Async:
    """The asyncio client, with the same face."""

    def __init__(self, address: str) -> None:
        self._address = address

    def call(self, name: str, *given: Any, **named: Any) -> Any:
        async def play() -> Any:
            async with triton_aio.InferenceServerClient(self._address) as client:
                method: Callable[..., Awaitable[Any]] = getattr(client, name)
                return await method(*given, **named)

        return asyncio.run(play())


@pytest.fixture(params=[Sync, Async], ids=["sync", "aio"])
def client(request: pytest.FixtureRequest, served: Served) -> Any:
    return request.param(served.address)


def inputs(tensors: dict[str, NDArray[Any]], *, is_binary: bool = True) -> list[Any]:
    return [
        triton.InferInput(name, list(values.shape), datatype(values)).set_data_from_numpy(values, binary_data=is_binary)
        for name, values in tensors.items()
    ]


def wanted(*names: str, is_binary: bool = True) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=is_binary) for name in names]


def same(served: Served, result: Any) -> None:
    texts = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("predictions").tolist()]
    assert texts == served.predictions
    assert result.as_numpy("probabilities").tolist() == served.probabilities
    assert result.as_numpy("ids").shape == (len(ROWS),)


@pytest.mark.parametrize("zipped_in", [None, "gzip", "deflate"])
@pytest.mark.parametrize("zipped_out", [None, "gzip", "deflate"])
@pytest.mark.parametrize("outputs", ["default", "binary", "json"])
@pytest.mark.parametrize("is_binary", [True, False], ids=["binary in", "json in"])
@pytest.mark.parametrize("form", ["columns", "upright", "matrix"])
def test_every_way_that_the_client_asks_gets_the_answers_of_v1(
    served: Served, client: Any, form: str, is_binary: bool, outputs: str, zipped_in: str | None, zipped_out: str | None
) -> None:
    tensors = columns(ROWS) if form != "matrix" else matrix(ROWS)
    if form == "upright":
        tensors = {name: values.reshape(-1, 1) for name, values in tensors.items()}
    result = client.call(
        "infer",
        "flip",
        inputs(tensors, is_binary=is_binary),  # JSON holds a bare NaN here
        outputs=None if outputs == "default" else wanted(*ALL, is_binary=outputs == "binary"),
        request_id="7",
        request_compression_algorithm=zipped_in,
        response_compression_algorithm=zipped_out,
    )
    same(served, result)
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("flip", "1", "7")
    assert answer["parameters"]["generation"] == 1


def test_a_large_answer_comes_back_whole_zipped_or_not(served: Served, client: Any) -> None:
    rows = ROWS * 1000
    for zipped in (None, "gzip", "deflate"):
        result = client.call("infer", "flip", inputs(matrix(rows)), response_compression_algorithm=zipped)
        assert result.as_numpy("probabilities").tolist() == served.probabilities * 1000
        assert len(set(result.as_numpy("ids").tolist())) == len(rows)


@pytest.mark.parametrize("is_binary", [True, False])
def test_outputs_come_in_the_order_they_are_asked_for(client: Any, is_binary: bool) -> None:
    result = client.call(
        "infer", "flip", inputs(columns(ROWS)), outputs=wanted("ids", "predictions", is_binary=is_binary)
    )
    assert [one["name"] for one in result.get_response()["outputs"]] == ["ids", "predictions"]
    assert result.as_numpy("probabilities") is None


def test_parameters_and_the_champions_number_are_taken(served: Served, client: Any) -> None:
    result = client.call(
        "infer", "flip", inputs(columns(ROWS)), model_version="1", parameters={"content_type": "pd", "mine": "yes"},
        priority=1, timeout=1000,
    )  # fmt: skip
    same(served, result)


@pytest.mark.parametrize("is_binary", [True, False])
def test_event_times_are_taken(client: Any, is_binary: bool) -> None:
    times = np.array(["2026-01-01T00:00:00Z"] * 3, dtype=object)
    tensors = columns(ROWS) | {"at": times}
    assert client.call("infer", "flip", inputs(tensors, is_binary=is_binary)).as_numpy("ids").shape == (3,)


def test_ids_take_labels(served: Served, client: Any) -> None:
    ids = client.call("infer", "flip", inputs(columns(ROWS))).as_numpy("ids")
    labels = {"labels": [{"id": one.decode(), "label": "UP"} for one in ids]}
    answer = httpx.post(f"http://{served.address}/v1/models/flip/feedback", json=labels)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 3)


def test_health_metadata_and_index_are_what_the_client_reads(client: Any) -> None:
    assert client.call("is_server_live")
    assert client.call("is_server_ready")
    assert client.call("is_model_ready", "flip")
    assert client.call("is_model_ready", "flip", "1")
    assert not client.call("is_model_ready", "flip", "2")
    assert not client.call("is_model_ready", "price")
    assert not client.call("is_model_ready", "../x y/ü")
    assert client.call("get_server_metadata")["name"] == "retrue"
    told = client.call("get_model_metadata", "flip")
    assert [one["name"] for one in told["inputs"]] == list(FLIP.names)
    assert client.call("get_model_metadata", "flip", "1") == told
    index = client.call("get_model_repository_index")
    assert [(one["name"], one["state"]) for one in index] == [
        ("electricity", "READY"), ("flip", "READY"), ("price", "UNAVAILABLE"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "version", "tensors", "outputs", "status", "words"),
    [
        ("nothing", "", columns(ROWS), None, "404", "no model"),
        ("a/b/" * 50 + "x", "", columns(ROWS), None, "404", "nothing at this address"),
        ("price", "", columns(ROWS), None, "503", "no champion"),
        ("flip", "9", columns(ROWS), None, "404", "champion is version 1"),
        ("flip", "", {"a": np.zeros(3)}, None, "400", "missing: 'b'"),
        ("flip", "", columns(ROWS) | {"zz": np.zeros(3)}, None, "400", "'zz'"),
        ("flip", "", {"x": np.full((3, 5), np.inf)}, None, "400", "must be finite"),
        ("flip", "", columns(ROWS) | {"a": np.array([1, 2, 2**53 + 1])}, None, "400", "no 64-bit float"),
        ("flip", "", columns(ROWS), wanted("nothing"), "400", "none of predictions"),
        ("flip", "", columns(ROWS), [triton.InferRequestedOutput("ids", class_count=2)], "400", "classification"),
    ],
)
def test_what_is_refused_is_an_error_with_words_to_the_client(
    served: Served, client: Any, model: str, version: str, tensors: Any, outputs: Any, status: str, words: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.call("infer", model, inputs(tensors), model_version=version, outputs=outputs)
    assert (caught.value.status(), words in caught.value.message()) == (status, True), caught.value.message()
    same(served, client.call("infer", "flip", inputs(columns(ROWS))))


@pytest.mark.parametrize("call", [("load_model", "flip"), ("unload_model", "flip"), ("get_model_config", "flip")])
def test_what_is_not_here_is_a_clean_error(client: Any, call: tuple[str, ...]) -> None:
    with pytest.raises(InferenceServerException, match="nothing at this address"):
        client.call(*call)


def test_many_requests_at_once_get_their_own_rows(served: Served) -> None:
    async def play() -> None:
        async with triton_aio.InferenceServerClient(served.address) as client:
            singles = [columns([row]) for row in ROWS]
            asked = [client.infer("flip", inputs(singles[turn % 3]), request_id=str(turn)) for turn in range(60)]
            for turn, result in enumerate(await asyncio.gather(*asked)):
                assert result.get_response()["id"] == str(turn)
                assert result.as_numpy("predictions")[0].decode() == served.predictions[turn % 3]
                np.testing.assert_allclose(
                    result.as_numpy("probabilities")[0], served.probabilities[turn % 3], rtol=1e-12
                )

    asyncio.run(play())


def test_with_keys_an_applications_key_is_all_that_the_client_needs(tmp_path: Path) -> None:
    database, store = migrated(tmp_path / "retrue.db"), ArtifactStore(tmp_path / "artifacts")
    register(database, FLIP)
    crown(database, pack(store, FLIP, flip(0)))
    with database.write() as conn:
        made = {
            role: keys.create(conn, role.value, roles=[role], expires_at=None, actor="test", reason="test")[1]
            for role in (Role.PREDICT, Role.VIEWER)
        }
    with listening(tmp_path, database, store) as address:
        for kind in (Sync, Async):
            client = kind(address)
            assert client.call("is_server_ready")
            for key, status in (({}, "401"), ({"Authorization": f"Bearer {made[Role.VIEWER]}"}, "403")):
                for version in ("", "1"):
                    with pytest.raises(InferenceServerException) as caught:
                        client.call("infer", "flip", inputs(columns(ROWS)), model_version=version, headers=key)
                    assert caught.value.status() == status
                    assert "key" in caught.value.message()
            assert not client.call("is_model_ready", "flip")
            sent = {"headers": {"Authorization": f"Bearer {made[Role.PREDICT]}"}}
            assert client.call("is_model_ready", "flip", **sent)
            assert client.call("get_model_metadata", "flip", **sent)["name"] == "flip"
            for version in ("", "1"):
                result = client.call("infer", "flip", inputs(columns(ROWS)), model_version=version, **sent)
                assert result.as_numpy("ids").shape == (len(ROWS),)
    database.close()


def test_a_regression_answers_numbers(tmp_path: Path) -> None:
    database, store = migrated(tmp_path / "retrue.db"), ArtifactStore(tmp_path / "artifacts")
    register(database, PRICE)
    crown(database, pack(store, PRICE, price(0)))
    rows = np.arange(16.0).reshape(2, 8)
    with listening(tmp_path, database, store) as address:
        asked = {"instances": rows.tolist()}
        expected = httpx.post(f"http://{address}/v1/models/price/predict", json=asked).json()["predictions"]
        for is_binary in (True, False):
            result = Sync(address).call(
                "infer", "price", inputs({"rows": rows}), outputs=wanted("predictions", is_binary=is_binary)
            )
            assert result.as_numpy("predictions").tolist() == expected
    database.close()


def test_the_documents_example_runs(served: Served) -> None:
    document = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", document, flags=re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {}
    exec(example.replace("localhost:8080", served.address), found)  # noqa: S102  our own document
    found["client"].close()
    asked = {"instances": DOCUMENTED}
    expected = httpx.post(f"http://{served.address}/v1/models/electricity/predict", json=asked).json()
    assert [word.decode() for word in found["words"]] == expected["predictions"]
    assert found["probabilities"].tolist() == expected["probabilities"]
    assert len(found["ids"]) == 2
