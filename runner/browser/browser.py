"""The life of a session's Chromium: started by its first use, watched, started again after a crash, ended."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

import trio

from runner.browser.chromium import Chromium, can_sandbox
from runner.browser.devtools import DevTools
from runner.browser.errors import Failed
from runner.browser.last_page import LastPage
from runner.browser.settings import Settings
from runner.browser.tab import Tab
from runner.browser.tabs import Tabs

State = Literal["stopped", "starting", "running", "crashed"]

START_SECONDS: Final = 60.0
"""For Chromium to answer; a second or less on an idle machine."""

FAREWELL_SECONDS: Final = 2.0
"""In which Chromium shall end by itself."""

LOAD_CRASH_SECONDS: Final = 10.0
"""A browser that dies so soon after its last page was opened again starts without it the next time."""

_KEEP_SECONDS: Final = 0.25
_STDERR_TAIL: Final = 2000


class Browser:
    """A Chromium that may or may not run. `on_change` is called when anything that a viewer sees changes."""

    def __init__(
        self,
        settings: Settings,
        nursery: trio.Nursery,
        *,
        on_change: Callable[[], None],
        on_frame: Callable[[bytes], None],
        on_event: Callable[[str, dict[str, Any]], None],
        on_error: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self._nursery = nursery
        self._on_change = on_change
        self._on_frame = on_frame
        self._on_event = on_event
        self._on_error = on_error
        self._starting = trio.Lock()
        self._live: _Live | None = None
        self.state: State = "stopped"
        self.last_error: str | None = None
        self.last_page_at: float | None = None
        self.version: str | None = None
        self.viewport = (1280, 720)
        self.device_scale_factor = 1.0
        self.colours: str | None = None
        self._last_page = LastPage(settings.profile)
        self._moved = trio.Event()  # the page may be another one than was kept
        self._last_url: str | None = None
        self._reason: str | None = None  # why a page's process is being ended
        self._distrusted = False  # the last URL may be what Chromium dies of

    @property
    def pid(self) -> int | None:
        """Chromium's process."""
        return self._live.chromium.pid if self._live is not None else None

    @property
    def sandboxed(self) -> bool | None:
        """Whether Chromium has a sandbox of its own."""
        return self._live.chromium.sandboxed if self._live is not None else None

    @property
    def tabs(self) -> Tabs | None:
        """The tabs of a Chromium that runs."""
        return self._live.tabs if self._live is not None else None

    @property
    def tab(self) -> Tab | None:
        """The active tab of a Chromium that runs."""
        return self._live.tabs.active if self._live is not None and self.state == "running" else None

    @property
    def devtools(self) -> DevTools:
        """The connection to a Chromium that runs. Raises Failed when none does."""
        if self._live is None:
            raise Failed("crashed", self.last_error or "the browser doesn't run")
        return self._live.devtools

    async def use(self, *, back: bool = True) -> Tab:
        """Return the active tab, with everything started or loaded again that is needed. Raises Failed.

        A browser that is started goes `back` to its last page.
        """
        async with self._starting:
            url = None
            if self.state != "running":
                await self._start()
                url = self._take_page()
            live = self._live
            if live is None:
                raise Failed("crashed", self.last_error or "the browser ended as it started")
            if live.tabs.active is None:
                live.tabs.appeared = trio.Event()
                await live.devtools.call("Target.createTarget", {"url": "about:blank"})
                with trio.move_on_after(START_SECONDS):
                    await live.tabs.appeared.wait()
            tab = live.tabs.active
            if tab is None:
                raise Failed("failed", "Chromium opens no tab")
            with trio.move_on_after(START_SECONDS):
                await tab.ready.wait()
            if back and url is not None:
                live.came_back_at = time.monotonic()
                self._nursery.start_soon(self._keep_later)
                tab.come_back("Page.navigate", {"url": url})
            if tab.crashed is not None:
                tab.crashed, tab.crash_told = None, False
                tab.come_back("Page.reload", {})
            return tab

    async def set_viewport(self, width: int, height: int, scale: float = 1.0) -> None:
        """Give every page this size, in CSS pixels, now and later."""
        self.viewport = (width, height)
        self.device_scale_factor = scale
        await self._prepare()

    async def set_colours(self, scheme: str) -> None:
        """Have pages see that their reader prefers light or dark, now and later."""
        self.colours = scheme
        await self._prepare()

    async def _prepare(self) -> None:
        live = self._live
        if live is None:
            return
        live.tabs.prepare = self._preparation()
        for tab in list(live.tabs.all):
            for method, parameters in live.tabs.prepare:
                tab.post(method, parameters)
        self._on_change()

    def _preparation(self) -> list[tuple[str, Any]]:
        width, height = self.viewport
        scale = self.device_scale_factor
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        calls: list[tuple[str, Any]] = [("Emulation.setDeviceMetricsOverride", metrics)]
        if self.colours is not None:
            features = [{"name": "prefers-color-scheme", "value": self.colours}]
            calls.append(("Emulation.setEmulatedMedia", {"features": features}))
        return calls

    async def close(self) -> None:
        """End Chromium; fine when it doesn't run."""
        async with self._starting:
            live = self._live
            if live is not None:
                self._keep_page(orderly=True)
                live.ending = True
                await self._farewell(live)
                live.scope.cancel()
                await live.ended.wait()
            self._last_url = None
            self._become("stopped")

    def forget(self) -> None:
        """Come back to no page."""
        self._last_page.forget()

    async def _farewell(self, live: _Live) -> None:
        """Have Chromium write its cookies and end: at a signal it ends without."""
        with trio.move_on_after(FAREWELL_SECONDS, shield=True):
            try:
                await live.devtools.call("Browser.close")
                await live.ended.wait()
            except Failed:
                pass  # it is ended with signals, whatever it says

    async def _start(self) -> None:
        if self._live is not None:
            await self._live.ended.wait()
        self._become("starting")
        try:
            sandboxed = await trio.to_thread.run_sync(can_sandbox)
            chromium = Chromium.start(self.settings, sandboxed=sandboxed, size=self.viewport)
            live = self._live = _Live(chromium, self)
            self._nursery.start_soon(self._run, live)
            with trio.move_on_after(START_SECONDS) as scope:
                await self._greet(live)
            if scope.cancelled_caught:
                live.scope.cancel()
                raise Failed("no_browser", f"Chromium did not answer within {START_SECONDS:.0f} s")
        except Failed as error:
            if self._live is not None:
                with trio.CancelScope(shield=True):
                    await self._live.ended.wait()
                error = Failed("no_browser", self.last_error or str(error))
            self.last_error = str(error)
            self._become("stopped")
            raise error from None
        self._become("running")

    def _take_page(self) -> str | None:
        """Return the last page, where it isn't one that a browser may die of."""
        kept = self._last_page.take()
        url, self._last_url = self._last_url or kept, None
        return url if not self._distrusted else None

    async def keep_pages(self) -> None:
        """Keep each page for the next browser, for ever: pages may change their address all the time."""
        while True:
            await self._moved.wait()
            self._moved = trio.Event()
            self._keep_page()
            await trio.sleep(_KEEP_SECONDS)

    async def _keep_later(self) -> None:
        await trio.sleep(LOAD_CRASH_SECONDS)
        self._moved.set()

    def _keep_page(self, *, orderly: bool = False) -> None:
        """Keep the page for the next browser, unless this one may yet die of it other than `orderly`."""
        live, tab = self._live, self.tab
        if live is None or live.ending or tab is None or tab.closed:
            return
        if orderly or time.monotonic() - live.came_back_at >= LOAD_CRASH_SECONDS:
            self._last_page.keep(tab.url)

    async def _greet(self, live: _Live) -> None:
        version = await live.devtools.call("Browser.getVersion")
        self.version = version.get("product")
        self._on_event("oqto.started", {})
        await live.tabs.attach()
        for extension in self.settings.extensions:
            try:
                await live.devtools.call("Extensions.loadUnpacked", {"path": os.path.realpath(extension)})
            except Failed as error:
                self._on_error(f"the extension {extension} can't be loaded: {error}")

    async def _run(self, live: _Live) -> None:
        """Watch one Chromium from its start to its end."""
        outcome = ""
        try:
            with live.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(live.devtools.run)
                    nursery.start_soon(live.collect_stderr)
                    outcome = await live.chromium.watch()
                    nursery.cancel_scope.cancel()
        finally:
            await live.chromium.end()
            live.closed()
        tab = live.tabs.active
        if tab is not None and tab.url not in ("", "about:blank"):
            self._last_url = tab.url
        self._distrusted = time.monotonic() - live.came_back_at < LOAD_CRASH_SECONDS
        for each in live.tabs.all:
            each.closed = True
            each.touch()
        self._live = None
        if not live.ending:
            said = live.stderr() if self.state == "starting" else ""
            self.last_error = f"Chromium {outcome or 'did not start'}{': ' + said if said else ''}"
            self._become("crashed")
            self._on_error(f"{self.last_error}; the next use starts it again")
        live.ended.set()

    def _become(self, state: State) -> None:
        self.state = state
        self._on_change()

    def handle(self, method: str, parameters: dict[str, Any], session: str | None) -> None:
        """Take an event of Chromium."""
        if self._live is not None:
            self._live.tabs.handle(method, parameters, session)
            if method == "Page.frameNavigated":
                self.last_page_at = time.time()
            if method == "Target.targetCrashed":
                self._page_crashed()
            if session is None:
                self._on_event(method, parameters)

    @property
    def page_memory(self) -> int:
        """Bytes that one process of pages may take."""
        return self.settings.page_memory

    def page_ended(self, reason: str) -> None:
        """A page's process is about to be ended, for this reason."""
        self._reason = reason

    def _page_crashed(self) -> None:
        for tab in self._live.tabs.all if self._live is not None else ():
            if tab.crashed is not None and not tab.crash_told:
                tab.crash_told = True
                tab.crashed, self._reason = self._reason or tab.crashed, None
                self.last_error = tab.crashed
                self._on_error(tab.crashed)

    def frame(self, message: bytes) -> None:
        """Take a frame of the screencast."""
        self._on_frame(message)

    def changed(self) -> None:
        """Something about the tabs has changed."""
        self._moved.set()
        self._on_change()


