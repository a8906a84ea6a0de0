"""What commands take out of a page: a script's result, a picture, a PDF, cookies."""

from __future__ import annotations

from typing import Any, Final

from runner.browser.errors import Failed
from runner.browser.frames import exception_text
from runner.browser.tab import Tab

LARGEST: Final = 48 << 20
"""Characters of base64 that an answer may have."""

_TALLEST: Final = 16_000  # pixels; more than Chromium draws in one piece
_LARGEST_RESULT: Final = 4 << 20


async def evaluate(tab: Tab, arguments: list[str]) -> dict[str, Any]:
    """eval SCRIPT: run it in the page, and return its value. Raises Failed, DialogOpened."""
    if len(arguments) != 1:
        raise Failed("usage", "eval SCRIPT")
    parameters = {
        "expression": arguments[0],
        "awaitPromise": True,
        "returnByValue": True,
        "userGesture": True,
        "replMode": True,
        "allowUnsafeEvalBlockedByCSP": True,
    }
    answered = False
    try:
        answer = await tab.call("Runtime.evaluate", parameters)
        answered = True
    except Failed as error:
        answered = True
        if error.code == "failed":
            raise Failed("script", f"the result is nothing that JSON can hold: {error}") from None
        raise
    finally:
        if not answered and not tab.closed and tab.dialog is None:
            tab.post("Runtime.terminateExecution", {})  # it might run for ever
    if (wrong := answer.get("exceptionDetails")) is not None:
        raise Failed("script", exception_text(wrong))
    result = answer["result"]
    value = result.get("value", result.get("unserializableValue", result.get("description")))
    if isinstance(value, str) and len(value) > _LARGEST_RESULT:
        raise Failed("too_big", f"the result has {len(value)} characters, more than {_LARGEST_RESULT}")
    return {"result": value}


async def screenshot(tab: Tab, arguments: list[str]) -> dict[str, Any]:
    """screenshot [FILE] [--full]: a picture of what is visible, or of all. Raises Failed, DialogOpened."""
    files = [argument for argument in arguments if argument != "--full"]
    if len(files) > 1 or any(file.startswith("--") for file in files):
        raise Failed("usage", "screenshot [FILE] [--full]")
    jpeg = bool(files) and files[0].lower().endswith((".jpg", ".jpeg"))
    parameters: dict[str, Any] = {"format": "jpeg" if jpeg else "png"}
    if "--full" in arguments:
        size = (await tab.call("Page.getLayoutMetrics"))["cssContentSize"]
        height = min(size["height"], _TALLEST)
        parameters["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1}
        parameters["captureBeyondViewport"] = True
    data = (await tab.call("Page.captureScreenshot", parameters))["data"]
    return {"media_type": "image/jpeg" if jpeg else "image/png", "base64": _bounded(data)}


async def pdf(tab: Tab, arguments: list[str]) -> dict[str, Any]:
    """pdf FILE: the page as it would be printed. Raises Failed, DialogOpened."""
    if len(arguments) != 1:
        raise Failed("usage", "pdf FILE")
    data = (await tab.call("Page.printToPDF", {"printBackground": True}))["data"]
    return {"media_type": "application/pdf", "base64": _bounded(data)}


async def cookies(tab: Tab, arguments: list[str]) -> dict[str, Any]:
    """cookies, cookies set NAME VALUE [--url U], cookies clear. Raises Failed, DialogOpened."""
    match arguments:
        case []:
            pass
        case ["clear"]:
            await tab.call("Network.clearBrowserCookies")
        case ["set", name, value, *more] if not more or (len(more) == 2 and more[0] == "--url"):
            cookie = {"name": name, "value": value, "url": more[1] if more else tab.url}
            if not (await tab.call("Network.setCookie", cookie)).get("success"):
                raise Failed("failed", f"{cookie['url']} can't have the cookie {name}")
        case _:
            raise Failed("usage", "cookies, cookies set NAME VALUE [--url U], or cookies clear")
    found = await tab.call("Network.getCookies")
    kept = ("name", "value", "domain", "path", "expires", "httpOnly", "secure", "sameSite")
    return {"cookies": [{key: each[key] for key in kept if key in each} for each in found["cookies"]]}


def _bounded(data: str) -> str:
    if len(data) > LARGEST:
        raise Failed(
            "too_big", f"it has {len(data) * 3 // 4 >> 20} MB, more than {LARGEST * 3 // 4 >> 20} MB"
        )
    return data
