"""The commands: which there are, how their arguments are read, and how long they may take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from runner.browser import actions, documents, navigation, waiting
from runner.browser.errors import Failed
from runner.browser.snapshot import snapshot
from runner.browser.tab import DialogOpened, Tab

if TYPE_CHECKING:
    from runner.browser.daemon import Daemon

Data = dict[str, Any]
Command = Callable[["Daemon", list[str]], Awaitable[Data]]
OfTab = Callable[[Tab, list[str]], Awaitable[Data]]

MOST_SECONDS: Final = 600.0

RETURN_SECONDS: Final = 10.0
"""How long a command waits for a page that comes back after a crash, before it looks at what is there."""


async def run(daemon: Daemon, arguments: list[str], seconds: float) -> Data:
    """Carry out a command within `seconds`; return its data. Raises Failed."""
    if not arguments:
        raise Failed("usage", "there is no command; see oqto-browser --help")
    if arguments[0] not in OF_DAEMON and arguments[0] not in OF_TAB:
        raise Failed("usage", f"{arguments[0]!r} is no command; see oqto-browser --help")
    try:
        with trio.move_on_after(min(seconds, MOST_SECONDS)):
            if arguments[0] in OF_DAEMON:
                return await OF_DAEMON[arguments[0]](daemon, arguments[1:])
            tab = await daemon.browser.use(back=arguments[0] not in ("open", "navigate"))
            return await _of_tab(tab, OF_TAB[arguments[0]], arguments[1:])
    except DialogOpened as opened:
        return {"dialog": {"kind": opened.dialog.kind, "message": opened.dialog.message}}
    raise Failed("timeout", f"{' '.join(arguments[:2])}: not done after {seconds:g} s")


async def _of_tab(tab: Tab, command: OfTab, arguments: list[str]) -> Data:
    if tab.dialog is not None:
        raise Failed(
            "dialog",
            f"the page has opened a dialog ({tab.dialog.kind}: {tab.dialog.message[:200]!r}); "
            "answer it first: dialog accept [TEXT], or dialog dismiss",
        )
    try:
        await tab.wait_for_return(RETURN_SECONDS)
        return await command(tab, arguments)
    finally:
        if not tab.closed and tab.crashed is None:
            actions.let_go(tab)


# --- of the daemon ----------------------------------------------------------------------------------------


async def _close(daemon: Daemon, arguments: list[str]) -> Data:
    _exactly(arguments, "close")
    await daemon.close()
    return {}


async def _set(daemon: Daemon, arguments: list[str]) -> Data:
    if len(arguments) != 3 or arguments[0] != "viewport":
        raise Failed("usage", "set viewport WIDTH HEIGHT")
    if not all(side.isdecimal() and 100 <= int(side) <= 4096 for side in arguments[1:]):
        raise Failed("usage", "set viewport: give two whole numbers from 100 to 4096")
    width, height = map(int, arguments[1:])
    await daemon.browser.use()
    await daemon.set_viewport(width, height)
    return {"viewport": [width, height]}


async def _emulate_media(daemon: Daemon, arguments: list[str]) -> Data:
    if len(arguments) != 1 or arguments[0] not in ("light", "dark"):
        raise Failed("usage", "emulatemedia light|dark")
    await daemon.browser.use()
    await daemon.browser.set_colours(arguments[0])
    return {"colorScheme": arguments[0]}


async def _dialog(daemon: Daemon, arguments: list[str]) -> Data:
    if arguments[:1] not in (["accept"], ["dismiss"]) or len(arguments) > 2:
        raise Failed("usage", "dialog accept [TEXT], or dialog dismiss")
    tab = daemon.browser.tab
    dialog = tab.dialog if tab is not None else None
    if tab is None or dialog is None:
        raise Failed("not_found", "no dialog is open")
    answer: Data = {"accept": arguments[0] == "accept"}
    if len(arguments) == 2:
        answer["promptText"] = arguments[1]
    tab.post("Page.handleJavaScriptDialog", answer)
    while tab.dialog is dialog and not tab.closed:
        await tab.changed.wait()
    return {"kind": dialog.kind, "message": dialog.message}


async def _downloads(daemon: Daemon, arguments: list[str]) -> Data:
    if arguments not in ([], ["--wait"]):
        raise Failed("usage", "downloads [--wait]")
    while arguments and daemon.downloads.unfinished:
        await daemon.downloads.changed.wait()
    return {"folder": str(daemon.downloads.folder), "downloads": daemon.downloads.shown()}


async def _tabs(daemon: Daemon, arguments: list[str]) -> Data:
    _exactly(arguments, "tabs")
    active = await daemon.browser.use()
    tabs = daemon.browser.tabs
    shown = [
        {"index": index, "url": tab.url, "title": tab.title, "active": tab is active}
        for index, tab in enumerate(tabs.all if tabs is not None else ())
    ]
    return {"tabs": shown}


async def _tab(daemon: Daemon, arguments: list[str]) -> Data:
    usage = Failed("usage", "tab N, tab new [URL], or tab close [N]")
    active = await daemon.browser.use()
    tabs = daemon.browser.tabs
    assert tabs is not None, "a tab is there"
    match arguments:
        case ["new", *urls] if len(urls) < 2:
            made = await daemon.browser.devtools.call("Target.createTarget", {"url": "about:blank"})
            active = await tabs.of(made["targetId"])
            await active.ready.wait()
            if urls:
                await navigation.open_url(active, urls[0])
        case ["close", *numbers] if len(numbers) < 2:
            closed = _numbered(tabs.all, numbers[0]) if numbers else active
            if closed.dialog is not None:
                closed.post("Page.handleJavaScriptDialog", {"accept": False})
            await daemon.browser.devtools.call("Target.closeTarget", {"targetId": closed.target})
            while not closed.closed:
                await closed.changed.wait()
        case [number] if number.isdecimal():
            tabs.show(_numbered(tabs.all, number))
        case _:
            raise usage
    return await _tabs(daemon, [])


def _numbered(tabs: list[Tab], number: str) -> Tab:
    if not number.isdecimal() or int(number) >= len(tabs):
        raise Failed("not_found", f"there is no tab {number}; there are 0 to {len(tabs) - 1}")
    return tabs[int(number)]


# --- of the active tab ------------------------------------------------------------------------------------


async def _open(tab: Tab, arguments: list[str]) -> Data:
    (url,) = _exactly(arguments, "open URL")
    return await navigation.open_url(tab, url)


async def _back(tab: Tab, arguments: list[str]) -> Data:
    _exactly(arguments, "back")
    return await navigation.go(tab, -1)


async def _forward(tab: Tab, arguments: list[str]) -> Data:
    _exactly(arguments, "forward")
    return await navigation.go(tab, 1)


async def _reload(tab: Tab, arguments: list[str]) -> Data:
    _exactly(arguments, "reload")
    return await navigation.reload(tab)


async def _snapshot(tab: Tab, arguments: list[str]) -> Data:
    if arguments not in ([], ["-i"]):
        raise Failed("usage", "snapshot [-i]")
    return await snapshot(tab, only_acted_on=bool(arguments))


async def _click(tab: Tab, arguments: list[str]) -> Data:
    button, count = "left", 1
    match arguments:
        case [target]:
            pass
        case [target, "--double"]:
            count = 2
        case [target, "--button", ("left" | "right" | "middle") as button]:
            pass
        case _:
            raise Failed("usage", "click TARGET [--double | --button left|right|middle]")
    return await actions.click(tab, target, button=button, count=count)


async def _hover(tab: Tab, arguments: list[str]) -> Data:
    (target,) = _exactly(arguments, "hover TARGET")
    return await actions.hover(tab, target)


async def _fill(tab: Tab, arguments: list[str]) -> Data:
    target, text = _exactly(arguments, "fill TARGET TEXT")
    return await actions.fill(tab, target, text)


async def _type(tab: Tab, arguments: list[str]) -> Data:
    target, text = _exactly(arguments, "type TARGET TEXT")
    return await actions.type_text(tab, target, text)


async def _press(tab: Tab, arguments: list[str]) -> Data:
    (key,) = _exactly(arguments, "press KEY")
    return await actions.press(tab, key)


async def _select(tab: Tab, arguments: list[str]) -> Data:
    if len(arguments) < 2:
        raise Failed("usage", "select TARGET VALUE...")
    return await actions.select(tab, arguments[0], arguments[1:])


async def _check(tab: Tab, arguments: list[str]) -> Data:
    (target,) = _exactly(arguments, "check TARGET")
    return await actions.check(tab, target, wanted=True)


async def _uncheck(tab: Tab, arguments: list[str]) -> Data:
    (target,) = _exactly(arguments, "uncheck TARGET")
    return await actions.check(tab, target, wanted=False)


async def _upload(tab: Tab, arguments: list[str]) -> Data:
    if len(arguments) < 2:
        raise Failed("usage", "upload TARGET FILE...")
    return await actions.upload(tab, arguments[0], arguments[1:])


async def _get(tab: Tab, arguments: list[str]) -> Data:
    match arguments:
        case ["url"]:
            return {"value": tab.url}
        case ["title"]:
            return {"value": (await navigation.described(tab))["title"]}
        case [("text" | "html" | "value") as what, target]:
            return await actions.get(tab, what, target)
        case ["attribute", name, target]:
            return await actions.get(tab, "attribute", target, name)
    raise Failed("usage", "get text|html|value TARGET, get attribute NAME TARGET, get url, or get title")


async def _scroll(tab: Tab, arguments: list[str]) -> Data:
    match arguments:
        case [("up" | "down" | "left" | "right") as way]:
            return await actions.scroll(tab, way, 400)
        case [("up" | "down" | "left" | "right") as way, pixels] if pixels.isdecimal():
            return await actions.scroll(tab, way, int(pixels))
        case [target]:
            return await actions.scroll_to(tab, target)
    raise Failed("usage", "scroll TARGET, or scroll up|down|left|right [PIXELS]")


def _exactly(arguments: list[str], usage: str) -> list[str]:
    if len(arguments) != len(usage.split()) - 1:
        raise Failed("usage", f"usage: {usage}")
    return arguments


OF_DAEMON: Final[dict[str, Command]] = {
    "close": _close,
    "set": _set,
    "emulatemedia": _emulate_media,
    "dialog": _dialog,
    "downloads": _downloads,
    "tabs": _tabs,
    "tab": _tab,
}
"""Commands that don't need a page that answers."""

OF_TAB: Final[dict[str, OfTab]] = {
    "open": _open,
    "navigate": _open,
    "back": _back,
    "forward": _forward,
    "reload": _reload,
    "snapshot": _snapshot,
    "click": _click,
    "hover": _hover,
    "fill": _fill,
    "type": _type,
    "press": _press,
    "select": _select,
    "check": _check,
    "uncheck": _uncheck,
    "upload": _upload,
    "get": _get,
    "scroll": _scroll,
    "eval": documents.evaluate,
    "screenshot": documents.screenshot,
    "pdf": documents.pdf,
    "cookies": documents.cookies,
    "wait": waiting.wait,
}
"""Commands for the active tab."""
