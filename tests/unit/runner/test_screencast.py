"""The screencast that viewers share: begun and ended as they come and go, and again where it was refused."""

from __future__ import annotations

import itertools

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from runner.browser.devtools import Done, Parameters
from runner.browser.errors import Failed
from runner.browser.pace import Pace
from runner.browser.screencast import Screencast
from runner.browser.tab import FrameSession, Tab


class Chromium:
    """The calls that a tab makes, for a test to answer."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.asked: list[Parameters] = []
        self.last: Done | None = None
        self.ended = False

    def post(self, method: str, parameters: Parameters, session: str, *, done: Done | None = None) -> None:
        if self.ended:
            raise Failed("crashed", "Chromium has ended")
        self.calls.append(method.removeprefix("Page."))
        self.asked.append(parameters)
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


def widths(chromium: Chromium) -> list[object]:
    """How wide the frames were to be, at each beginning."""
    return [asked["maxWidth"] for asked in chromium.asked if "maxWidth" in asked]


async def test_pictures_follow_the_quickest_viewer(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Down while it takes them late, sharp when the page rests, back when it moves, up on a wide line."""
    chromium = Chromium()
    screencast = Screencast(nursery, wake=lambda: None)
    screencast.follow(tab_of(chromium))
    screencast.watch(watched=True)
    assert widths(chromium) == [1280]

    async def moves(seconds: float, *taken: float) -> None:
        """Frames for so long, for which viewers take so much longer than at best."""
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            screencast.arrived(frame(1))
            for viewer, late in enumerate(taken):
                screencast.shown(viewer, late)
            await trio.sleep(0.25)

    await moves(10, 0.0, 3.0)
    assert widths(chromium) == [1280], "the second viewer is nobody's measure"
    screencast.left(0)
    await moves(10, 3.0)
    assert widths(chromium) == [1280, 1280, 960, 640]
    assert [asked["quality"] for asked in chromium.asked if "quality" in asked] == [80, 60, 50, 40]
    await trio.sleep(0.5)
    assert widths(chromium)[4:] == []
    await trio.sleep(2)
    assert widths(chromium)[4:] == [1280], "at rest"
    screencast.arrived(frame(1))
    screencast.shown(0, 3.0)
    screencast.arrived(frame(1))
    await trio.sleep(20)
    assert widths(chromium)[5:] == [], "still at rest"
    screencast.arrived(frame(1))
    assert widths(chromium)[5:] == [640], "it moves"
    await moves(30, 0.01)
    assert widths(chromium)[6:] == [960, 1280, 1280]
    await trio.sleep(5)
    assert widths(chromium)[9:] == [], "as good as can be already"
    screencast.watch(watched=False)


async def test_what_is_too_slow_is_tried_again_ever_later() -> None:
    pace, now = Pace(0.0), 0.0
    changes = []
    while now < 300:
        now += 0.1
        # All that is better than the third level is too much for the line.
        if pace.note("viewer", 1.0 if pace.level < 2 else 0.0, now):
            changes.append((round(now), pace.level))
    rises = [at for at, level in changes if level == 1 and at > 5]
    pauses = [later - earlier for earlier, later in itertools.pairwise(rises)]
    assert pauses[0] < pauses[1] < pauses[2] < 60 <= min(pauses[3:])
