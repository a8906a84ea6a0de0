"""What viewers send, as typed messages, and how each becomes the page's input."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

Coordinate = Annotated[float, Meta(ge=-100_000, le=100_000)]
Modifiers = Annotated[int, Meta(ge=0, le=15)]
Text = Annotated[str, Meta(max_length=1 << 19)]
Key = Annotated[str, Meta(max_length=64)]

ALT, CONTROL, META, SHIFT = 1, 2, 4, 8
"""Bits of `modifiers`."""


class _Message(Struct, frozen=True, tag_field="type", rename="camel"):
    pass


class Mouse(_Message, frozen=True, tag="input_mouse"):
    """A move, a button, the wheel; in CSS pixels of the viewport."""

    event_type: Literal["mousePressed", "mouseReleased", "mouseMoved", "mouseWheel"]
    x: Coordinate
    y: Coordinate
    button: Literal["none", "left", "middle", "right", "back", "forward"] = "none"
    buttons: Annotated[int, Meta(ge=0, le=31)] | None = None
    click_count: Annotated[int, Meta(ge=0, le=10)] = 0
    delta_x: Coordinate = 0
    delta_y: Coordinate = 0
    modifiers: Modifiers = 0


class Keyboard(_Message, frozen=True, tag="input_keyboard"):
    """A key, as in the DOM's KeyboardEvent."""

    event_type: Literal["keyDown", "keyUp", "char"]
    key: Key | None = None
    code: Key | None = None
    text: Key | None = None
    key_code: Annotated[int, Meta(ge=0, le=65535)] | None = None
    modifiers: Modifiers = 0
    repeat: bool = False
    location: Annotated[int, Meta(ge=0, le=3)] = 0


class InsertText(_Message, frozen=True, tag="input_text"):
    """Text at once."""

    text: Text


class Composition(_Message, frozen=True, tag="input_composition"):
    """An input method's text so far, or with `commit` its end."""

    text: Text
    selection_start: Annotated[int, Meta(ge=0)] | None = None
    selection_end: Annotated[int, Meta(ge=0)] | None = None
    commit: bool = False


class TouchPoint(Struct, frozen=True):
    """A finger."""

    x: Coordinate
    y: Coordinate
    id: Annotated[int, Meta(ge=0, le=1 << 30)] = 0


class Touch(_Message, frozen=True, tag="input_touch"):
    """All fingers that are down, or that changed."""

    event_type: Literal["touchStart", "touchEnd", "touchMove", "touchCancel"]
    touch_points: Annotated[list[TouchPoint], Meta(max_length=16)]
    modifiers: Modifiers = 0


class Clipboard(_Message, frozen=True, tag="clipboard"):
    """Paste the viewer's text, or give the viewer what is selected."""

    event_type: Literal["paste", "copy", "cut"]
    text: Text = ""


class Viewport(_Message, frozen=True, tag="viewport"):
    """The size, in CSS pixels, that the viewer would like the page to have."""

    width: Annotated[int, Meta(ge=100, le=4096)]
    height: Annotated[int, Meta(ge=100, le=4096)]
    device_scale_factor: Annotated[float, Meta(ge=0.5, le=3)] = 1


class AnswerDialog(_Message, frozen=True, tag="dialog"):
    """The answer to the page's dialog."""

    accept: bool
    text: Text | None = None


class AskStatus(_Message, frozen=True, tag="status"):
    """A request for a status message."""


class Acknowledge(_Message, frozen=True, tag="ack"):
    """A frame is on the viewer's screen."""

    id: Annotated[int, Meta(ge=0)]


Message = (
    Mouse
    | Keyboard
    | InsertText
    | Composition
    | Touch
    | Clipboard
    | Viewport
    | AnswerDialog
    | AskStatus
    | Acknowledge
)

decode = msgspec.json.Decoder(Message).decode
"""Read a viewer's message. Raises msgspec.DecodeError, with what is wrong and where."""

