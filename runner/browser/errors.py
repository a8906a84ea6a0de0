"""The failures that a command answers with: a code for programs, a sentence for people."""

from __future__ import annotations

from typing import Literal

Code = Literal[
    "usage",
    "not_found",
    "not_ready",
    "timeout",
    "dialog",
    "navigation",
    "script",
    "crashed",
    "too_big",
    "no_browser",
    "failed",
]


class Failed(Exception):
    """What was asked for can't be done; the text says why, and what to do where that isn't plain."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
