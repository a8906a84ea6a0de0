"""A session's browser in the web page: shown, clicked, typed into, sized, asked and closed."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import TIMEOUT
from tests.browser.test_page import log_in, new_session
from tests.integration.clients import Terminal
from tests.integration.test_personal_mode import Gateway, start, stop

# Says what happened to it by its colour, which everybody sees at once.
PAGE = """<!doctype html><meta charset=utf-8><title>A page</title>
<body style="margin:0;background:#fff" onresize="if(innerWidth==390)paint('rgb(160,0,160)')">
<script>
function paint(colour){document.body.style.background=colour}
const typed={'Žluťoučků 日本':'rgb(220,0,0)','b':'rgb(0,0,220)','from here':'rgb(220,220,0)'};
</script>
<input style="position:absolute;left:10px;top:120px;width:250px;font-size:20px"
 oninput="if(typed[value])paint(typed[value])">
<button style="position:absolute;left:10px;top:10px;width:100px;height:60px"
 onclick="paint('rgb(0,200,0)')">Go</button>
<button style="position:absolute;left:150px;top:10px;width:100px;height:60px"
 onclick="if(prompt('Your name?','nobody')=='Ada')paint('rgb(0,200,0)')">Ask</button>
<a style="position:absolute;left:10px;top:200px;font-size:30px"
 href="data:text/plain,hello" download="report.txt">Load</a>
"""
WHITE, GREEN, RED, BLUE = (255, 255, 255), (0, 200, 0), (220, 0, 0), (0, 0, 220)
YELLOW, PURPLE = (220, 220, 0), (160, 0, 160)
SPOT = (330, 300)

PIXEL = """(canvas, [x, y]) => {
  const scale = canvas.width / canvas.clientWidth;
  return [...canvas.getContext("2d").getImageData(x * scale, y * scale, 1, 1).data].slice(0, 3);
}"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    running = start(tmp_path, OQTO__AGENT_BROWSER__ENABLED="true")
    (tmp_path / "work").mkdir(exist_ok=True)
    (tmp_path / "work/page.html").write_text(PAGE)
    try:
        yield running
    finally:
        client = running.client()
        for session in client.send("GET", "/api/sessions").json:  # or their profiles would stay in the home
            client.post(f"/api/sessions/{session['id']}/stop")
            assert client.send("DELETE", f"/api/sessions/{session['id']}").status == 204
        stop(running)


def show(page: Page, gateway: Gateway) -> Locator:
    """Open the test's page in a session's browser; the canvas."""
    log_in(page, gateway)
    new_session(page)
    page.get_by_role("button", name="Browser", exact=True).click()
    canvas = page.locator("#browser-pane canvas")
    expect(canvas).to_be_visible(timeout=2 * TIMEOUT)
    page.get_by_label("Address").fill(f"file://{gateway.folder}/work/page.html")
    page.get_by_label("Address").press("Enter")
    expect(keys(page)).to_have_attribute("aria-label", re.compile("A page"))
    return canvas


def keys(page: Page) -> Locator:
    """What takes the keyboard, and says what the page is called."""
    return page.locator("#browser-pane textarea")


def becomes(canvas: Locator, colour: tuple[int, int, int]) -> None:
    deadline = time.monotonic() + TIMEOUT / 1000
    while True:
        seen = canvas.evaluate(PIXEL, list(SPOT))
        if all(abs(one - other) < 40 for one, other in zip(seen, colour, strict=True)):
            return
        assert time.monotonic() < deadline, (seen, colour)
        canvas.page.wait_for_timeout(20)  # lets the page's own events happen


def test_shown_clicked_typed_and_sized(page: Page, gateway: Gateway) -> None:
    canvas = show(page, gateway)
    becomes(canvas, WHITE)
    canvas.click(position={"x": 50, "y": 40})
    becomes(canvas, GREEN)
    canvas.click(position={"x": 60, "y": 135})
    page.keyboard.type("Žluťoučký")
    page.keyboard.press("Backspace")
    page.keyboard.insert_text("ů 日本")  # as an input method, or a soft keyboard, does
    becomes(canvas, RED)
    page.keyboard.press("Control+a")
    page.keyboard.type("b")
    becomes(canvas, BLUE)
    page.set_viewport_size({"width": 390, "height": 760})
    becomes(canvas, PURPLE)
    page.keyboard.press("F6")
    expect(page.get_by_label("Address")).to_be_focused()


def test_a_question_a_download_and_the_clipboard(page: Page, gateway: Gateway) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    canvas = show(page, gateway)
    canvas.click(position={"x": 200, "y": 40})
    asked = page.get_by_role("alertdialog", name="The page asks")
    expect(asked).to_contain_text("Your name?")
    asked.get_by_label("Answer").fill("Ada")
    asked.get_by_role("button", name="OK").click()
    becomes(canvas, GREEN)
    canvas.click(position={"x": 60, "y": 135})
    page.evaluate("navigator.clipboard.writeText('from here')")
    page.keyboard.press("Control+v")
    becomes(canvas, YELLOW)
    page.keyboard.press("Control+a")
    page.evaluate("navigator.clipboard.writeText('')")
    page.keyboard.press("Control+c")
    page.wait_for_function("async () => await navigator.clipboard.readText() === 'from here'")
    canvas.click(position={"x": 40, "y": 218})
    note = page.get_by_role("status").filter(has_text="Downloaded report.txt")
    expect(note).to_be_visible()
    with page.expect_download() as download:
        note.get_by_role("link", name="Save").click()
    assert download.value.path().read_text() == "hello"


def test_an_agent_is_told_of_and_a_closed_browser_opens_again(page: Page, gateway: Gateway) -> None:
    show(page, gateway)
    client = gateway.client()
    (session,) = client.send("GET", "/api/sessions").json
    driving = page.get_by_text("An agent is driving")
    expect(driving).to_be_hidden()
    terminal = Terminal(client, session["id"])
    command = Path(sys.executable).parent / "oqto-browser"
    said = terminal.ask(f"{command} open 'data:text/html,<title>elsewhere</title>'")
    terminal.close()
    assert '"success": true' in said
    expect(driving).to_be_visible()
    expect(keys(page)).to_have_attribute("aria-label", "Page: elsewhere")
    page.get_by_role("button", name="Back").click()
    expect(page.get_by_label("Address")).to_have_value(re.compile("page.html$"))
    page.get_by_label("Address").fill("not an address")
    page.get_by_label("Address").press("Enter")
    expect(page.get_by_text("That is no address")).to_be_visible()
    page.get_by_role("button", name="Close the browser").click()
    cover = page.get_by_role("button", name="The browser is closed.")
    expect(cover).to_be_visible()
    cover.click()
    expect(page.locator("#browser-pane canvas")).to_be_visible(timeout=2 * TIMEOUT)
