"""The command `wait`: for an element, a text, a URL, the end of loading, or a while."""

from __future__ import annotations

from typing import Any

import trio

from runner.browser import actions
from runner.browser.errors import Failed
from runner.browser.tab import Tab


async def wait(tab: Tab, arguments: list[str]) -> dict[str, Any]:
    """wait TARGET|MILLISECONDS|--text T|--url PART|--load. Raises Failed, DialogOpened."""
    match arguments:
        case ["--load"]:
            await tab.until(lambda: not tab.leaving and not tab.loading)
        case ["--url", part]:
            await tab.until(lambda: part in tab.url)
        case ["--text", text]:
            while not await actions.has_text(tab, text):  # noqa: ASYNC110  no event tells of it
                await trio.sleep(actions.POLL_SECONDS)
        case [milliseconds] if milliseconds.isdecimal():
            await trio.sleep(int(milliseconds) / 1000)
        case [target] if not target.startswith("--"):
            await actions.Target(tab, target).visible()
        case _:
            raise Failed(
                "usage", "wait TARGET, wait MILLISECONDS, wait --text T, wait --url PART, wait --load"
            )
    return {"url": tab.url}
