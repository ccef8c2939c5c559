"""A real Chromium, the machine's own, that notices what a page must not do."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

__all__ = ["Watched", "chromium", "serious", "watched"]

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 60_000
"""Far above what a page takes: the machine may be busy with trainers."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser. CI must have one; elsewhere tests that need it are skipped, with the reason."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        words = "no Chromium is installed: scripts/system.sh, or your system's package"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    with sync_playwright() as playwright:
        # Its sandbox needs what a container's root does not have; it visits our own pages alone.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what it did that it must not do."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of its console, and scripts that failed."""
    elsewhere: list[str] = field(default_factory=list)
    """Requests to another host."""


@contextmanager
def watched(browser: Browser, url: str, **options: Any) -> Iterator[Watched]:
    """Yield a page of a browser that has never been here; `options` are those of Playwright's contexts."""
    home = urlsplit(url).netloc
    context = browser.new_context(base_url=url, **options)
    context.set_default_timeout(PATIENCE_MS)
    seen = Watched(context.new_page())
    seen.page.on(
        "console", lambda told: seen.complaints.append(told.text) if told.type in {"error", "warning"} else None
    )
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    context.on(
        "request", lambda asked: seen.elsewhere.append(asked.url) if urlsplit(asked.url).netloc != home else None
    )
    try:
        yield seen
    finally:
        context.close()


def serious(page: Page) -> list[str]:
    """Return what axe-core finds serious or critical on the page as it stands."""
    # By the debugger's own way in: the page's policy lets no script be added.
    page.evaluate(AXE.read_text(encoding="utf-8") + "; 0")
    found: list[dict[str, Any]] = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)"
    )
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]} ({len(one['nodes'])} of them)"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]
