"""The files of the terminal's page: which there are, and their media types.

The table is the whole list: a name from a request is looked up in it, and never becomes part of a path.
`index.html` is the page; it loads the others from `static/NAME` beside itself, and its WebSocket is `ws`
beside itself, so that it works under any prefix that ends in a slash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "static"

_MEDIA_TYPES: Final = {
    "icon.svg": "image/svg+xml",
    "index.html": "text/html; charset=utf-8",
    "terminal.css": "text/css; charset=utf-8",
    "terminal.js": "text/javascript; charset=utf-8",
    "xterm.css": "text/css; charset=utf-8",
    "xterm.js": "text/javascript; charset=utf-8",
    "addon-fit.js": "text/javascript; charset=utf-8",
}

NAMES: Final = frozenset(_MEDIA_TYPES)

# xterm.js writes its cell sizes and theme into style elements; scripts come from files only.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)


def asset(name: str) -> tuple[bytes, str] | None:
    """Return a file's content and media type, or None if the page has no such file.

    Reads from disk at every call, so that a server keeps no copy. Raises OSError if the installation is
    broken.
    """
    media_type = _MEDIA_TYPES.get(name)
    if media_type is None:
        return None
    return (_FOLDER / name).read_bytes(), media_type
