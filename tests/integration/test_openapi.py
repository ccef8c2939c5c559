"""The API keeps its own description: every operation, asked with what it takes and with what it does not take.

The server is a real one, on this machine's loopback; what it is asked follows from the document that it publishes.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CheckContext, CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.domain.access import Role
from service.domain.run import RunState, Trigger
from service.storage import audit, checks, keys, runs, versions
from service.storage.artifacts import ArtifactStore
from tests.launched import NO_TLS
from tests.listening import listening
from tests.migrated import migrated
from tests.served import AT, FLIP, PRICE, crown, flip, pack, register

EXAMPLES = 12
"""Of each kind, for each operation."""


class Asked(NamedTuple):
    """A server, and the path parameters of what is there."""

    url: str
    key: dict[str, str]
    """The header of an admin's key: without one the first key that a test makes would lock all others out."""
    there: dict[str, Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Yield a server with one model that answers, one that has no champion, and a little history."""
    home = tmp_path_factory.mktemp("home")
    database, store = migrated(home / "retrue.db"), ArtifactStore(home / "artifacts")
    for schema in (FLIP, PRICE):
        register(database, schema)
    crown(database, pack(store, FLIP, flip(0)))
    with database.write() as conn:
        versions.insert(conn, pack(store, FLIP, flip(1), number=2))
        run = runs.create(conn, "flip", trigger=Trigger.MANUAL, actor="test", reason="to be seen", at=AT)
        runs.transition(conn, run.id, RunState.CANCELLED, actor="test", reason="a stream of its events ends", at=AT)
        check = checks.create(conn, "flip", actor="schedule", at=AT)
        _, key = keys.create(conn, "all", roles=[Role.ADMIN], expires_at=None, actor="test", reason="to be seen")
        audit.append(conn, actor="test", action="looked", model="flip", subject="all", reason="to be seen", at=AT)
    with listening(home, database, store) as address:
        bearer = {"Authorization": f"Bearer {key}"}
        there = {"model": "flip", "run_id": run.id, "check_id": check.id, "version": 1, "switch": "hold"}
        yield Asked(f"http://{address}", bearer, there)
    database.close()


def kept(_ctx: CheckContext, response: Any, case: Any) -> bool | None:
    """Hold the laws that the document cannot tell: no accident, every refusal a problem or the protocol's error."""
    assert response.status_code < 500 or response.status_code == 503, response.content
    if response.status_code >= 400:
        told = msgspec.json.decode(response.content)
        if case.path.startswith("/v2"):
            assert response.headers["content-type"] == ["application/json"]
            assert list(told) == ["error"]
        else:
            assert response.headers["content-type"] == ["application/problem+json"]
            assert told["status"] == response.status_code
            assert {"type", "title", "status", "detail", "code"} <= told.keys()
        if response.status_code == 503:
            assert response.headers["retry-after"]
    return None


LAWS: list[CheckFunction] = [
    kept,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def operations(served: Asked) -> tuple[list[Any], set[str]]:
    """Return all operations, and the labels of those that ask for a key."""
    described = httpx.get(f"{served.url}/openapi.json", headers=served.key, verify=NO_TLS).json()
    keyed = set()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            # What is wrong shall be the rest of the request: without a key each would be refused before it is read.
            if operation.pop("security", None):
                keyed.add(f"{method.upper()} {path}")
    found = schemathesis.openapi.from_dict(described).get_all_operations()
    return [result.ok() for result in found], keyed  # type: ignore[union-attr]  # what can't be read fails here


def can_be_wrong(operation: Any) -> bool:
    """Return whether a request could break what the document says: any text will do for a plain name in the path."""
    described = operation.definition.raw
    plain = {"title", "description", "examples", "type"}
    return "requestBody" in described or any(
        one["in"] != "path" or one["schema"]["type"] != "string" or one["schema"].keys() - plain
        for one in described.get("parameters", [])
    )


def few(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.timeout(900)  # a guard against hanging, on a machine that does much else
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation_answers_as_the_document_says(
    served: Asked, mode: GenerationMode, subtests: pytest.Subtests
) -> None:
    asked = 0
    told = operations(served)[0]
    if mode is GenerationMode.NEGATIVE:  # looking for what is not there would take most of the time
        told = [operation for operation in told if can_be_wrong(operation)]
        assert len(told) > 20
    for operation in told:

        @few(EXAMPLES)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            if asked % 2:
                # Names made up by chance meet nothing; half of the requests ask for what is there.
                case.path_parameters |= {
                    name: served.there.get(name, value) for name, value in case.path_parameters.items()
                }
            response = case.call_and_validate(base_url=served.url, checks=LAWS, timeout=20, headers=served.key)
            assert response.status_code not in {401, 403}, response.content

        with subtests.test(operation=operation.label):
            ask()
    assert asked > 200


@pytest.mark.timeout(900)
def test_every_operation_that_asks_for_a_key_is_refused_without_one_as_the_document_says(
    served: Asked, subtests: pytest.Subtests
) -> None:
    told, keyed = operations(served)
    assert {operation.label for operation in told} - keyed == {
        "GET /livez", "GET /readyz", "GET /metrics", "GET /v2/health/live", "GET /v2/health/ready",
    }  # fmt: skip
    for operation in told:
        with subtests.test(operation=operation.label):
            ask_without_key(served, operation, is_refused=operation.label in keyed)


def ask_without_key(served: Asked, operation: Any, *, is_refused: bool) -> None:
    @few(1)
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: Any) -> None:
        for sent in ({}, {"Authorization": "Bearer rtr_made_up"}):
            response = case.call_and_validate(base_url=served.url, checks=LAWS, timeout=20, headers=sent)
            assert (response.status_code == 401) == is_refused, response.content

    ask()
