"""The daemon of a session: its browser, who watches it, and when it was last of use."""

from __future__ import annotations

import time
from typing import Any

import trio

from runner.browser import clipboard, commands
from runner.browser import input as messages
from runner.browser.browser import Browser
from runner.browser.downloads import Downloads
from runner.browser.errors import Failed
from runner.browser.memory import watch_memory
from runner.browser.screencast import Frame, Screencast
from runner.browser.settings import Settings
from runner.browser.tab import Dialog, Tab
from runner.browser.viewer import Viewer

_MAX_INPUT = 64
"""Input events that Chromium has not taken yet, after which a viewer's next ones wait."""

_INPUT_SECONDS = 5.0


class Daemon:
    """One session's browser, as viewers and commands see it."""

    def __init__(self, settings: Settings, nursery: trio.Nursery) -> None:
        self.settings = settings
        self.closing = False
        """A command has closed the browser, and the daemon ends with it."""
        self.viewers: set[Viewer] = set()
        self.screencast = Screencast(nursery, wake=self._wake_viewers)
        self.downloads = Downloads(settings, tell=self._tell)
        self.browser = Browser(
            settings,
            nursery,
            on_change=self._changed,
            on_frame=self.screencast.arrived,
            on_event=self._event,
            on_error=self._error,
        )
        self._nursery = nursery
        self._said: dict[str, Any] = {}
        self._dialog: Dialog | None = None
        self._inputs = 0
        self._inputs_taken = trio.Event()
        self._started_at = time.time()
        self._last_viewer_at: float | None = None
        self._last_input_at: float | None = None
        self._last_command_at: float | None = None
        nursery.start_soon(watch_memory, self.browser)
        nursery.start_soon(self.browser.keep_pages)

    # --- commands -----------------------------------------------------------------------------------------

    async def command(self, arguments: list[str], seconds: float, *, person: bool = False) -> dict[str, Any]:
        """Carry out a command of an agent, or of a person; return its answer.

        An agent is told that a person has used the page since the agent's last command.
        """
        if arguments == ["status"]:
            return {"success": True, "data": self.status()}
        before = self._last_command_at
        self._used(person=person)
        answer: dict[str, Any]
        try:
            answer = {"success": True, "data": await commands.run(self, arguments, seconds)}
        except Failed as error:
            answer = {"success": False, "error": str(error), "code": error.code}
        finally:
            acted_at = self._last_input_at
            self._used(person=person)
        if not person and before is not None and acted_at is not None and acted_at > before:
            answer["person"] = {"seconds_ago": round(time.time() - acted_at, 1), "viewers": len(self.viewers)}
        return answer

    def _used(self, *, person: bool) -> None:
        """Somebody does something."""
        if person:
            self._last_input_at = time.time()
        else:
            self._last_command_at = time.time()
        self._changed()

    def status(self) -> dict[str, Any]:
        """The data of the command `status`."""
        now = time.time()
        if self.viewers:
            self._last_viewer_at = now
        used = [self._last_viewer_at, self._last_input_at, self._last_command_at, self._started_at]
        tab, tabs = self.browser.tab, self.browser.tabs
        dialog = tab.dialog if tab is not None else None
        return {
            "running": True,
            "browser": self.browser.state,
            "pid": self.browser.pid,
            "version": self.browser.version,
            "headed": self.settings.headed,
            "chromium_sandbox": self.browser.sandboxed,
            "url": tab.url if tab is not None else None,
            "title": tab.title if tab is not None else None,
            "viewport": self.browser.viewport,
            "tabs": len(tabs.all) if tabs is not None else 0,
            "viewers": len(self.viewers),
            "screencasting": self.screencast.running,
            "dialog": {"kind": dialog.kind, "message": dialog.message} if dialog is not None else None,
            "last_error": self.browser.last_error,
            "stream_port": self.settings.stream_port or None,
            "started_at": self._started_at,
            "last_viewer_at": self._last_viewer_at,
            "last_input_at": self._last_input_at,
            "last_command_at": self._last_command_at,
            "last_page_at": self.browser.last_page_at,
            "idle_seconds": round(now - max(at for at in used if at is not None), 3),
        }

    async def end(self) -> None:
        """End Chromium, with the daemon; the next one comes back to its page."""
        await self.browser.close()

    async def close(self) -> None:
        """End Chromium for good, and the daemon too where it was started by a client."""
        await self.browser.close()
        self.browser.forget()
        if self.settings.ends_on_close:
            # Whoever comes from now on starts another daemon.
            self.settings.socket.unlink(missing_ok=True)
            self.closing = True

    # --- viewers ------------------------------------------------------------------------------------------

    @property
    def latest(self) -> Frame | None:
        """The newest frame."""
        return self.screencast.latest

    async def serve_viewer(self, stream: trio.SocketStream, received: bytes) -> None:
        """Serve a viewer to its end."""
        viewer = Viewer(stream, received, self)
        self.viewers.add(viewer)
        self._last_viewer_at = time.time()
        self.screencast.watch(watched=True)
        viewer.tell(self._news())
        self._nursery.start_soon(self._use, viewer)
        if self._dialog is not None:
            viewer.tell(_dialog_message(self._dialog))
        try:
            await viewer.run()
        finally:
            self._last_viewer_at = time.time()
            self.viewers.discard(viewer)
            self.screencast.left(viewer)
            self.screencast.watch(watched=bool(self.viewers))

    async def _use(self, viewer: Viewer) -> Tab | None:
        """Have the browser run for a viewer; tell the viewer why it doesn't."""
        try:
            return await self.browser.use()
        except Failed as error:
            viewer.tell({"type": "error", "message": str(error)})
            return None

    def taken(self, viewer: Viewer, frame: Frame) -> None:
        """A viewer takes the latest frame."""
        self.screencast.taken()

    def shown(self, viewer: Viewer, seconds: float) -> None:
        """A viewer has a frame, and took so much longer for it than at best."""
        self.screencast.shown(viewer, seconds)

    async def message(self, viewer: Viewer, message: messages.Message) -> None:
        """Carry out what a viewer sent."""
        if isinstance(message, messages.AskStatus):
            viewer.tell(self._news())
            return
        self._last_input_at = time.time()
        tab = await self._use(viewer)
        if tab is None:
            return
        try:
            with trio.move_on_after(_INPUT_SECONDS):
                await self._carry_out(viewer, tab, message)
        except Failed as error:
            viewer.tell({"type": "error", "message": str(error)})

    async def _carry_out(self, viewer: Viewer, tab: Tab, message: messages.Message) -> None:
        if isinstance(message, messages.AnswerDialog):
            if tab.dialog is not None:
                answer = {"accept": message.accept}
                tab.post("Page.handleJavaScriptDialog", answer | _prompt(message.text))
        elif isinstance(message, messages.Viewport):
            await self.set_viewport(message.width, message.height, message.device_scale_factor)
        elif tab.dialog is not None:
            return  # as behind any modal dialog
        elif isinstance(message, messages.Clipboard):
            text = await clipboard.carry_out(tab, message)
            if text is not None:
                viewer.tell({"type": "clipboard", "text": text})
        elif (call := messages.call(message)) is not None:
            while self._inputs >= _MAX_INPUT:
                await self._inputs_taken.wait()
            self._inputs += 1
            tab.post(*call, done=self._input_taken)

    def _input_taken(self, _: dict[str, Any] | None) -> None:
        self._inputs -= 1
        self._inputs_taken.set()
        self._inputs_taken = trio.Event()

    async def set_viewport(self, width: int, height: int, scale: float = 1.0) -> None:
        """Resize every page."""
        await self.browser.set_viewport(width, height, scale)
        self.screencast.resize(round(width * scale), round(height * scale))

    # --- news ---------------------------------------------------------------------------------------------

    def _news(self) -> dict[str, Any]:
        tab = self.browser.tab
        width, height = self.browser.viewport
        return {
            "type": "status",
            "connected": self.browser.state == "running",
            "screencasting": self.screencast.running,
            "viewportWidth": width,
            "viewportHeight": height,
            "browser": self.browser.state,
            "url": tab.url if tab is not None else "",
            "title": tab.title if tab is not None else "",
            "lastCommandAt": self._last_command_at,
        }

    def _changed(self) -> None:
        tab = self.browser.tab
        if self.browser.state in ("stopped", "crashed"):
            self.screencast.lost()
        else:
            self.screencast.follow(tab)
        dialog = tab.dialog if tab is not None else None
        if dialog is not self._dialog:
            self._dialog = dialog
            self._tell({"type": "dialog_closed"} if dialog is None else _dialog_message(dialog))
        news = self._news()
        if news != self._said:
            self._said = news
            self._tell(news)

    def _event(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "oqto.started":
            self.downloads.begin(self.browser.devtools)
        else:
            self.downloads.handle(method, parameters)

    def _error(self, text: str) -> None:
        self._tell({"type": "error", "message": text})

    def _tell(self, message: dict[str, Any]) -> None:
        for viewer in self.viewers:
            viewer.tell(message)

    def _wake_viewers(self) -> None:
        for viewer in self.viewers:
            viewer.wake()


def _dialog_message(dialog: Dialog) -> dict[str, Any]:
    return {"type": "dialog", "kind": dialog.kind, "message": dialog.message, "default": dialog.default}


def _prompt(text: str | None) -> dict[str, str]:
    return {} if text is None else {"promptText": text}
