"""Each page of the console: it answers, shows names as text, names what serves and why, and links its numbers."""

import re
from urllib.parse import quote

import pytest

from service.storage import replicas
from tests.fleet import EVIL, LONG
from tests.forms import Page
from tests.unit.console.conftest import Console, opened

LISTS = ("/", "/runs", "/checks", "/audit", "/settings", "/sign-in")


def pages(console: Console) -> list[str]:
    made = console.made
    return [
        *LISTS,
        f"/models/{made.model}",
        "/models/bikes",
        "/models/fresh",
        f"/models/{made.model}/retrain",
        f"/models/{made.model}/rollback",
        f"/models/{made.model}/promote?version=2",
        f"/models/{made.model}/accept",
        *(f"/models/{made.model}/{name}" for name in ("check", "pin", "freeze", "pause", "hold", "clear-hold")),
        f"/versions/{made.model}",
        *(f"/versions/{made.model}/{number}" for number in (1, 2, 3, 4)),
        f"/runs/{made.run}",
        f"/runs/{made.waiting}",
        *(f"/runs/{made.waiting}/{name}" for name in ("cancel", "approve", "reject")),
        f"/checks/{made.check}",
        f"/checks/{made.broken}",
        f"/runs?model={made.model}",
        f"/audit?model={made.model}&before=5",
    ]


@pytest.mark.parametrize("path", LISTS)
def test_every_page_answers_on_an_empty_database(empty_console: Console, path: str) -> None:
    page = empty_console.operator.open(path)
    assert sum(tag == "h1" for tag, _ in page.elements) == 1


@pytest.mark.parametrize(
    "path", ["/models/none", "/runs/none", "/checks/none", "/versions/none", "/versions/none/1", "/runs?model=none"]
)
def test_what_is_not_there_is_a_page_that_says_so(empty_console: Console, path: str) -> None:
    assert "no " in empty_console.operator.open(path, status=404).said


def test_names_and_comments_with_html_are_shown_as_text_on_every_page(shared_console: Console) -> None:
    seen = 0
    for path in pages(shared_console):
        page = shared_console.operator.open(path)
        tags = [tag for tag, _ in page.elements]
        assert tags.count("script") == 2, path  # htmx and the console's own, both files
        assert "img" not in tags, path
        assert not [given for _, given in page.elements if any(name.startswith("on") for name in given)], path
        seen += EVIL in page.words
    assert seen >= 10  # it did stand there, and not only where nobody looks


def test_no_page_holds_a_script_a_style_or_an_address_of_elsewhere(shared_console: Console) -> None:
    for path in pages(shared_console):
        page = shared_console.operator.open(path)
        for tag, given in page.elements:
            assert tag != "style", path
            assert "style" not in given, path
            if tag == "script":
                assert given["src"].startswith("/console/assets/"), path
            for name in ("href", "src", "action", "hx-get", "data-stream"):
                assert not re.match(r"(https?:)?//|javascript:|data:", given.get(name, "")), (path, given)


def test_every_answer_carries_a_policy_that_allows_nothing_inline_and_nothing_from_elsewhere(
    shared_console: Console,
) -> None:
    for path in [*pages(shared_console), "/models/none", "/console/assets/console.css", "/favicon.ico"]:
        headers = shared_console.client.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'", path
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'", path
        assert policy["base-uri"] == policy["frame-ancestors"] == "'none'", path
        assert policy["form-action"] == "'self'", path
        assert "unsafe" not in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["cache-control"] in {"no-store", "no-cache"}, path


def test_a_name_of_200_characters_with_slashes_and_dots_is_text_and_leads_nowhere_else(shared_console: Console) -> None:
    page = shared_console.operator.open("/")
    assert LONG in page.words
    assert f"/models/{quote(LONG, safe='')}" in page.links
    assert not [link for link in page.links if "../" in link]
    named = shared_console.client.get(f"/models/{'a' * 200}")
    assert named.status_code == 404
    assert shared_console.client.get(f"/models/{quote(LONG, safe='')}").status_code == 404


def test_every_link_of_the_console_leads_to_a_page_or_to_the_api(shared_console: Console) -> None:
    operator, known, seen = shared_console.operator, set(), 0
    for path in pages(shared_console):
        for link in operator.open(path).links:
            plain = link.partition("#")[0]
            if not plain or plain in known or plain.startswith(("/v1/", "/docs", "/readyz")) or "%2F" in plain:
                continue
            known.add(plain)
            response = shared_console.client.get(plain)
            assert response.status_code == 200, (path, link)
            seen += 1
    assert seen > 60


