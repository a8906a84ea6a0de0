"""What pages have the browser save: named safely, never over another file, bounded in size."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from runner.browser.devtools import DevTools
from runner.browser.settings import Settings

KEPT: Final = 100
"""Downloads that are remembered."""

_MAX_NAME: Final = 180
_MAX_AT_ONCE: Final = 10
_UNWELCOME: Final = re.compile(r"[\x00-\x1f\x7f/\\]+")


@dataclass(slots=True)
class Download:
    """A download. `state` is inProgress, completed or canceled, as in the protocol."""

    guid: str
    url: str
    name: str
    state: str = "inProgress"
    bytes: int = 0
    path: str | None = None
    error: str | None = None

    def shown(self) -> dict[str, Any]:
        """What commands and viewers see."""
        data = {"path": self.path or self.name, "url": self.url, "state": self.state, "bytes": self.bytes}
        return data if self.error is None else {**data, "error": self.error}


class Downloads:
    """The downloads of a session, into its folder."""

    def __init__(self, settings: Settings, *, tell: Callable[[dict[str, Any]], None]) -> None:
        self.folder = settings.downloads
        self._limit = settings.download_limit
        self._tell = tell
        self._devtools: DevTools | None = None
        self._all: dict[str, Download] = {}
        self.changed = trio.Event()
        """Set, and replaced, when a download begins or ends."""

    @property
    def unfinished(self) -> bool:
        """Whether one is on its way."""
        return any(download.state == "inProgress" for download in self._all.values())

    def shown(self) -> list[dict[str, Any]]:
        """All that are remembered, the newest last."""
        return [download.shown() for download in self._all.values()]

    def begin(self, devtools: DevTools) -> None:
        """Have a new Chromium save into the folder, under names that we then change."""
        for download in self._all.values():
            if download.state == "inProgress":
                download.state, download.error = "canceled", "the browser ended"
        self._devtools = devtools
        behavior = {"behavior": "allowAndName", "downloadPath": str(self.folder), "eventsEnabled": True}
        devtools.post("Browser.setDownloadBehavior", behavior)

    def handle(self, method: str, parameters: dict[str, Any]) -> None:
        """Take an event of Chromium."""
        if method == "Browser.downloadWillBegin":
            self._begun(parameters)
        elif method == "Browser.downloadProgress":
            download = self._all.get(parameters["guid"])
            if download is not None and download.state == "inProgress":
                self._progressed(download, parameters)

    def _begun(self, parameters: dict[str, Any]) -> None:
        guid, name = parameters["guid"], safe_name(parameters.get("suggestedFilename", ""))
        download = self._all[guid] = Download(guid, parameters.get("url", "")[:4096], name)
        while len(self._all) > KEPT:
            del self._all[next(iter(self._all))]
        if sum(each.state == "inProgress" for each in self._all.values()) > _MAX_AT_ONCE:
            self._cancel(download, f"more than {_MAX_AT_ONCE} downloads at once")
        else:
            self._say(download)

    def _progressed(self, download: Download, parameters: dict[str, Any]) -> None:
        download.bytes = int(parameters.get("receivedBytes", 0))
        if parameters["state"] == "completed":
            try:
                download.path = str(keep(self.folder, download.guid, download.name))
                download.state = "completed"
            except OSError as error:
                download.state, download.error = "canceled", f"it can't be kept: {error.strerror}"
            self._say(download)
        elif parameters["state"] == "canceled":
            download.state, download.error = "canceled", "the browser gave it up"
            self._remove(download)
            self._say(download)
        elif max(download.bytes, int(parameters.get("totalBytes", 0))) > self._limit:
            self._cancel(download, f"it is larger than {self._limit >> 20} MB")

    def _cancel(self, download: Download, reason: str) -> None:
        download.state, download.error = "canceled", reason
        if self._devtools is not None and not self._devtools.closed:
            self._devtools.post(
                "Browser.cancelDownload", {"guid": download.guid}, done=lambda _: self._remove(download)
            )
        self._say(download)

    def _remove(self, download: Download) -> None:
        for name in (download.guid, f"{download.guid}.crdownload"):
            (self.folder / name).unlink(missing_ok=True)

    def _say(self, download: Download) -> None:
        self._tell({"type": "download", **download.shown()})
        self.changed.set()
        self.changed = trio.Event()


def safe_name(suggested: str) -> str:
    """Return a file name that is no path, not hidden and not too long."""
    name = _UNWELCOME.sub("_", suggested).strip(" .")
    stem, dot, ending = name.rpartition(".")
    if len(os.fsencode(name)) > _MAX_NAME:
        ending = ending[-16:] if dot else ""
        stem = os.fsencode(stem or name)[: _MAX_NAME - 20].decode(errors="ignore")
        name = f"{stem}.{ending}" if ending else stem
    return name or "download"


def keep(folder: Path, guid: str, name: str) -> Path:
    """Give a finished download its name, or the next that is free. Raises OSError."""
    stem, dot, ending = name.rpartition(".")
    for number in range(1000):
        wanted = name
        if number:
            wanted = f"{stem} ({number}).{ending}" if dot and stem else f"{name} ({number})"
        try:
            os.link(folder / guid, folder / wanted, follow_symlinks=False)
        except FileExistsError:
            continue
        (folder / guid).unlink()
        return folder / wanted
    raise FileExistsError(17, "a thousand files have that name")
