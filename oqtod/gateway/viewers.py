"""Which messages of somebody who watches a session's browser are a person's doing. No I/O."""

from __future__ import annotations

import re

LOOKED_AT = 24
"""Bytes of a message that tell what it is."""

_BY_ITSELF = re.compile(rb"""\s*\{\s*"type"\s*:\s*"(?:ack|status|viewport)\b""")


def is_input(beginning: bytes) -> bool:
    """Say whether a message that begins so is a person's; watching, and a page's own size, is none."""
    return _BY_ITSELF.match(beginning) is None
