"""The console in a real browser: an operator's whole way on a real service, and every page under axe-core."""

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, expect

from service.api import problems
from service.api.problems import status_of
from service.client import Retrue
from service.console.routes import router
from service.console.site import Site
from service.replay import Pace, Replay, rows_of
from service.storage.database import Database
from tests.browsers import PATIENCE_MS, Watched, chromium, serious, watched
from tests.e2e.test_loop import MODEL_FILE, Service, make_data, wait_for
from tests.fleet import Fleet, fleet
from tests.migrated import migrated

WIDTHS = (360, 768, 1440, 1920)
BY_HAND = MODEL_FILE.replace("max_age=None", 'max_age=None, mode="off"')
"""Only what somebody presses starts a run."""
RUN_MS = 300_000


@dataclass
class Drawn:
    """A console on a fleet that was written by hand."""

    url: str
    made: Fleet
    database: Database


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawn]:
    database = migrated(tmp_path_factory.mktemp("drawn") / "retrue.db")
    made = fleet(database)
    app = FastAPI(docs_url=None)
    problems.install(app)
    app.include_router(router(Site(database, status_of=status_of, patience_s=60)))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_for(lambda: server.started, deadline_s=60, what="the console")
        yield Drawn(f"http://127.0.0.1:{listener.getsockname()[1]}", made, database)
        server.should_exit = True
        thread.join(60)
    database.close()


def paths(made: Fleet) -> list[str]:
    return [
        "/",
        f"/models/{made.model}",
        "/models/fresh",
        f"/models/{made.model}/rollback",
        f"/models/{made.model}/retrain",
        "/runs",
        f"/runs/{made.run}",
        f"/runs/{made.waiting}",
        f"/versions/{made.model}",
        f"/versions/{made.model}/3",
        "/checks",
        f"/checks/{made.check}",
        f"/checks/{made.broken}",
        "/audit",
        "/settings",
        "/sign-in",
        "/models/none",
    ]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(browser: Browser, drawn: Drawn, scheme: str) -> None:
    found: dict[str, list[str]] = {}
    with watched(browser, drawn.url, color_scheme=scheme) as seen:
        for path in paths(drawn.made):
            seen.page.goto(path)
            for one in seen.page.locator("details").all():
                one.evaluate("one => { one.open = true; }")
            if faults := serious(seen.page):
                found[path] = faults
        assert found == {}
        _assert_silent(seen, but="404")


@pytest.mark.timeout(900)
def test_no_page_is_wider_than_its_window_from_a_telephone_to_a_wall(browser: Browser, drawn: Drawn) -> None:
    over: list[tuple[str, int]] = []
    for width in WIDTHS:
        with watched(browser, drawn.url, viewport={"width": width, "height": 900}) as seen:
            for path in paths(drawn.made):
                seen.page.goto(path)
                if seen.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
                    over.append((path, width))
    assert over == []


@pytest.mark.timeout(300)
def test_a_change_works_by_keyboard_and_the_page_follows_by_itself(browser: Browser, drawn: Drawn) -> None:
    with watched(browser, drawn.url) as seen, watched(browser, drawn.url) as other:
        other.page.goto(f"/models/{drawn.made.model}")
        seen.page.goto(f"/models/{drawn.made.model}")
        seen.page.get_by_role("link", name="Pause", exact=True).focus()
        seen.page.keyboard.press("Enter")
        dialog = seen.page.get_by_role("dialog")
        expect(dialog).to_be_visible(timeout=PATIENCE_MS)
        assert serious(seen.page) == []
        expect(dialog.get_by_label("Comment")).to_be_focused()
        seen.page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(seen.page.get_by_role("link", name="Pause", exact=True)).to_be_focused()
        seen.page.keyboard.press("Enter")
        expect(dialog.get_by_label("Comment")).to_be_focused(timeout=PATIENCE_MS)
        seen.page.keyboard.type("a quiet week")
        seen.page.keyboard.press("Tab")
        seen.page.keyboard.press("Enter")
        expect(seen.page.get_by_role("status")).to_have_text("The schedule is paused.", timeout=PATIENCE_MS)
        expect(other.page.get_by_text("a quiet week")).to_be_visible(timeout=PATIENCE_MS)
        _assert_silent(seen)
        _assert_silent(other)


@pytest.mark.timeout(300)
def test_what_a_question_says_follows_the_version_that_is_chosen(browser: Browser, drawn: Drawn) -> None:
    with watched(browser, drawn.url) as seen:
        seen.page.goto(f"/models/{drawn.made.model}")
        seen.page.get_by_role("link", name="Roll back", exact=True).click()
        dialog = seen.page.get_by_role("dialog")
        expect(dialog).to_contain_text("Version 1 answers again at once, in place of version 2.")
        dialog.get_by_role("link", name="version 3, taken back").click()
        expect(dialog).to_contain_text("Undoes a rollback: version 3 answers again at once, in place of version 2.")
        expect(dialog.locator("input[name=to]")).to_have_value("3")
        assert serious(seen.page) == []
        _assert_silent(seen)


