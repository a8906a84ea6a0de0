"""What commands do with elements: find them, wait until they can be acted on, act."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import trio

from runner.browser import input as messages
from runner.browser.errors import Failed
from runner.browser.frames import GROUP, Element, frames, matching
from runner.browser.input import ALT, CONTROL, META, SHIFT
from runner.browser.snapshot import resolve
from runner.browser.tab import Tab

T = TypeVar("T")

POLL_SECONDS: Final = 0.1
"""Between two looks for an element that isn't there, or isn't ready."""

_SETTLE_SECONDS: Final = 10.0
_MODIFIERS: Final = {
    "Alt": ALT,
    "Control": CONTROL,
    "Ctrl": CONTROL,
    "Meta": META,
    "Command": META,
    "Shift": SHIFT,
}
_TYPED_AS_KEYS: Final = 2000
"""Characters; what is longer is pasted."""


class Target:
    """An element as a command names it, looked for again until it can be used or the time is up."""

    def __init__(self, tab: Tab, asked: str) -> None:
        self.tab = tab
        self.asked = asked
        self.problem = Failed("timeout", f"the page is too busy to say whether an element matches {asked!r}")

    async def now(self) -> Element | None:
        """Return the element if it is there. Raises Failed, DialogOpened."""
        if self.asked.startswith("@"):
            return await resolve(self.tab, self.asked)
        kind, what = ("text", self.asked[5:]) if self.asked.startswith("text=") else ("selector", self.asked)
        first: Element | None = None
        for frame in await frames(self.tab):
            element = await matching(frame, kind, what)
            if element is not None and (await element.call("state"))["visible"]:
                return element
            first = first or element
        return first

    async def present(self) -> Element:
        """Wait until the element is there. Raises Failed, DialogOpened."""
        return await self._until(self._once_present)

    async def ready(self, *, for_text: bool = False, uncovered: bool = False) -> tuple[Element, Any]:
        """Wait until the element can be acted on; return it and its state. Raises Failed, DialogOpened."""

        async def once() -> tuple[Element, Any] | None:
            element = await self._once_present()
            if element is None:
                return None
            state = await element.call("state")
            problem = _problem(state, for_text=for_text)
            if problem is None:
                await element.ask("DOM.scrollIntoViewIfNeeded")
                over = await element.call("covered") if uncovered else None
                problem = over and f"it is covered by {over}"
            if problem is not None:
                self.problem = Failed("not_ready", f"{self.asked} ({state['said']}): {problem}")
                return None
            return element, state

        return await self._until(once)

    async def visible(self) -> Element:
        """Wait until the element can be seen. Raises Failed, DialogOpened."""

        async def once() -> Element | None:
            element = await self._once_present()
            if element is not None and not (await element.call("state"))["visible"]:
                self.problem = Failed("not_ready", f"{self.asked}: it is not visible")
                return None
            return element

        return await self._until(once)

    async def _once_present(self) -> Element | None:
        element = await self.now()
        if element is None:
            self.problem = Failed("not_found", f"no element matches {self.asked!r}")
        return element

    async def _until(self, once: Callable[[], Awaitable[T | None]]) -> T:
        # A little before the command's own time is up: what kept it from being done is more use than that.
        began, deadline = trio.current_time(), trio.current_effective_deadline()
        with trio.move_on_at(deadline - min(POLL_SECONDS, (deadline - began) / 2)):
            while True:
                try:
                    if (result := await once()) is not None:
                        return result
                except Failed as error:
                    # What was found is gone again: a page that is drawn anew, a frame that navigates.
                    if error.code != "failed":
                        raise
                    self.problem = error
                await trio.sleep(POLL_SECONDS)
        raise Failed(self.problem.code, f"{self.problem}, after {trio.current_time() - began:.1f} s")


def _problem(state: Any, *, for_text: bool) -> str | None:
    if not state["connected"]:
        return "it has just been removed"
    if not state["visible"]:
        return "it is not visible"
    if state["disabled"]:
        return "it is disabled"
    if for_text and state["readOnly"]:
        return "it is read-only"
    return None


async def click(tab: Tab, asked: str, *, button: str = "left", count: int = 1) -> dict[str, Any]:
    """Click on an element. Raises Failed, DialogOpened."""
    before = tab.navigations
    element, _ = await Target(tab, asked).ready(uncovered=True)
    await _click(element, button, count)
    return await settled(tab, before)


async def _click(element: Element, button: str = "left", count: int = 1) -> None:
    x, y = await element.middle()
    events: list[dict[str, Any]] = [{"type": "mouseMoved", "button": "none"}]
    for number in range(1, count + 1):
        for kind in ("mousePressed", "mouseReleased"):
            events.append({"type": kind, "button": button, "clickCount": number})
    where = {"x": x, "y": y}
    await element.frame.tab.sequence([("Input.dispatchMouseEvent", event | where) for event in events])


async def hover(tab: Tab, asked: str) -> dict[str, Any]:
    """Move the mouse over an element. Raises Failed, DialogOpened."""
    element, _ = await Target(tab, asked).ready()
    x, y = await element.middle()
    await tab.call("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
    return {}


async def fill(tab: Tab, asked: str, text: str) -> dict[str, Any]:
    """Replace what is in a field. Raises Failed, DialogOpened."""
    element, state = await Target(tab, asked).ready(for_text=True)
    if state["kind"] in ("checkbox", "radio", "file", "submit", "button", "select"):
        raise Failed("not_ready", f"{asked} ({state['said']}) takes no text")
    if await element.call("startFilling", text):
        return {}
    if text:
        await tab.call("Input.insertText", {"text": text})
    else:
        await tab.sequence(_key("Delete", 0))
    return {}


async def type_text(tab: Tab, asked: str, text: str) -> dict[str, Any]:
    """Type at the end of what is in a field, key by key. Raises Failed, DialogOpened."""
    before = tab.navigations
    element, _ = await Target(tab, asked).ready(for_text=True)
    await element.call("focus")
    if len(text) > _TYPED_AS_KEYS:
        await tab.call("Input.insertText", {"text": text})
        return {}
    for character in text:
        await tab.sequence(_key("Enter" if character == "\n" else character, 0))
    return await settled(tab, before)


async def press(tab: Tab, combination: str) -> dict[str, Any]:
    """Press a key, like `a`, `Enter` or `Control+Shift+ArrowLeft`. Raises Failed, DialogOpened."""
    *held, key = combination.split("+") if combination not in ("+", " ") else [combination]
    if not key:  # Control++
        held, key = held[:-1], "+"
    modifiers = 0
    for name in held:
        if name not in _MODIFIERS:
            raise Failed("usage", f"{name!r} is no modifier; there are {', '.join(_MODIFIERS)}")
        modifiers |= _MODIFIERS[name]
    if len(key) > 1 and key not in messages.KEY_CODES:
        raise Failed("usage", f"{key!r} is no key; give a character, or {', '.join(messages.KEY_CODES)}")
    before = tab.navigations
    await tab.sequence(_key(key, modifiers))
    return await settled(tab, before)


def _key(key: str, modifiers: int) -> list[tuple[str, dict[str, Any]]]:
    text = key if len(key) == 1 and not modifiers & (ALT | CONTROL | META) else None
    code = f"Key{key.upper()}" if len(key) == 1 and key.isascii() and key.isalpha() else None
    if len(key) == 1 and key.isascii() and key.isdecimal():
        code = f"Digit{key}"
    if code is None and len(key) > 1:
        code = key
    down = messages.Keyboard(event_type="keyDown", key=key, code=code, text=text, modifiers=modifiers)
    up = messages.Keyboard(event_type="keyUp", key=key, code=code, modifiers=modifiers)
    return [call for event in (down, up) if (call := messages.call(event)) is not None]


async def check(tab: Tab, asked: str, *, wanted: bool) -> dict[str, Any]:
    """Have a box checked or not. Raises Failed, DialogOpened."""
    element, state = await Target(tab, asked).ready()
    if state["checked"] is not wanted:
        element, _ = await Target(tab, asked).ready(uncovered=True)
        await _click(element)
        if (await element.call("state"))["checked"] is not wanted:
            raise Failed("not_ready", f"{asked} ({state['said']}) was clicked, and did not change")
    return {"checked": wanted}


async def select(tab: Tab, asked: str, values: list[str]) -> dict[str, Any]:
    """Select options by value or label. Raises Failed, DialogOpened."""
    element, state = await Target(tab, asked).ready()
    selected = await element.call("choose", values)
    if selected is None:
        raise Failed("not_found", f"{asked} ({state['said']}) has not all of the options {', '.join(values)}")
    return {"selected": selected}


async def upload(tab: Tab, asked: str, files: list[str]) -> dict[str, Any]:
    """Choose files in a file field. Raises Failed, DialogOpened."""
    for file in files:
        if not os.access(file, os.R_OK):
            raise Failed(
                "not_found",
                f"the browser can't read {file}; its sandbox shows the workspace, so put the file there",
            )
    element = await Target(tab, asked).present()
    state = await element.call("state")
    if state["kind"] != "file":
        raise Failed("not_ready", f"{asked} ({state['said']}) is no file field")
    await element.ask("DOM.setFileInputFiles", files=files)
    return {"files": files}


async def get(tab: Tab, what: str, asked: str, name: str | None = None) -> dict[str, Any]:
    """Return an element's text, HTML, value or attribute. Raises Failed, DialogOpened."""
    element = await Target(tab, asked).present()
    return {"value": await element.call("get", what, name)}


