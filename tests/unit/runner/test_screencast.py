"""The screencast that viewers share: begun and ended as they come and go, and again where it was refused."""

from __future__ import annotations

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from runner.browser.devtools import Done, Parameters
from runner.browser.errors import Failed
from runner.browser.screencast import Screencast
from runner.browser.tabs import FrameSession, Tab


class Chromium:
    """The calls that a tab makes, for a test to answer."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.last: Done | None = None
        self.ended = False

    def post(self, method: str, parameters: Parameters, session: str, *, done: Done | None = None) -> None:
        if self.ended:
            raise Failed("crashed", "Chromium has ended")
        self.calls.append(method.removeprefix("Page."))
        self.last = done

    def answer(self, result: dict[str, object] | None) -> None:
        assert self.last is not None
        self.last(result)


def tab_of(chromium: Chromium) -> Tab:
    return Tab(chromium, FrameSession("S", "T", None), {"targetId": "T"})  # type: ignore[arg-type]  # a fake


def frame(number: int) -> bytes:
    params = {"data": "/9j/", "metadata": {"deviceWidth": 1280}, "sessionId": number}
    return msgspec.json.encode({"method": "Page.screencastFrame", "params": params, "sessionId": "S"})


async def test_begun_again_when_the_document_that_was_on_its_way_is_there(nursery: trio.Nursery) -> None:
    chromium = Chromium()
    tab = tab_of(chromium)
    screencast = Screencast(nursery, wake=lambda: None)
    screencast.follow(tab)
    screencast.watch(watched=True)
    chromium.answer(None)  # "Not attached to an active page"
    await wait_all_tasks_blocked()
    assert chromium.calls == ["startScreencast"]
    tab.touch()
    await wait_all_tasks_blocked()
    assert chromium.calls == ["startScreencast"] * 2
    chromium.answer({})
    tab.touch()
    await wait_all_tasks_blocked()
    assert chromium.calls == ["startScreencast"] * 2


async def test_begun_again_though_nothing_more_is_told(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    chromium = Chromium()
    screencast = Screencast(nursery, wake=lambda: None)
    screencast.follow(tab_of(chromium))
    screencast.watch(watched=True)
    chromium.answer(None)
    await trio.sleep(1)
    assert chromium.calls == ["startScreencast"] * 2


async def test_not_begun_again_when_everybody_has_left(nursery: trio.Nursery) -> None:
    chromium = Chromium()
    tab = tab_of(chromium)
    screencast = Screencast(nursery, wake=lambda: None)
    screencast.follow(tab)
    screencast.watch(watched=True)
    chromium.answer(None)
    await wait_all_tasks_blocked()
    screencast.watch(watched=False)
    tab.touch()
    await wait_all_tasks_blocked()
    assert chromium.calls == ["startScreencast", "stopScreencast"]


async def test_a_viewer_that_takes_a_frame_of_a_chromium_that_has_ended(nursery: trio.Nursery) -> None:
    chromium = Chromium()
    woken: list[None] = []
    screencast = Screencast(nursery, wake=lambda: woken.append(None))
    screencast.follow(tab_of(chromium))
    screencast.watch(watched=True)
    screencast.arrived(frame(7))
    assert len(woken) == 1
    chromium.ended = True
    screencast.taken()
    screencast.watch(watched=False)
    assert not screencast.running
    assert chromium.calls == ["startScreencast"]
