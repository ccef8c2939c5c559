"""Names, ids and reasons as nobody means them, on every route and on either database: refused, or kept as text."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.routes import ROUTES
from service.domain.access import Role
from service.storage.database import Database
from tests.keyed import Keyed, keyed

HTML = "<img src=x onerror=alert(1)>\"'&"
NAMES = {
    "200 letters": "a" * 200,
    "200 characters with slashes and dots": ("../" * 67)[:200],
    "the same, escaped": "..%2F" * 67,
    "the same, escaped twice": "..%252f" * 67,
    "a file": "..%2f..%2fetc%2fpasswd",
    "html": "%3Cimg%20src=x%20onerror=alert(1)%3E",
    "nul": "flip%00",
    "line": "flip%0ax",
    "another case": "FLIP",
    "no letters": "%F0%9F%92%A9",
    "broken utf-8": "%ff%fe",
    "a number beyond all": "9" * 40,
}
CHANGES = [
    ("POST", "/v1/models/flip/runs", ""),
    ("POST", "/v1/models/flip/checks", ""),
    ("POST", "/v1/models/flip/rollback", ""),
    ("POST", "/v1/models/flip/suggestion/accept", ""),
    ("PUT", "/v1/models/flip/pin", ""),
    ("PUT", "/v1/models/flip/champion", ', "version": 1'),
    ("POST", "/v1/keys", ', "name": "x", "roles": ["viewer"]'),
]
TEMPLATES = [(method, path) for path, methods in ROUTES.items() for method in methods if "{" in path]


@pytest.fixture
def home(database_url: str, tmp_path: Path) -> Iterator[tuple[Keyed, str]]:
    database = Database(database_url)
    database.migrate()
    with keyed(tmp_path, database) as made:
        yield made, made.key(Role.ADMIN, name="root")
    database.close()


def filled(template: str, name: str) -> Iterator[str]:
    """Yield the address with every part strange, and with the model's name alone."""
    parts = template.split("/")
    yield "/".join(name if part.startswith("{") else part for part in parts)
    if "{model}" in parts and "{switch:switch}" in parts:
        yield template.replace("{model}", name).replace("{switch:switch}", "hold")


def test_a_name_that_nobody_means_is_refused_on_every_route(home: tuple[Keyed, str], subtests: pytest.Subtests) -> None:
    keyed, key = home
    for meant, name in NAMES.items():
        for method, template in TEMPLATES:
            for path in filled(template, name):
                with subtests.test(name=meant, method=method, template=template):
                    answer = keyed.ask(method, path, key, json={}, headers={"If-Match": '"1"'})
                    assert 400 <= answer.status_code < 500, answer.text
                    # The client itself walks up plain dots.
                    is_protocol = answer.request.url.path.startswith("/v2")
                    kind = "application/json" if is_protocol else "application/problem+json"
                    assert answer.headers["content-type"] == kind
                    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_nul_in_a_query_is_refused(home: tuple[Keyed, str]) -> None:
    keyed, key = home
    for query in ("?model=%00", "?limit=1%00", "?reason=%00", "?x=%00"):
        for method, path in (("GET", "/v1/audit"), ("GET", "/v1/runs"), ("DELETE", "/v1/models/flip/hold")):
            answer = keyed.ask(method, path + query, key)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")


def test_a_reason_that_no_database_takes_is_refused(home: tuple[Keyed, str], subtests: pytest.Subtests) -> None:
    keyed, key = home
    before = len(keyed.audit())
    for method, path, more in CHANGES:
        for reason in ('"a\\u0000b"', '"\\ud800"', '""', '"' + "x" * 2001 + '"', "1", "null"):
            with subtests.test(path=path, reason=reason[:20]):
                body = f'{{"reason": {reason}{more}}}'.encode()
                answer = keyed.ask(method, path, key, content=body, headers={"If-Match": '"1"'})
                assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert len(keyed.audit()) == before


def test_html_in_a_reason_and_in_a_keys_name_is_kept_and_given_back_as_text(home: tuple[Keyed, str]) -> None:
    keyed, key = home
    keyed.ask("PUT", "/v1/models/price/pause", key, json={"reason": HTML})
    made = keyed.ask("POST", "/v1/keys", key, json={"name": HTML, "roles": ["viewer"], "reason": HTML})
    assert made.status_code == 201
    shown = keyed.ask("GET", "/v1/audit", key)
    assert [row["reason"] for row in shown.json()["audit"][:2]] == [HTML, HTML]
    assert keyed.ask("GET", "/v1/keys", key).json()["keys"][0]["name"] == HTML
    for answer in (made, shown):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_file_beside_the_assets_is_not_given(home: tuple[Keyed, str], tmp_path: Path) -> None:
    keyed, _ = home
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    for path in ("../openapi.py", "..%2fopenapi.py", "%2e%2e/openapi.py", f"/{tmp_path}/secret", "%00", "."):
        answer = keyed.client.get(f"/docs/assets/{path}")
        assert answer.status_code in {400, 401, 404, 405}, path
        assert "secret" not in answer.text
        assert "__all__" not in answer.text
