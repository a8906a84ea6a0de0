"""Where a click leads: the page that it was about may go away before it says that nothing happens."""

from __future__ import annotations

import pytest
import trio

from runner.browser import actions
from runner.browser.devtools import Done, Parameters
from runner.browser.errors import Failed
from runner.browser.tab import FrameSession, Tab


class Chromium:
    """Fails each call, and then has the tab be at another page."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.tab = Tab(self, FrameSession("S", "T", None), {"targetId": "T"})  # type: ignore[arg-type]  # a fake

    async def call(self, method: str, parameters: Parameters, session: str) -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        raise Failed(self.code, "Inspected target navigated or closed")  # type: ignore[arg-type]  # one of them

    def post(self, method: str, parameters: Parameters, session: str, *, done: Done | None = None) -> None:
        raise AssertionError

    async def navigate(self) -> None:
        await trio.sleep(1)
        self.tab.committed("another")
        self.tab.url = "https://example.org/next"
        self.tab.navigations += 1
        self.tab.reached.add("load")
        self.tab.touch()


async def test_a_page_that_is_replaced_before_it_answers(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    chromium = Chromium("failed")
    nursery.start_soon(chromium.navigate)
    assert await actions.settled(chromium.tab, 0) == {"url": "https://example.org/next"}


async def test_other_failures_are_told() -> None:
    with pytest.raises(Failed, match="closed"):
        await actions.settled(Chromium("crashed").tab, 0)
