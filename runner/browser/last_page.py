"""The page that a browser was at, kept beside its profile for the daemon that comes after."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

_NAME: Final = "oqto-last-page"
_LONGEST: Final = 16_384


class LastPage:
    """One URL in a file of the profile's folder, which is the account's alone."""

    def __init__(self, profile: Path) -> None:
        self._path = profile / _NAME
        self._kept: str | None = None

    def keep(self, url: str) -> None:
        """Keep this page instead of the one before."""
        if url == self._kept:
            return
        self._kept = url
        if url in ("", "about:blank") or len(url) > _LONGEST:
            self.forget()
            return
        new = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk costs a convenience, and no page
            new.touch(mode=0o600)
            new.write_text(url, encoding="utf-8")
            new.replace(self._path)

    def take(self) -> str | None:
        """Return the page that was kept, once: what a browser dies of isn't opened again and again."""
        try:
            url = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        self.forget()
        return url if 0 < len(url) <= _LONGEST else None

    def forget(self) -> None:
        """Keep none."""
        self._kept = None
        with contextlib.suppress(OSError):  # as there is none, or no profile
            self._path.unlink()
