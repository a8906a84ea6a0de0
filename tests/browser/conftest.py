"""Debian's Chromium, driven by Playwright, and a gateway in personal mode to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.integration.test_personal_mode import Gateway, start, stop

TIMEOUT = 15_000  # milliseconds
expect.set_options(timeout=TIMEOUT)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium")
    assert found, "chromium is missing: packaging/setup test installs it"
    options = ["--disable-gpu", "--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=options)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    running = start(tmp_path)
    try:
        yield running
    finally:
        stop(running)


@pytest.fixture
def page(chromium: Browser, gateway: Gateway) -> Iterator[Page]:
    """A browser of its own for each test, at the page. Whatever goes wrong in its scripts fails the test."""
    context = chromium.new_context(
        base_url=f"http://127.0.0.1:{gateway.port}", viewport={"width": 1280, "height": 800}
    )
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None
    )
    page.goto("/")
    try:
        yield page
    finally:
        context.close()
    assert not wrong, wrong
