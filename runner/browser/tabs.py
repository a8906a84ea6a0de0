"""The tabs of a Chromium, kept as it tells of them.

Chromium tells of each page and of each frame with a process of its own as a *target*; being attached to it is
a *session*. All sessions share the connection ("flatten" in the protocol).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import trio

from runner.browser.devtools import DevTools
from runner.browser.tab import Dialog, FrameSession, Tab


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