async def scroll(tab: Tab, way: str, pixels: int) -> dict[str, Any]:
    """Scroll the page. Raises Failed, DialogOpened."""
    x, y = {"up": (0, -pixels), "down": (0, pixels), "left": (-pixels, 0), "right": (pixels, 0)}[way]
    await tab.call("Runtime.evaluate", {"expression": f"scrollBy({x}, {y})"})
    return {}


async def scroll_to(tab: Tab, asked: str) -> dict[str, Any]:
    """Scroll an element into view. Raises Failed, DialogOpened."""
    element = await Target(tab, asked).present()
    await element.ask("DOM.scrollIntoViewIfNeeded")
    return {}


async def has_text(tab: Tab, text: str) -> bool:
    """Say whether the text stands anywhere in the tab. Raises Failed, DialogOpened."""
    for frame in await frames(tab):
        try:
            if (await frame.call("hasText", text)).get("value"):
                return True
        except Failed as error:
            if error.code != "failed":
                raise
    return False


async def settled(tab: Tab, before: int) -> dict[str, Any]:
    """Wait for the page that what was done leads to, if it does; return where the tab is then, if it moved.

    `before` is the tab's `navigations` from before that.
    """
    # An answer after the event's: had that begun a navigation, Chromium would have said so by now.
    replaced = False
    try:
        await tab.call("Runtime.evaluate", {"expression": "0"})
    except Failed as error:
        if error.code != "failed":
            raise
        replaced = True  # another page came in the middle of the question, which is an answer too
    if not replaced and not tab.leaving and tab.navigations == before:
        return {}
    with trio.move_on_after(_SETTLE_SECONDS):
        if replaced:
            await tab.until(lambda: tab.navigations != before)
        await tab.until(lambda: not tab.leaving and not tab.loading)
    return {"url": tab.url}


def let_go(tab: Tab) -> None:
    """Release what commands held in the page."""
    for session in tab.session.walk():
        tab.post("Runtime.releaseObjectGroup", {"objectGroup": GROUP}, session=session.id)
