"""Re-makes the screenshots in docs/images from a real service: starts one, streams real data, photographs its console.

Usage: ``.venv/bin/python scripts/screenshots.py [--weeks 40] [--url URL]``; with --url a service that is up already is
photographed as it stands. Needs Chromium on the machine, and its Playwright from the development packages.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, sync_playwright

from service.client import Refused, Retrue, Unreachable, moment
from service.commands.stream import load_rows
from service.replay import Pace, Replay, Rows

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
MODEL = "electricity"
PATIENCE_S = 900.0
"""A laptop needs minutes for forty weeks; a busy machine may need an hour."""
PATIENCE_MS = 120_000


@dataclass(frozen=True)
class Shot:
    """One image: as much of a page as is worth its bytes."""

    name: str
    page: str
    width: int = 1440
    height: int = 1200
    is_dark: bool = False
    press: str = ""
    """A button whose question is shown over the page."""


SHOTS = (
    Shot("fleet", "fleet", height=420),
    Shot("model", "model", height=1330),
    Shot("model-dark", "model", height=1330, is_dark=True),
    Shot("model-narrow", "model", width=360, height=1500),
    Shot("rollback", "model", press="Roll back"),
    Shot("run", "run"),
    Shot("check", "check"),
    Shot("version", "version"),
)


def main() -> int:
    """Make all images; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=40, help="of the stream to replay first (default 40)")
    parser.add_argument("--url", help="a service that is up already; nothing is replayed")
    given = parser.parse_args()
    if given.url:
        photograph(given.url)
        return 0
    with tempfile.TemporaryDirectory() as home, _service(Path(home)) as url:
        _replay(url, given.weeks)
        photograph(url)
    return 0


def photograph(url: str) -> None:
    """Write the images, and say how large they are."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        sys.exit("no Chromium is installed: scripts/system.sh chromium")
    pages = _pages(url)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for shot in SHOTS:
            target = _photograph(browser, url, pages, shot)
            print(target.relative_to(ROOT), f"{target.stat().st_size:,} bytes")  # noqa: T201  what was written
        browser.close()


def _photograph(browser: Browser, url: str, pages: dict[str, str], shot: Shot) -> Path:
    context = browser.new_context(
        base_url=url,
        viewport={"width": shot.width, "height": 900},
        color_scheme="dark" if shot.is_dark else "light",
        locale="en-GB",
        timezone_id="UTC",
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(pages[shot.page])
    target = IMAGES / f"{shot.name}.png"
    if shot.press:
        page.get_by_role("link", name=shot.press, exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name=shot.press).wait_for()
        page.screenshot(path=target)
    else:
        height = min(shot.height, page.evaluate("document.documentElement.scrollHeight"))
        page.screenshot(path=target, full_page=True, clip={"x": 0, "y": 0, "width": shot.width, "height": height})
    context.close()
    return target


def _pages(url: str) -> dict[str, str]:
    with Retrue(url) as retrue:
        runs = retrue.runs(model=MODEL, limit=50)
        checks = retrue.checks(MODEL, limit=50)
        champion = retrue.model(MODEL)["champion"]["version"]
    judged = next((run for run in runs if run["gate"] and run["trigger"] != "initial"), runs[0])
    drifted = next((check for check in checks if check["verdict"] == "drifted"), checks[0])
    return {
        "fleet": "/",
        "model": f"/models/{quote(MODEL)}",
        "run": f"/runs/{judged['id']}",
        "check": f"/checks/{drifted['id']}",
        "version": f"/versions/{quote(MODEL)}/{champion}",
    }


def _replay(url: str, weeks: int) -> None:
    with Retrue(url) as retrue:
        rows = load_rows(retrue, MODEL, data=None, start=None, until=None)
        ends = moment(retrue.version(MODEL, 1)["learned_until"]) + timedelta(weeks=weeks)
    many = sum(at <= ends for at in rows.times)
    rows = Rows(times=rows.times[:many], instances=rows.instances[:many], labels=rows.labels[:many])
    pace = Pace(lead=timedelta(days=1), batch=8, label_delay=timedelta(days=1), patience_s=PATIENCE_S)
    Replay(url, MODEL, rows, pace=pace, answered=lambda _: None).run()


@contextmanager
def _service(home: Path) -> Iterator[str]:
    from service.commands.demo import HURRY

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    log = (home / "service.log").open("wb")
    process = subprocess.Popen(  # noqa: S603  our own command
        [sys.executable, "-m", "service", "serve", "--workers", "2", "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"RETRUE_HOME": str(home / "var"), "RETRUE_HOST": "127.0.0.1"} | HURRY,
        stdout=log,
        stderr=log,
    )
    try:
        _wait_for_champion(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def _wait_for_champion(url: str, process: "subprocess.Popen[bytes]") -> None:
    ends = time.monotonic() + PATIENCE_S
    with Retrue(url) as retrue:
        while time.monotonic() < ends and process.poll() is None:
            with suppress(Unreachable, Refused):
                if retrue.is_ready() and retrue.model(MODEL).get("champion"):
                    return
            time.sleep(0.5)
    sys.exit("the service did not come up")


if __name__ == "__main__":
    sys.exit(main())