@pytest.mark.timeout(300)
def test_everything_works_without_a_script(browser: Browser, drawn: Drawn) -> None:
    with watched(browser, drawn.url, java_script_enabled=False) as seen:
        seen.page.goto(f"/models/{drawn.made.model}")
        seen.page.get_by_role("link", name="Freeze", exact=True).click()
        expect(seen.page.get_by_role("heading", name="Freeze")).to_be_visible()
        expect(seen.page.get_by_text("Nothing is trained and nothing is promoted")).to_be_visible()
        seen.page.get_by_role("button", name="Freeze").click()
        expect(seen.page.get_by_role("status")).to_have_text("The model is frozen.")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("console")
    data = make_data(folder / "data" / "flip.csv")
    (folder / "models").mkdir()
    (folder / "models" / "flip.py").write_text(BY_HAND)
    running = Service(folder)
    running.start()
    with Retrue(running.url) as retrue:
        wait_for(lambda: retrue.is_ready() and retrue.model("flip").get("champion"), deadline_s=300, what="version 1")
        learned = datetime.fromisoformat(retrue.version("flip", 1)["learned_until"]).astimezone(UTC)
        stream = data[(data["at"] > learned) & (data["at"] <= learned + pd.Timedelta("42d"))]
        rows = rows_of(stream, timestamp="at", target="outcome", features=["a", "b", "weekend"])
        totals = Replay(running.url, "flip", rows, pace=Pace(batch=12), answered=lambda _: None).run()
        assert totals.failed == 0, totals.errors
    yield running
    if running.process is not None and running.process.poll() is None:
        assert running.stop() == 0


@pytest.mark.timeout(1800)
def test_an_operator_retrains_watches_it_and_takes_the_new_champion_back(browser: Browser, service: Service) -> None:
    with watched(browser, service.url) as seen:
        page = seen.page
        page.goto("/")
        page.get_by_role("link", name="flip", exact=True).click()
        expect(page.locator("#live")).to_contain_text("Version 1")
        page.get_by_role("link", name="Retrain", exact=True).click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("judged against version 1 on the same newest rows")
        dialog.get_by_label("Comment").fill("the meaning has turned")
        dialog.get_by_role("button", name="Retrain").click()
        page.wait_for_url("**/runs/*")
        states = _watch(seen)
        assert len(states & {"preparing", "validating", "training", "packaging", "evaluating", "promoting"}) >= 2, (
            states
        )
        expect(page.locator("#live")).to_contain_text("the meaning has turned")
        expect(page.get_by_role("region", name="Clauses of the gate")).to_contain_text("paired")

        page.get_by_role("link", name="flip", exact=True).first.click()
        serves = page.get_by_role("region", name="What serves")
        expect(serves).to_contain_text("Version 2", timeout=RUN_MS)
        expect(serves).to_contain_text("on probation")
        page.get_by_role("link", name="Roll back", exact=True).click()
        expect(dialog).to_contain_text("Version 1 answers again at once, in place of version 2.")
        expect(dialog).to_contain_text("Version 2 is on probation: it is quarantined")
        dialog.get_by_label("Comment").fill("customers complain")
        dialog.get_by_role("button", name="Roll back").click()
        expect(page.get_by_role("status")).to_contain_text("Rolled back.")
        expect(serves).to_contain_text("Version 1")
        expect(serves).to_contain_text("Rolled back by console: customers complain")
        expect(page.locator("#live")).to_contain_text("hold is on")
        _assert_silent(seen)
    with Retrue(service.url) as retrue:
        assert retrue.model("flip")["champion"]["version"] == 1
        assert retrue.version("flip", 2)["state"] == "quarantined"


def _watch(seen: Watched) -> set[str]:
    """Return the states that the page showed until the run was past the gate, without being opened anew."""
    page = seen.page
    page.evaluate("window.isTheSamePage = true")
    head, states = page.locator(".head h1 .pill"), set[str]()
    wait = re.compile(r"probation|succeeded|rejected|failed|skipped|awaiting|timed out|blocked")
    before = ""
    while not wait.search(before):
        expect(head).not_to_have_text(before or "nothing", timeout=RUN_MS)
        before = head.inner_text()
        states.add(before.lstrip("✓✗!→· \n"))
    assert "probation" in before, before
    assert page.evaluate("window.isTheSamePage") is True
    return states


def _assert_silent(seen: Watched, *, but: str | None = None) -> None:
    assert seen.elsewhere == []
    assert [words for words in seen.complaints if but is None or but not in words] == []
