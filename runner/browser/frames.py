"""The frames of a tab, and our functions (`page.js`) in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runner.browser.errors import Failed
from runner.browser.tab import FrameSession, Tab

_SOURCE: Final = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
_WORLD: Final = "oqto"
_OF_PAGE: Final = f"function(name, ...rest) {{ const page = {_SOURCE}; return page[name](...rest); }}"
_OF_ELEMENT: Final = (
    f"function(name, ...rest) {{ const page = {_SOURCE}; return page[name](this, ...rest); }}"
)

GROUP: Final = "oqto"
"""Of the objects that commands hold in pages; let go of after each."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A document in a tab: its frame's id, and the session that it is driven by."""

    tab: Tab
    session: FrameSession
    id: str
    parent: str | None

    async def world(self) -> int:
        """Return our isolated world in it. Raises Failed when the frame has gone."""
        made = await self.tab.call(
            "Page.createIsolatedWorld", {"frameId": self.id, "worldName": _WORLD}, self.session.id
        )
        context: int = made["executionContextId"]
        return context

    async def call(self, name: str, *arguments: Any, by_value: bool = True) -> dict[str, Any]:
        """Call a function of page.js; return its result as the protocol shows it. Raises Failed."""
        return await self._call(
            _OF_PAGE, {"executionContextId": await self.world()}, name, arguments, by_value
        )

    async def _call(
        self, function: str, where: dict[str, Any], name: str, arguments: tuple[Any, ...], by_value: bool
    ) -> dict[str, Any]:
        parameters = {
            "functionDeclaration": function,
            "arguments": [{"value": value} for value in (name, *arguments)],
            "returnByValue": by_value,
            "awaitPromise": True,
            "userGesture": True,
            "objectGroup": GROUP,
            **where,
        }
        answer = await self.tab.call("Runtime.callFunctionOn", parameters, self.session.id)
        if (wrong := answer.get("exceptionDetails")) is not None:
            raise Failed("script", exception_text(wrong))
        result: dict[str, Any] = answer["result"]
        return result


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a page that a command is about. `asked` is how it was asked for."""

    frame: Frame
    object: str
    asked: str

    async def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of page.js about the element; return its value. Raises Failed."""
        where = {"objectId": self.object}
        return (await self.frame._call(_OF_ELEMENT, where, name, arguments, True)).get("value")

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol about the element. Raises Failed."""
        tab = self.frame.tab
        return await tab.call(method, {"objectId": self.object, **parameters}, self.frame.session.id)

    async def middle(self) -> tuple[float, float]:
        """Return the middle of its first visible part, in CSS pixels of the tab's viewport. Raises Failed."""
        quads = (await self.ask("DOM.getContentQuads")).get("quads", [])
        for quad in quads:
            xs, ys = quad[0::2], quad[1::2]
            if max(xs) - min(xs) >= 1 and max(ys) - min(ys) >= 1:
                left, top = await _offset(self.frame.tab, self.frame.session)
                return left + sum(xs) / 4, top + sum(ys) / 4
        raise Failed("not_ready", f"{self.asked}: it has no visible part")


async def frames(tab: Tab) -> list[Frame]:
    """Return the tab's frames, the main one first. Raises Failed, DialogOpened."""
    found: list[Frame] = []
    for session in list(tab.session.walk()):
        try:
            tree = (await tab.call("Page.getFrameTree", session=session.id))["frameTree"]
        except Failed:
            if session.parent is None:
                raise
            continue  # it has gone meanwhile
        _collect(tab, session, tree, found)
    return found


def _collect(tab: Tab, session: FrameSession, tree: dict[str, Any], found: list[Frame]) -> None:
    frame = tree["frame"]
    known = {each.id for each in found}
    if frame["id"] not in known:
        found.append(Frame(tab, session, frame["id"], frame.get("parentId")))
    for child in tree.get("childFrames", ()):
        _collect(tab, session, child, found)


async def matching(frame: Frame, kind: str, what: str) -> Element | None:
    """Return what a frame has, of kind "selector" or "text". Raises Failed for a selector that is none."""
    try:
        result = await frame.call("find", kind, what, by_value=False)
    except Failed as error:
        if error.code == "script" and "is not a valid selector" in str(error):
            raise Failed("usage", f"{what!r} is not a valid selector") from None
        if error.code in ("crashed", "timeout"):
            raise
        return None  # the frame has gone, or is going
    return Element(frame, result["objectId"], what) if "objectId" in result else None


async def _offset(tab: Tab, session: FrameSession) -> tuple[float, float]:
    """Where the documents of a session begin, in the tab's viewport: frames in a process of their own."""
    left = top = 0.0
    while session.parent is not None:
        parent = session.parent
        owner = await tab.call("DOM.getFrameOwner", {"frameId": session.target}, parent.id)
        box = await tab.call("DOM.getBoxModel", {"backendNodeId": owner["backendNodeId"]}, parent.id)
        left += box["model"]["content"][0]
        top += box["model"]["content"][1]
        session = parent
    return left, top


def exception_text(details: dict[str, Any]) -> str:
    """What a script failed with, in one line or few."""
    thrown = details.get("exception", {})
    text = thrown.get("description") or thrown.get("value") or details.get("text", "it failed")
    return str(text).split("\n    at ", 1)[0][:2000]