class _Live:
    """A Chromium that runs, and what belongs to it."""

    def __init__(self, chromium: Chromium, browser: Browser) -> None:
        self.chromium = chromium
        self.devtools = DevTools(
            chromium.pipes.reader, chromium.pipes.writer, on_event=browser.handle, on_frame=browser.frame
        )
        self.tabs = Tabs(self.devtools, on_change=browser.changed, prepare=browser._preparation())
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.ending = False
        self.came_back_at = -math.inf
        """When the page of the Chromium before was loaded again."""
        self._stderr: deque[bytes] = deque(maxlen=4)

    async def collect_stderr(self) -> None:
        """Keep the last of what Chromium says, which is the only explanation of some failures."""
        while True:
            await trio.lowlevel.wait_readable(self.chromium.pipes.stderr)
            data = os.read(self.chromium.pipes.stderr, 4096)
            if not data:
                return
            self._stderr.append(data)

    def stderr(self) -> str:
        """The end of what Chromium has said, without its remarks about the bus that a sandbox hasn't got."""
        lines = b"".join(self._stderr).decode(errors="replace").splitlines()
        return " / ".join(line for line in lines if "/bus" not in line and "dbus" not in line)[-_STDERR_TAIL:]

    def closed(self) -> None:
        """Close what is left open."""
        os.close(self.chromium.pipes.stderr)
