"""The accessibility tree of a tab as text, with references that commands accept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from runner.browser.errors import Failed
from runner.browser.frames import GROUP, Element, Frame, frames
from runner.browser.tab import Reference, Tab

LARGEST: Final = 200_000
"""Characters of a snapshot; what comes after is left out, and said so."""

_MAX_NAME: Final = 300
_ACTED_ON: Final = {
    *("button", "link", "textbox", "searchbox", "checkbox", "radio", "combobox", "listbox", "option"),
    *("menuitem", "menuitemcheckbox", "menuitemradio", "tab", "switch", "slider", "spinbutton", "treeitem"),
    *("DisclosureTriangle", "Date", "DateTime", "InputTime", "ColorWell", "PopUpButton", "MenuListPopup"),
}
_PASSED_OVER: Final = {
    *("generic", "none", "presentation", "InlineTextBox", "LineBreak", "RootWebArea", "Iframe", "group"),
    *("ListMarker", "LayoutTable", "LayoutTableRow", "LayoutTableCell", "IframePresentational"),
}
_PROPERTIES: Final = (
    "level",
    "checked",
    "pressed",
    "selected",
    "expanded",
    "disabled",
    "required",
    "readonly",
)


async def snapshot(tab: Tab, *, only_acted_on: bool) -> dict[str, Any]:
    """Return the tab's tree. References of the last snapshot end with it. Raises Failed, DialogOpened."""
    tab.references.clear()
    trees: dict[str, _Tree] = {}
    owners: dict[tuple[str, int], str] = {}
    for frame in await frames(tab):
        try:
            nodes = await tab.call("Accessibility.getFullAXTree", {"frameId": frame.id}, frame.session.id)
            if trees and (owner := await _owner(tab, frame)) is not None:
                owners[owner] = frame.id
        except Failed as error:
            if not trees or error.code in ("crashed", "timeout"):
                raise
            continue  # the frame has gone meanwhile
        trees[frame.id] = _Tree(frame, nodes["nodes"])
    writer = _Writer(tab, trees, owners, only_acted_on=only_acted_on)
    text = writer.text(next(iter(trees)))
    return {"snapshot": text, "url": tab.url, "title": tab.title, "refs": len(tab.references)}


async def resolve(tab: Tab, asked: str) -> Element:
    """Return the element of a reference. Raises Failed when it isn't there any more."""
    reference = tab.references.get(asked.removeprefix("@"))
    stale = Failed("not_found", f"{asked} is not, or no longer, on the page; take a new snapshot")
    if reference is None:
        raise stale
    frame = next((frame for frame in await frames(tab) if frame.id == reference.frame), None)
    if frame is None:
        raise stale
    where = {
        "backendNodeId": reference.node,
        "executionContextId": await frame.world(),
        "objectGroup": GROUP,
    }
    try:
        found = await tab.call("DOM.resolveNode", where, frame.session.id)
    except Failed as error:
        if error.code == "failed":
            raise stale from None
        raise
    return Element(frame, found["object"]["objectId"], asked)


async def _owner(tab: Tab, frame: Frame) -> tuple[str, int] | None:
    """The session, and in it the node, of the element that a frame is shown in."""
    session = frame.session
    if frame.id == session.target:
        if session.parent is None:
            return None
        session = session.parent
    found = await tab.call("DOM.getFrameOwner", {"frameId": frame.id}, session.id)
    return session.id, found["backendNodeId"]


class _Tree:
    def __init__(self, frame: Frame, nodes: list[dict[str, Any]]) -> None:
        self.frame = frame
        self.nodes = {node["nodeId"]: node for node in nodes}
        self.root = nodes[0]


class _Writer:
    def __init__(
        self,
        tab: Tab,
        trees: dict[str, _Tree],
        owners: dict[tuple[str, int], str],
        *,
        only_acted_on: bool,
    ) -> None:
        self._tab = tab
        self._trees = trees
        self._owners = owners
        self._only_acted_on = only_acted_on
        self._length = 0

    def text(self, frame: str) -> str:
        lines = []
        for line in self._lines(self._trees[frame], self._trees[frame].root, 0, ""):
            self._length += len(line) + 1
            if self._length > LARGEST:
                lines.append(
                    f"(cut here: more than {LARGEST} characters; try snapshot -i, or get text TARGET)"
                )
                break
            lines.append(line)
        return "\n".join(lines)

    def _lines(self, tree: _Tree, node: dict[str, Any], depth: int, around: str) -> Iterator[str]:
        """The lines of a node and what is below it; `around` is the name of what it stands in."""
        # Deep pages are flat in their accessibility tree; still, a page must not make us run out of stack.
        if depth > 100:
            return
        role = _value(node, "role")
        name = " ".join(str(_value(node, "name")).split())[:_MAX_NAME]
        shown = not node.get("ignored") and role not in _PASSED_OVER
        if shown and role == "StaticText":
            if name and name not in around and not self._only_acted_on:
                yield f"{'  ' * depth}- text: {name}"
            return
        acted_on = shown and (role in _ACTED_ON or _is_editable(node))
        if shown and (acted_on or not self._only_acted_on):
            yield "  " * depth + self._line(tree, node, role, name)
            depth += 1
            around = name
        for child in node.get("childIds", ()):
            if child in tree.nodes:
                yield from self._lines(tree, tree.nodes[child], depth, around)
        inside = self._owners.pop((tree.frame.session.id, node.get("backendDOMNodeId", -1)), None)
        if inside is not None:
            if not self._only_acted_on:
                yield f"{'  ' * depth}- frame{_quoted(name)}:"
                depth += 1
            yield from self._lines(self._trees[inside], self._trees[inside].root, depth, "")

    def _line(self, tree: _Tree, node: dict[str, Any], role: str, name: str) -> str:
        line = f"- {role}{_quoted(name)}"
        properties = {each["name"]: each["value"].get("value") for each in node.get("properties", ())}
        for each in _PROPERTIES:
            value = properties.get(each)
            if value not in (None, False, "false"):
                line += f" [{each}]" if value in (True, "true") else f" [{each}={value}]"
        if "backendDOMNodeId" in node:
            number = f"e{len(self._tab.references) + 1}"
            self._tab.references[number] = Reference(tree.frame.id, node["backendDOMNodeId"])
            line += f" [ref={number}]"
        value = str(_value(node, "value"))[:_MAX_NAME]
        return f"{line}: {value}" if value and value != name else line


def _value(node: dict[str, Any], field: str) -> Any:
    return node.get(field, {}).get("value", "")


def _quoted(name: str) -> str:
    return f' "{name}"' if name else ""


def _is_editable(node: dict[str, Any]) -> bool:
    return any(each["name"] == "editable" for each in node.get("properties", ()))
