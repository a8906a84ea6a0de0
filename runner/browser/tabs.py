"""The tabs of a Chromium, their frames, and what their pages are doing: loading, asking, crashed.

Chromium tells of each page and of each frame with a process of its own as a *target*; being attached to it is
a *session*. All sessions share the connection ("flatten" in the protocol).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

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


class Tabs:
    """All tabs. `active` is the one that is shown and that commands are for."""

    def __init__(self, devtools: DevTools, *, on_change: Callable[[], None], prepare: list[tuple[str, Any]]):
        self._devtools = devtools
        self._on_change = on_change
        self.prepare = prepare
        """Calls for each new page before it loads: the viewport, colours."""
        self.all: list[Tab] = []
        self.active: Tab | None = None
        self._sessions: dict[str, tuple[Tab, FrameSession]] = {}
        self.appeared = trio.Event()

    async def attach(self) -> None:
        """Begin to follow all pages, those that are there and those to come."""
        pages = [{"type": "page", "exclude": False}, {"exclude": True}]
        await self._devtools.call("Target.setDiscoverTargets", {"discover": True, "filter": pages})
        auto = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True, "filter": pages}
        await self._devtools.call("Target.setAutoAttach", auto)
        await self.appeared.wait()

    async def of(self, target: str) -> Tab:
        """Wait until the tab of a target is there, and return it."""
        while (found := next((tab for tab in self.all if tab.target == target), None)) is None:
            self.appeared = trio.Event()
            await self.appeared.wait()
        return found

    def show(self, tab: Tab) -> None:
        """Make a tab the active one."""
        self.active = tab
        if not self._devtools.closed:
            self._devtools.post("Page.bringToFront", {}, tab.session.id)
        self._on_change()

    def handle(self, method: str, parameters: dict[str, Any], session: str | None) -> None:
        """Take an event."""
        handler = _EVENTS.get(method)
        if handler is not None:
            handler(self, parameters, session)

    def _attached(self, parameters: dict[str, Any], session: str | None) -> None:
        info, new = parameters["targetInfo"], parameters["sessionId"]
        if info["type"] == "page" and session is None:
            frame_session = FrameSession(new, info["targetId"], None)
            tab = Tab(self._devtools, frame_session, info)
            self.all.append(tab)
        elif info["type"] == "iframe" and session in self._sessions:
            tab, parent = self._sessions[session]
            frame_session = FrameSession(new, info["targetId"], parent)
            parent.children[new] = frame_session
        else:  # workers and the like: not ours to drive
            self._devtools.post("Runtime.runIfWaitingForDebugger", {}, new)
            self._devtools.post("Target.detachFromTarget", {"sessionId": new}, session)
            return
        self._sessions[new] = (tab, frame_session)
        for method, more in (
            ("Page.enable", {}),
            ("Page.setLifecycleEventsEnabled", {"enabled": True}),
            ("Inspector.enable", {}),
            *(self.prepare if frame_session.parent is None else ()),
            (
                "Target.setAutoAttach",
                {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": True, "filter": _FRAMES},
            ),
        ):
            self._devtools.post(method, more, new)
        ready = (lambda _: tab.ready.set()) if frame_session.parent is None else None
        self._devtools.post("Runtime.runIfWaitingForDebugger", {}, new, done=ready)
        if frame_session.parent is None:
            self.appeared.set()
            self.show(tab)

    def _detached(self, parameters: dict[str, Any], session: str | None) -> None:
        found = self._sessions.pop(parameters["sessionId"], None)
        if found is None:
            return
        tab, frame_session = found
        if frame_session.parent is not None:
            frame_session.parent.children.pop(frame_session.id, None)
            return
        tab.closed = True
        if tab in self.all:
            self.all.remove(tab)
        if self.active is tab:
            opener = next((x for x in self.all if x.target == tab.opener), None)
            self.active = None
            if self.all:
                self.show(opener or self.all[-1])
        tab.touch()
        self._on_change()

    def _info(self, parameters: dict[str, Any], session: str | None) -> None:
        info = parameters["targetInfo"]
        for tab in self.all:
            if tab.target == info["targetId"] and (tab.url, tab.title) != (info["url"], info["title"]):
                tab.url, tab.title = info["url"], info["title"]
                self._on_change()

    def _lifecycle(self, parameters: dict[str, Any], session: str | None) -> None:
        tab = self._page(session)
        if tab is None or parameters["frameId"] != tab.target:
            return
        tab.committed(parameters["loaderId"])
        tab.reached.add(parameters["name"])
        tab.touch()
        if parameters["name"] in ("DOMContentLoaded", "load", "networkIdle"):
            self.look(tab)

    def look(self, tab: Tab) -> None:
        """Ask for the tab's title, whose changes Chromium doesn't always tell."""

        def done(result: dict[str, Any] | None) -> None:
            if result is not None:
                self._info(result, None)

        self._devtools.post("Target.getTargetInfo", {"targetId": tab.target}, done=done)

    def _navigated(self, parameters: dict[str, Any], session: str | None) -> None:
        tab = self._page(session)
        frame = parameters["frame"]
        if tab is None or frame.get("parentId") is not None:
            return
        tab.committed(frame["loaderId"])
        tab.url = frame["url"] + frame.get("urlFragment", "")
        tab.crashed, tab.crash_told = None, False
        tab.navigations += 1
        tab.touch()
        self._on_change()

    def _navigated_within(self, parameters: dict[str, Any], session: str | None) -> None:
        tab = self._page(session)
        if tab is not None and parameters["frameId"] == tab.target:
            tab.url = parameters["url"]
            tab.navigations += 1
            tab.touch()
            self._on_change()

    def _leaving(self, parameters: dict[str, Any], session: str | None) -> None:
        tab = self._page(session)
        if tab is not None and parameters["frameId"] == tab.target:
            tab.leaving = parameters.get("navigationType") not in ("sameDocument", "historySameDocument")
            tab.touch()

    def _stopped_loading(self, parameters: dict[str, Any], session: str | None) -> None:
        tab = self._page(session)
        if tab is not None and parameters["frameId"] == tab.target:
            tab.leaving = False
            tab.touch()

    def _dialog_opened(self, parameters: dict[str, Any], session: str | None) -> None:
        if session in self._sessions:
            tab = self._sessions[session][0]
            default = parameters.get("defaultPrompt", "")
            tab.dialog = Dialog(parameters["type"], parameters["message"], default)
            tab.touch()
            self._on_change()

    def _dialog_closed(self, parameters: dict[str, Any], session: str | None) -> None:
        if session in self._sessions:
            tab = self._sessions[session][0]
            tab.dialog = None
            tab.touch()
            self._on_change()

    def _crashed(self, parameters: dict[str, Any], session: str | None) -> None:
        # The page's own session has Inspector.targetCrashed, before or after: one of the two must count.
        status = parameters.get("status")
        reason = (
            "ran out of memory" if status == "oom" else f"crashed ({status} {parameters.get('errorCode')})"
        )
        for tab in self.all:
            if tab.target == parameters["targetId"]:
                tab.died(f"the page {reason}; the next command loads it again")
                self._on_change()

    def _page(self, session: str | None) -> Tab | None:
        """The tab whose page the session is of; None for a frame's."""
        found = self._sessions.get(session or "")
        return found[0] if found is not None and found[1].parent is None else None


_FRAMES: Final = [{"type": "iframe", "exclude": False}, {"exclude": True}]
_EVENTS: Final[dict[str, Callable[[Tabs, dict[str, Any], str | None], None]]] = {
    "Target.attachedToTarget": Tabs._attached,
    "Target.detachedFromTarget": Tabs._detached,
    "Target.targetInfoChanged": Tabs._info,
    "Target.targetCrashed": Tabs._crashed,
    "Page.lifecycleEvent": Tabs._lifecycle,
    "Page.frameNavigated": Tabs._navigated,
    "Page.frameStartedNavigating": Tabs._leaving,
    "Page.frameRequestedNavigation": Tabs._leaving,
    "Page.frameStoppedLoading": Tabs._stopped_loading,
    "Page.navigatedWithinDocument": Tabs._navigated_within,
    "Page.javascriptDialogOpening": Tabs._dialog_opened,
    "Page.javascriptDialogClosed": Tabs._dialog_closed,
}
