"""One tab: its page, the frames of it, and what the page is doing: loading, asking, crashed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import trio

from runner.browser.devtools import DevTools, Done, Parameters
from runner.browser.errors import Failed


@dataclass(frozen=True, slots=True)
class Dialog:
    """A dialog that a page has opened and that waits for an answer."""

    kind: str
    message: str
    default: str


class DialogOpened(Exception):
    """What was being done made the page open a dialog; its end can't be waited for."""

    def __init__(self, dialog: Dialog) -> None:
        super().__init__(dialog.kind)
        self.dialog = dialog


@dataclass(frozen=True, slots=True)
class Reference:
    """An element that a snapshot has shown."""

    frame: str
    node: int


@dataclass(slots=True)
class FrameSession:
    """A session: of a tab's page (no parent), or of one of its frames in a process of its own."""

    id: str
    target: str
    parent: FrameSession | None
    children: dict[str, FrameSession] = field(default_factory=dict)

    def walk(self) -> Iterator[FrameSession]:
        """This one, and those below."""
        yield self
        for child in list(self.children.values()):
            yield from child.walk()


class Tab:
    """A page. `changed` is set, and replaced, whenever anything here changes."""

    def __init__(self, devtools: DevTools, session: FrameSession, info: dict[str, Any]) -> None:
        self._devtools = devtools
        self.session = session
        self.target: str = info["targetId"]
        self.url: str = info.get("url", "")
        self.title: str = info.get("title", "")
        self.opener: str | None = info.get("openerId")
        self.dialog: Dialog | None = None
        self.crashed: str | None = None
        """Why its process ended, for people."""
        self.crash_told = False
        self.closed = False
        self.loaders: deque[str] = deque(maxlen=16)
        """The documents that the tab has had, by Chromium's names for them; the last is there now."""
        self.reached: set[str] = set()
        """How far loading has come: names of lifecycle events."""
        self.navigations = 0
        self.leaving = False
        """Whether another page has been asked for, and isn't there yet."""
        self.coming_back = False
        self.making_way = False
        """Whether the page is being ended on purpose, for another one: then its end is no crash."""
        self.gone = False
        """Whether it has ended since."""
        self.references: dict[str, Reference] = {}
        """Of the last snapshot."""
        self.changed = trio.Event()
        self.ready = trio.Event()
        """Set when Chromium tells of everything that happens in the tab."""

    @property
    def loader(self) -> str | None:
        """The document that is there now."""
        return self.loaders[-1] if self.loaders else None

    @property
    def loading(self) -> bool:
        """Whether the document has not loaded all that it needs."""
        return "load" not in self.reached

    def committed(self, loader: str) -> None:
        """A document is there."""
        if loader != self.loader:
            self.loaders.append(loader)
            self.reached = set()
            self.references.clear()
        self.leaving = self.making_way = False

    def died(self, reason: str) -> None:
        """The process of the page has ended."""
        if self.making_way:
            self.gone = True
        else:
            self.crashed = reason
        self.dialog = None
        self.touch()

    def come_back(self, method: str, parameters: Parameters) -> None:
        """Have a page again that was lost; `coming_back` until it is there."""
        self.coming_back = self.leaving = True
        self.post(method, parameters)

    async def wait_for_return(self, seconds: float) -> None:
        """Wait for a page that is coming back, a while. Raises as `check` does."""
        if self.coming_back:
            with trio.move_on_after(seconds):
                await self.until(lambda: not self.leaving and not self.loading)
            self.coming_back = False

    def touch(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something about the tab holds. Raises as `check` does."""
        while not holds():
            self.check()
            await self.changed.wait()

    def check(self) -> None:
        """Raises Failed when the page has crashed or is closed, DialogOpened when it asks something."""
        if self.crashed is not None:
            raise Failed("crashed", self.crashed)
        if self.closed:
            raise Failed("crashed", "the tab was closed")
        if self.dialog is not None:
            raise DialogOpened(self.dialog)

    async def call(
        self, method: str, parameters: Parameters | None = None, session: str | None = None
    ) -> dict[str, Any]:
        """Call something of the page, or of one of its frames' sessions; ends early as `check` does."""
        self.check()
        result: dict[str, Any] = {}
        failed: Failed | None = None
        stopped: Failed | DialogOpened | None = None

        async def ask(scope: trio.CancelScope) -> None:
            nonlocal result, failed
            try:
                result = await self._devtools.call(method, parameters, session or self.session.id)
            except Failed as error:
                failed = error
            scope.cancel()

        async def look(scope: trio.CancelScope) -> None:
            nonlocal stopped
            try:
                await self.until(lambda: False)
            except (Failed, DialogOpened) as error:
                stopped = error
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, nursery.cancel_scope)
            nursery.start_soon(look, nursery.cancel_scope)
        if stopped is not None:
            raise stopped
        if failed is not None:
            raise failed
        return result

    async def sequence(self, calls: list[tuple[str, dict[str, Any]]]) -> None:
        """Make calls one right after the other, and wait for all; ends early as `check` does.

        All are on their way by then, so that a button that was pressed is let go of also when a dialog opens
        in between.
        """
        self.check()
        waiting = len(calls)

        def done(_: dict[str, Any] | None) -> None:
            nonlocal waiting
            waiting -= 1
            self.touch()

        for method, parameters in calls:
            self.post(method, parameters, done=done)
        await self.until(lambda: waiting == 0)

    def post(
        self,
        method: str,
        parameters: Parameters,
        *,
        session: str | None = None,
        done: Done | None = None,
    ) -> None:
        """Tell the page something and don't wait."""
        self._devtools.post(method, parameters, session or self.session.id, done=done)
