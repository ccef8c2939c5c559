"""The examples of docs/protocols.md: each is a request that is answered."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.electricity import ELECTRICITY, ROWS, electricity
from tests.served import crown, pack, register
from tests.unit.api.conftest import Api, running

DOCUMENT = (Path(__file__).parents[3] / "docs" / "protocols.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    for line in re.split(r"^#.*\n", block, flags=re.MULTILINE)
    if line.strip()
]


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("home")) as api:
        register(api.database, ELECTRICITY)
        crown(api.database, pack(api.store, ELECTRICITY, electricity(), rows=ROWS))
        api.worker.replica.look()
        yield api


def test_there_are_examples() -> None:
    assert len(COMMANDS) == 5


@pytest.mark.parametrize("command", COMMANDS)
def test_each_example_is_answered(documented: Api, command: str) -> None:
    curl, silent, address, *rest = shlex.split(command)
    assert (curl, silent) == ("curl", "-s")
    path = urlsplit(f"http://{address}").path
    if not rest:
        response = documented.client.get(path)
    else:
        flag, body = rest
        assert flag == "-d"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}  # as curl says, whatever it is
        response = documented.client.post(path, content=body, headers=headers)
    assert response.status_code in {200, 202}, response.text


def test_all_ways_to_ask_give_the_same_answers(documented: Api) -> None:
    predict = "/v1/models/electricity/predict"
    expected = documented.client.post(predict, json={"instances": ROWS}).json()["predictions"]
    asked = [shlex.split(command) for command in COMMANDS]
    for words in asked:
        if words[2].endswith("/infer"):
            answer = documented.client.post("/v2/models/electricity/infer", content=words[4]).json()
            (found,) = (one["data"] for one in answer["outputs"] if one["name"] == "predictions")
            assert found == expected
        elif words[2].endswith("/predict"):
            assert documented.client.post(predict, content=words[4]).json()["predictions"] == expected
