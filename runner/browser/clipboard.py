"""Text between a viewer's clipboard and the page."""

from __future__ import annotations

from typing import Final

from runner.browser.input import CONTROL, Clipboard
from runner.browser.tab import Tab

_MAX_COPY: Final = 1 << 20

# What is selected: in a field that has the focus, else on the page; through open shadow roots and frames.
_SELECTED: Final = """(() => {
  let window_ = window, active = document.activeElement;
  for (;;) {
    if (active && active.shadowRoot && active.shadowRoot.activeElement)
      active = active.shadowRoot.activeElement;
    else if (active && active.contentDocument) {
      window_ = active.contentWindow; active = active.contentDocument.activeElement;
    } else break;
  }
  if (active && typeof active.selectionStart === 'number' && active.type !== 'password')
    return active.value.slice(active.selectionStart, active.selectionEnd);
  return String(window_.getSelection() ?? '');
})()"""


async def carry_out(tab: Tab, message: Clipboard) -> str | None:
    """Paste, or return what is selected, which `cut` also deletes."""
    if message.event_type == "paste":
        await tab.call("Input.insertText", {"text": message.text})
        return None
    found = await tab.call("Runtime.evaluate", {"expression": _SELECTED, "returnByValue": True})
    text = str(found.get("result", {}).get("value", ""))[:_MAX_COPY]
    if message.event_type == "cut":
        key = {"key": "x", "code": "KeyX", "windowsVirtualKeyCode": 88, "modifiers": CONTROL}
        await tab.call("Input.dispatchKeyEvent", {"type": "rawKeyDown", "commands": ["cut"], **key})
        await tab.call("Input.dispatchKeyEvent", {"type": "keyUp", **key})
    return text
