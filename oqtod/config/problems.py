"""What is wrong with a configuration, said so that somebody can put it right."""

import json
import re
from collections.abc import Sequence

from msgspec import Struct

_LONGEST_SHOWN = 80


class Problem(Struct, frozen=True, kw_only=True):
    """One thing that must change before oqtod starts.

    `source` is the file, the environment variable or "command line"; `key` the dotted path, or "" where the
    problem is the file as a whole. `found`, `allowed` and `hint` may be empty. No field ever holds a secret.
    """

    source: str
    key: str
    message: str
    found: str = ""
    allowed: str = ""
    hint: str = ""

    def __str__(self) -> str:
        heading = ": ".join(part for part in (self.source, self.key, self.message) if part)
        details = (("found", self.found), ("allowed", self.allowed), ("hint", self.hint))
        lines = [heading, *(f"  {name + ':':<9}{text}" for name, text in details if text)]
        return "\n".join(map(printable, lines))


class ConfigRefused(Exception):
    """The configuration can't be used. `problems` says everything that is wrong, not only the first thing."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n\n".join(str(problem) for problem in self.problems)


def type_of(value: object) -> str:
    """Name a value's type as TOML does."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "float"
    if isinstance(value, list):
        return "array"
    if isinstance(value, dict):
        return "table"
    return {"datetime": "date and time", "NoneType": "nothing"}.get(
        type(value).__name__, type(value).__name__
    )


def describe(value: object, *, secret: bool = False) -> str:
    """Say what was found: type and value, short, on one line and without a secret."""
    kind = type_of(value)
    if secret:
        return f"string of {len(value)} characters (not shown)" if isinstance(value, str) else kind
    if kind in ("table", "array", "nothing"):
        # Tables and arrays may hold secrets further down.
        return f"{kind} of {len(value)}" if isinstance(value, list | dict) else kind
    return f"{kind} {quote(value)}"


def quote(value: object) -> str:
    """Write a single value on one line, printable on every terminal, cut short, without passwords in URLs."""
    if isinstance(value, str):
        text = json.dumps(re.sub(r"://[^/@]*@", "://…@", value), ensure_ascii=False)
        text = printable(text)
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        try:
            text = str(value)
        except ValueError:  # more digits than Python turns into text
            return "of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}… ({len(text)} characters)"


def printable(text: str) -> str:
    """Escape what could harm a terminal or can't be encoded: file and variable names may hold anything."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def closest(wrong: str, known: Sequence[str]) -> str | None:
    """Return the one of `known` that `wrong` was probably meant to be, or None."""
    from difflib import get_close_matches  # only needed when something is wrong

    matches = get_close_matches(wrong[:100], known, n=1, cutoff=0.6)
    return matches[0] if matches else None
