"""Going to pages, and knowing when they are there."""

from __future__ import annotations

import re
from typing import Any, Final

import trio

from runner.browser.errors import Failed
from runner.browser.tab import Tab

BUSY_SECONDS: Final = 3.0
"""After which a page that doesn't answer is held to be stuck when another is to take its place."""

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PORT: Final = re.compile(r"[^/:]+:\d+(/|$)")
_ALLOWED: Final = ("http", "https", "about", "data", "blob", "file", "chrome-extension", "view-source")


def full_url(text: str) -> str:
    """Return the URL that a person means: a name without a scheme is a web site. Raises Failed."""
    text = text.strip()
    if not text or any(ord(character) < 32 for character in text):
        raise Failed("usage", "give a URL")
    if not _SCHEME.match(text) or _PORT.match(text):
        host = re.split(r"[/:?#]", text, maxsplit=1)[0]
        local = host == "localhost" or host.endswith(".localhost") or re.fullmatch(r"[\d.]+", host)
        return f"{'http' if local else 'https'}://{text}"
    scheme = text.partition(":")[0].lower()
    if scheme not in _ALLOWED:
        raise Failed("usage", f"{scheme}: URLs can't be opened; {', '.join(_ALLOWED[:5])} … can")
    return text


async def open_url(tab: Tab, url: str) -> dict[str, Any]:
    """Open a page and wait until it has loaded. Raises Failed, DialogOpened."""
    url = full_url(url)
    await _make_way(tab)
    arrived = False
    try:
        answer = await tab.call("Page.navigate", {"url": url})
        arrived = True
    finally:
        if not arrived and not tab.closed:
            tab.post("Page.stopLoading", {})
        if not arrived and tab.making_way:
            tab.making_way, tab.crashed = False, "the page was ended for another one, which did not come"
    error = answer.get("errorText")
    if answer.get("isDownload") or error == "net::ERR_ABORTED":
        return {"url": tab.url, "title": tab.title, "download": True}
    if error:
        raise Failed("navigation", f"{url} can't be loaded: {_words(error)}")
    loader = answer.get("loaderId")
    if loader is not None:
        await _loaded(tab, loader)
    return await described(tab)


async def go(tab: Tab, steps: int) -> dict[str, Any]:
    """Go back or forward in the tab's history. Raises Failed, DialogOpened."""
    history = await tab.call("Page.getNavigationHistory")
    index = history["currentIndex"] + steps
    if not 0 <= index < len(history["entries"]):
        raise Failed("not_found", f"there is no page to go {'back' if steps < 0 else 'forward'} to")
    await _make_way(tab)
    before = tab.navigations
    await tab.call("Page.navigateToHistoryEntry", {"entryId": history["entries"][index]["id"]})
    await tab.until(lambda: tab.navigations > before)
    await tab.until(lambda: not tab.loading)
    return await described(tab)


async def reload(tab: Tab) -> dict[str, Any]:
    """Load the page again. Raises Failed, DialogOpened."""
    await _make_way(tab)
    before = tab.loader
    await tab.call("Page.reload")
    await tab.until(lambda: tab.loader != before)
    await tab.until(lambda: not tab.loading)
    return await described(tab)


async def described(tab: Tab) -> dict[str, Any]:
    """Where the tab is now, with the HTTP status of its page. Raises Failed, DialogOpened."""
    expression = (
        "[location.href, document.title, performance.getEntriesByType('navigation')[0]?.responseStatus ?? 0]"
    )
    found = await tab.call("Runtime.evaluate", {"expression": expression, "returnByValue": True})
    url, title, status = found.get("result", {}).get("value") or (tab.url, tab.title, 0)
    said: dict[str, Any] = {"url": url, "title": title}
    if status:
        said["status"] = status
    if tab.loading:
        said["loading"] = True
    return said


async def _make_way(tab: Tab) -> None:
    """Give up a navigation that is on its way, and end a page whose script never rests.

    For as long as a navigation waits for its server, Chromium keeps back what it is to tell the page.
    """
    if tab.leaving:
        tab.post("Page.stopLoading", {})
    with trio.move_on_after(BUSY_SECONDS):
        await tab.call("Runtime.evaluate", {"expression": "0"})
        return
    tab.making_way, tab.gone = True, False
    tab.post("Page.crash", {})
    await tab.until(lambda: tab.gone)


async def _loaded(tab: Tab, loader: str) -> None:
    """Wait until this page, or one that has taken its place since, has loaded.

    One that can be used, but still waits for a picture or the like when the time is nearly up, will do.
    """
    await tab.until(lambda: loader in tab.loaders)
    left = trio.current_effective_deadline() - trio.current_time()
    with trio.move_on_after(left - min(1.0, left / 4)):
        await tab.until(lambda: not tab.loading)
    await tab.until(lambda: "DOMContentLoaded" in tab.reached)


def _words(error: str) -> str:
    known = {
        "net::ERR_NAME_NOT_RESOLVED": "there is no host of that name",
        "net::ERR_CONNECTION_REFUSED": "nothing listens there",
        "net::ERR_CONNECTION_TIMED_OUT": "the host doesn't answer",
        "net::ERR_CONNECTION_RESET": "the connection was cut",
        "net::ERR_EMPTY_RESPONSE": "the server closed the connection without an answer",
        "net::ERR_INTERNET_DISCONNECTED": "there is no network",
        "net::ERR_CERT_AUTHORITY_INVALID": "its certificate is of nobody that is trusted",
        "net::ERR_CERT_DATE_INVALID": "its certificate has expired",
        "net::ERR_TOO_MANY_REDIRECTS": "it redirects in a circle",
        "net::ERR_FILE_NOT_FOUND": "there is no such file",
    }
    return f"{known[error]} ({error})" if error in known else error
