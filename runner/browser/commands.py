"""The commands: which there are, how their arguments are read, and how long they may take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from runner.browser import navigation
from runner.browser.errors import Failed
from runner.browser.tabs import DialogOpened, Tab

if TYPE_CHECKING:
    from runner.browser.daemon import Daemon

Data = dict[str, Any]
Command = Callable[["Daemon", list[str]], Awaitable[Data]]

MOST_SECONDS: Final = 600.0


async def run(daemon: Daemon, arguments: list[str], seconds: float) -> Data:
    """Carry out a command within `seconds`; return its data. Raises Failed."""
    if not arguments:
        raise Failed("usage", "there is no command; see oqto-browser --help")
    command = COMMANDS.get(arguments[0])
    if command is None:
        raise Failed("usage", f"{arguments[0]!r} is no command; see oqto-browser --help")
    try:
        with trio.move_on_after(min(seconds, MOST_SECONDS)):
            return await command(daemon, arguments[1:])
    except DialogOpened as opened:
        return {"dialog": {"kind": opened.dialog.kind, "message": opened.dialog.message}}
    raise Failed("timeout", f"{' '.join(arguments[:2])}: not done after {seconds:g} s")


async def _open(daemon: Daemon, arguments: list[str]) -> Data:
    (url,) = _exactly(arguments, "open URL")
    return await navigation.open_url(await _page(daemon), url)


async def _close(daemon: Daemon, arguments: list[str]) -> Data:
    _exactly(arguments, "close")
    await daemon.close()
    return {}


async def _back(daemon: Daemon, arguments: list[str]) -> Data:
    _exactly(arguments, "back")
    return await navigation.go(await _page(daemon), -1)


async def _forward(daemon: Daemon, arguments: list[str]) -> Data:
    _exactly(arguments, "forward")
    return await navigation.go(await _page(daemon), 1)


async def _reload(daemon: Daemon, arguments: list[str]) -> Data:
    _exactly(arguments, "reload")
    return await navigation.reload(await _page(daemon))


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


async def _page(daemon: Daemon) -> Tab:
    """The active tab, if it can be driven now. Raises Failed."""
    tab = await daemon.browser.use()
    if tab.dialog is not None:
        raise Failed(
            "dialog",
            f"the page has opened a dialog ({tab.dialog.kind}: {tab.dialog.message[:200]!r}); "
            "answer it first: dialog accept [TEXT], or dialog dismiss",
        )
    return tab


def _exactly(arguments: list[str], usage: str) -> list[str]:
    if len(arguments) != len(usage.split()) - 1:
        raise Failed("usage", f"usage: {usage}")
    return arguments


COMMANDS: Final[dict[str, Command]] = {
    "open": _open,
    "navigate": _open,
    "close": _close,
    "back": _back,
    "forward": _forward,
    "reload": _reload,
    "set": _set,
    "emulatemedia": _emulate_media,
}
