"""What a request's query and headers say. No I/O.

Paths in a query are bytes, as names on Linux are: percent-decoded and nothing else.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import h11

from runner.files.errors import FileError

_TRUE = (b"1", b"true", b"yes", b"on")
_CONDITIONS = (b"if-match", b"if-none-match", b"if-unmodified-since")


class Asked:
    """One request, without its body."""

    def __init__(self, request: h11.Request, query: bytes) -> None:
        self.method = bytes(request.method)
        self.headers: dict[bytes, bytes] = {}
        for name, value in request.headers:
            self.headers[name] = self.headers[name] + b", " + value if name in self.headers else value
        self._pairs = [
            (_decoded(name), _decoded(value))
            for name, _, value in (pair.partition(b"=") for pair in query.split(b"&"))
        ]

    @property
    def conditional(self) -> bool:
        """Whether a write is wanted only in some case."""
        return any(name in self.headers for name in _CONDITIONS)

    def every(self, name: str) -> list[bytes]:
        """Return all values of a parameter."""
        return [value for found, value in self._pairs if found == name.encode()]

    def text(self, name: str) -> bytes:
        """Return the last value of a parameter, empty where there is none."""
        return (self.every(name) or [b""])[-1]

    def path(self, name: str = "path", *, required: bool = True) -> bytes:
        """Return a path. Raises FileError when it is missing and `required`."""
        if required and not self.text(name):
            raise FileError("INVALID_PATH", f"the parameter {name} is missing")
        return self.text(name)

    def flag(self, name: str) -> bool:
        """Return whether a parameter says yes; one without a value does."""
        values = self.every(name)
        return bool(values) and (values[-1].lower() in _TRUE or values[-1] == b"")

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number within bounds. Raises FileError."""
        value = self.text(name)
        if not value:
            return default
        if not value.isdigit() or len(value) > 20:
            raise FileError("BAD_REQUEST", f"{name} must be a whole number")
        return max(least, min(int(value), most))


def _decoded(part: bytes) -> bytes:
    return unquote_to_bytes(part.replace(b"+", b" "))
