"""Every error of the tree has a status, and none tells what it must not."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from service.api import problems
from service.api.problems import STATUS, problem_of
from service.domain.errors import RetrueError
from tests.asgi import serving


def leaves(kind: type[RetrueError] = RetrueError) -> Iterator[type[RetrueError]]:
    below = kind.__subclasses__()
    if not below:
        yield kind
    for child in below:
        yield from leaves(child)


def in_tree(kind: type[RetrueError]) -> bool:
    return kind.__module__ == "service.domain.errors"


def test_every_leaf_of_the_error_tree_has_its_own_status() -> None:
    assert {kind for kind in leaves() if in_tree(kind)} <= set(STATUS)


@pytest.mark.parametrize("kind", [kind for kind in leaves() if in_tree(kind)])
def test_every_error_is_a_problem_with_its_code(kind: type[RetrueError]) -> None:
    response = problem_of(kind("words", fact=1))
    assert response.status_code == STATUS[kind]
    assert kind.code.encode() in bytes(response.body)
    assert ("retry-after" in response.headers) == (response.status_code in {429, 503})


def test_an_error_nobody_expected_is_a_bare_500() -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/boom")
    def boom() -> None:
        msg = "secret"
        raise ValueError(msg)

    with serving(app) as client:
        response = client.get("/boom")
    assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in response.text