KEY_CODES: Final = {
    "Backspace": 8,
    "Tab": 9,
    "Enter": 13,
    "Shift": 16,
    "Control": 17,
    "Alt": 18,
    "Pause": 19,
    "CapsLock": 20,
    "Escape": 27,
    " ": 32,
    "PageUp": 33,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Insert": 45,
    "Delete": 46,
    "Meta": 91,
    "ContextMenu": 93,
    **{f"F{number}": 111 + number for number in range(1, 13)},
}
"""The Windows key codes that Chromium goes by, for keys that have no character."""

_BUTTONS: Final = {"none": 0, "left": 1, "right": 2, "middle": 4, "back": 8, "forward": 16}


def key_code(key: str | None) -> int:
    """Return the key code of a key's name or character, 0 where there is none."""
    if key is None:
        return 0
    if key in KEY_CODES:
        return KEY_CODES[key]
    return ord(key.upper()) if len(key) == 1 and key.isascii() and key.isalnum() else 0


def call(message: Message) -> tuple[str, dict[str, Any]] | None:
    """Return the method and parameters that carry out an input message; None for other messages."""
    match message:
        case Mouse():
            return "Input.dispatchMouseEvent", _mouse(message)
        case Keyboard():
            return _keyboard(message)
        case InsertText(text):
            return "Input.insertText", {"text": text}
        case Composition(text=text, commit=True):
            return "Input.insertText", {"text": text}
        case Composition(text, start, end):
            length = len(text.encode("utf-16-le")) // 2
            start = length if start is None else min(start, length)
            end = start if end is None else max(start, min(end, length))
            return "Input.imeSetComposition", {"text": text, "selectionStart": start, "selectionEnd": end}
        case Touch(kind, points, modifiers):
            shown = [{"x": point.x, "y": point.y, "id": point.id} for point in points]
            if kind in ("touchEnd", "touchCancel"):
                shown = []  # the protocol wants those that are left; the messages name those that ended
            return "Input.dispatchTouchEvent", {"type": kind, "touchPoints": shown, "modifiers": modifiers}
    return None


def _mouse(message: Mouse) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "type": message.event_type,
        "x": message.x,
        "y": message.y,
        "button": message.button,
        "clickCount": message.click_count,
        "modifiers": message.modifiers,
    }
    if message.event_type in ("mousePressed", "mouseReleased"):
        if message.button == "none":
            parameters["button"] = "left"
        parameters["clickCount"] = message.click_count or 1
    if message.buttons is not None:
        parameters["buttons"] = message.buttons
    elif message.event_type in ("mousePressed", "mouseMoved"):
        parameters["buttons"] = _BUTTONS[parameters["button"]]
    if message.event_type == "mouseWheel":
        parameters |= {"deltaX": message.delta_x, "deltaY": message.delta_y}
    return parameters


def _keyboard(message: Keyboard) -> tuple[str, dict[str, Any]] | None:
    if message.event_type == "char":
        if message.text in (None, "", "\r", "\n"):
            return None  # Enter types its character itself
        return "Input.dispatchKeyEvent", {
            "type": "char",
            "text": message.text,
            "modifiers": message.modifiers,
        }
    text = message.text
    if text is None and message.key == "Enter" and not message.modifiers & (ALT | CONTROL | META):
        text = "\r"
    kind: str = message.event_type
    if kind == "keyDown" and not text:
        kind = "rawKeyDown"  # types nothing
    code = message.key_code or key_code(message.key)
    parameters: dict[str, Any] = {
        "type": kind,
        "modifiers": message.modifiers,
        "windowsVirtualKeyCode": code,
        "nativeVirtualKeyCode": code,
        "autoRepeat": message.repeat,
        "location": message.location,
        "isKeypad": message.location == 3,
    }
    if message.key is not None:
        parameters["key"] = message.key
    if message.code is not None:
        parameters["code"] = message.code
    if kind == "keyDown":
        parameters |= {"text": text, "unmodifiedText": text}
    return "Input.dispatchKeyEvent", parameters