def test_a_models_page_says_what_serves_since_when_why_and_whether_it_is_good(shared_console: Console) -> None:
    with shared_console.database.write() as conn:
        replicas.hello(conn, "replica-0", host="here", pid=1, worker=0)
    page = shared_console.operator.open("/models/electricity")
    assert "What serves Version 2 since 25 May 2026 00:00 UTC" in page.said
    assert "Rolled back by ada: customers complained" in page.said
    assert "1 of 1 hold it" in page.said
    assert "accuracy" in page.said
    assert "its holdout" in page.said
    assert "all 7 features lie within their thresholds" in page.said
    assert "86,400" not in page.said
    assert "1 d, median" in page.said
    assert "97% of 336 judged rows" in page.said


def test_a_models_page_says_what_would_happen_before_anything_is_pressed(shared_console: Console) -> None:
    said = shared_console.operator.open("/models/electricity").said
    assert "Trains a challenger. It is not promoted by itself." in said  # hold is on since the rollback
    assert "Version 1 answers again at once, in place of version 2." in said  # 3 was taken back


def test_numbers_on_a_models_page_link_to_the_check_or_version_that_they_come_from(shared_console: Console) -> None:
    page = shared_console.operator.open("/models/electricity")
    assert f"/checks/{shared_console.made.check}" in page.links
    assert "/versions/electricity/2" in page.links
    assert f"/runs/{shared_console.made.waiting}" in page.links
    marks = [given for tag, given in page.elements if tag == "a" and given.get("class", "").startswith("mark")]
    assert [mark["class"] for mark in marks].count("mark rollback") == 3  # drawn for three widths
    assert [mark["class"] for mark in marks].count("mark promote") == 6
    dots = [given for tag, given in page.elements if tag == "circle" and "dot" in given.get("class", "")]
    assert len(dots) >= 3 * 26


def test_the_heat_map_has_a_cell_for_each_feature_and_window_and_says_what_was_not_evaluated(
    shared_console: Console,
) -> None:
    page = shared_console.operator.open("/models/electricity")
    cells = [given["class"].split()[1] for tag, given in page.elements if tag == "rect" and "heat" in given["class"]]
    assert len(cells) == 7 * 26 * 2 + 7 * 16
    assert {"h5", "h0", "none"} <= set(cells)
    assert "constant in the window" in page.words


def test_the_same_page_is_not_sent_twice_and_a_changed_one_is(console: Console) -> None:
    operator = console.operator
    again = next(given["hx-get"] for _, given in operator.open("/models/electricity").elements if "hx-get" in given)
    assert console.client.get(again).status_code == 204
    assert operator.press("/models/electricity/pause").status_code == 303
    changed = console.client.get(again)
    assert changed.status_code == 200
    assert "pause" in Page(changed.text).said


def test_a_run_page_shows_its_way_its_gate_and_its_log(shared_console: Console) -> None:
    said = shared_console.operator.open(f"/runs/{shared_console.made.run}").said
    for word in ("queued", "preparing", "training", "promoting", "succeeded", "paired", "gain 0.0125", "step 4"):
        assert word in said
    waiting = shared_console.operator.open(f"/runs/{shared_console.made.waiting}")
    assert f"/runs/{shared_console.made.waiting}/approve" in waiting.links
    assert [given["data-stream"] for _, given in waiting.elements if "data-stream" in given]


def test_a_version_page_sets_challenger_and_champion_side_by_side(shared_console: Console) -> None:
    page = shared_console.operator.open("/versions/electricity/3")
    assert "This, version 3 Champion then, version 2" in page.said
    assert "accuracy on the same 672 rows 0.84 0.8" in page.said
    assert "/v1/models/electricity/versions/3/card" in page.links
    assert "Learned until" in page.said


def test_a_check_page_shows_each_step_to_its_decision(shared_console: Console) -> None:
    said = shared_console.operator.open(f"/checks/{shared_console.made.check}").said
    for word in ("contract", "quality", "drift", "performance", "estimate", "reading", "The rules, as they were asked"):
        assert word in said
    broken = shared_console.operator.open(f"/checks/{shared_console.made.broken}")
    assert "Broken expectations" in broken.said
    assert EVIL in broken.words


def test_settings_show_where_each_came_from_and_no_secret(shared_console: Console) -> None:
    said = shared_console.operator.open("/settings").said
    assert "RETRUE_HOME /srv/retrue → environment" in said
    assert "RETRUE_PORT 8080 default" in said
    assert "hush-hush" not in said
    assert "r:***@db" in said


def test_the_database_away_is_a_page_that_says_so_and_when_to_come_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with opened(tmp_path_factory.mktemp("away")) as console:
        console.client._http._transport.app.state.is_degraded = lambda: True  # type: ignore[attr-defined]
        response = console.client.get("/")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert [given["hx-get"] for _, given in Page(response.text).elements if "hx-get" in given] == ["/?seen="]
    assert "the database does not answer" in Page(response.text).said
