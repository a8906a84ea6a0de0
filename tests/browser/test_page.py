"""The web page as a person uses it: log in, open a terminal, type, see files."""

from __future__ import annotations

import re

from playwright.sync_api import FrameLocator, Page, expect

from tests.integration.test_personal_mode import Gateway

PROMPT = re.compile(r"[#$]\s")


def log_in(page: Page, gateway: Gateway) -> None:
    page.get_by_label("User name").fill(gateway.username)
    page.get_by_label("Password").fill(gateway.password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="New session")).to_be_visible()


def new_session(page: Page) -> FrameLocator:
    """Start a session and return its terminal, once a shell has said something."""
    page.get_by_role("button", name="New session").click()
    terminal = page.frame_locator("iframe")
    expect(terminal.locator(".xterm-rows")).to_contain_text(PROMPT, use_inner_text=True)
    return terminal


def type_line(page: Page, terminal: FrameLocator, line: str) -> None:
    terminal.locator(".xterm-screen").click()
    page.keyboard.type(line)
    page.keyboard.press("Enter")


def test_from_login_to_a_shell_and_files(page: Page, gateway: Gateway) -> None:
    log_in(page, gateway)
    terminal = new_session(page)
    type_line(page, terminal, "echo $((6*7)) | tee made-here.txt")
    expect(terminal.locator(".xterm-rows > div").filter(has_text=re.compile(r"^\s*42\s*$"))).to_be_visible()
    page.locator("#files-pane").hover()
    entry = page.get_by_role("link", name="made-here.txt")
    expect(entry).to_be_visible()
    assert (gateway.folder / "work/made-here.txt").read_text() == "42\n"
    with page.expect_download() as download:
        entry.click()
    assert download.value.path().read_text() == "42\n"


def test_a_wrong_password_is_said(page: Page, gateway: Gateway) -> None:
    page.get_by_label("User name").fill(gateway.username)
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert").filter(has_text="the username or the password is wrong")).to_be_visible()
    expect(page.get_by_label("Password")).to_be_focused()


def test_uploaded_made_and_deleted(page: Page, gateway: Gateway) -> None:
    log_in(page, gateway)
    terminal = new_session(page)
    name = "<b>né w & 100%.txt"
    upload = {"name": name, "mimeType": "text/plain", "buffer": b"from the browser\n"}
    page.locator("#upload-input").set_input_files([upload])
    expect(page.get_by_role("link", name=name)).to_be_visible()
    page.get_by_role("button", name="New folder").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("folder")
    page.get_by_role("dialog").get_by_role("button", name="Create").click()
    expect(page.locator("#entries li")).to_contain_text(["folder", name])
    type_line(page, terminal, "cat *.txt")
    expect(terminal.locator(".xterm-rows")).to_contain_text("from the browser", use_inner_text=True)
    page.get_by_role("button", name=f"Delete {name}").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#entries li")).to_have_count(1)
    assert [path.name for path in (gateway.folder / "work").glob("[!.]*")] == ["folder"]


def test_stopped_and_resumed(page: Page, gateway: Gateway) -> None:
    log_in(page, gateway)
    new_session(page)
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(page.get_by_role("heading", name="This session is stopped")).to_be_visible()
    expect(page.locator("iframe")).to_have_count(0)
    page.get_by_role("button", name="Resume").click()
    expect(page.frame_locator("iframe").locator(".xterm-rows")).to_contain_text(PROMPT, use_inner_text=True)
    page.get_by_role("link", name="Sessions").click()
    expect(page.locator("#sessions li")).to_have_count(1)


def test_a_reload_keeps_the_place_and_logging_out_ends_it(page: Page, gateway: Gateway) -> None:
    log_in(page, gateway)
    new_session(page)
    page.reload()
    expect(page.frame_locator("iframe").locator(".xterm-rows")).to_contain_text(PROMPT, use_inner_text=True)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    expect(page.locator("iframe")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
