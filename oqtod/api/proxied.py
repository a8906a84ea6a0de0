"""What the API's description says of the paths that go to a session's services, past the API.

The services answer these themselves, and `oqtod.gateway.proxy` carries bytes: tests compare the two.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from oqtod.api.contract import RUNNER, Content, Media, Operation
from oqtod.api.views import Time

_ONE = "/api/sessions/{key}"

Path = Annotated[str, msgspec.Meta(description="A path in the workspace, percent-decoded to bytes.")]


Number = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0})]
"""What is out of bounds is taken for the bound."""

Flag = Annotated[str, msgspec.Meta(description="Yes is `true`, `1`, `yes`, `on`, or nothing.")]


class FileError(msgspec.Struct, frozen=True, kw_only=True):
    """What oqto-files could not do."""

    error: str
    code: str


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder; `children` for as many levels as were asked for.

    Bytes of a name that are no UTF-8 are lone surrogates (Python's surrogateescape); `path_encoded` is the
    path as a URL has it then.
    """

    name: str
    path: str
    type: Literal["file", "directory"]
    size: int | UnsetType = UNSET
    modified: Time | UnsetType = UNSET
    children: list[FileEntry] | UnsetType = UNSET
    path_encoded: str | UnsetType = UNSET
    is_symlink: bool | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET


class FileDone(msgspec.Struct, frozen=True, kw_only=True):
    """That it is done, and with what."""

    success: bool
    path: str


class FileWritten(FileDone, frozen=True, kw_only=True):
    """What was written, and whether there was no such file before."""

    size: int
    created: bool


class FileOfForm(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a form brought."""

    path: str
    size: int


class FilesOfForm(FileDone, frozen=True, kw_only=True):
    """The files that a form brought; the first one's path and size stand beside the list."""

    size: int
    files: list[FileOfForm]


class FileServerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """That the file server is there."""

    status: Literal["ok"]


class Tree(msgspec.Struct):
    """The query of …/files/tree."""

    path: Path = ""
    depth: Number = 1
    mode: Annotated[str, msgspec.Meta(description="`simple` leaves out sizes and times.")] = "full"
    show_hidden: Flag = "false"
    offset: Number = 0
    limit: Number = 10_000


class OfPath(msgspec.Struct):
    """The query of most of …/files."""

    path: Path


class Read(msgspec.Struct):
    """The query of reading a file. `download` has a browser save it."""

    path: Path
    download: Flag = "false"


class Written(msgspec.Struct):
    """The query of writing a file. `mkdir` makes the folders that it lies in."""

    path: Path
    mkdir: Flag = "false"


class Uploaded(msgspec.Struct):
    """The query of a form's files. `path` is the file, or the folder that they go into."""

    path: Path = ""
    mkdir: Flag = "false"


class Renamed(msgspec.Struct):
    """The query of …/files/rename."""

    old_path: Path
    new_path: Path
    overwrite: Flag = "false"
    mkdir: Flag = "false"


class Downloaded(msgspec.Struct):
    """The query of …/files/download."""

    path: Path = ""


class Zipped(msgspec.Struct):
    """The query of …/files/download-zip: paths with commas between them, and a name for the zip file."""

    paths: str
    name: str = "files"


class Thumbnail(msgspec.Struct):
    """The query of …/files/thumbnail; `size` in pixels."""

    path: Path
    size: Number = 256


class Watched(msgspec.Struct):
    """The query of …/files/ws/watch."""

    path: Path = ""
    recursive: Flag = "true"


_BYTES = Media("*/*", "The file, or the part of it that `Range` asks for.")
_ZIP = Media("application/zip", "A zip file, made as it is sent.")


def _files(
    method: str,
    path: str,
    text: str,
    answers: dict[int, Content],
    *,
    asks: type[msgspec.Struct] | None = None,
    takes: Content = None,
    fails: tuple[int, ...] = (),
) -> Operation:
    """Describe a path of oqto-files."""
    return Operation(
        method=method,
        path=f"{_ONE}/files{path}",
        text=text,
        answers=answers,
        asks=asks,
        takes=takes,
        refuses=RUNNER,
        failures=dict.fromkeys((400, 403, 404, 500, *fails), FileError),
    )


PROXIED = [
    _files("GET", "/health", "Say that the file server is there.", {200: FileServerHealth}),
    _files("GET", "/tree", "List a folder.", {200: list[FileEntry]}, asks=Tree),
    _files(
        "GET",
        "/file",
        "Read a file, or parts of it. `ETag` and the conditions of RFC 9110 work.",
        {200: _BYTES, 206: _BYTES, 304: None, 416: None},
        asks=Read,
    ),
    _files(
        "PUT",
        "/file",
        "Write a file: the body.",
        {200: FileWritten},
        asks=Written,
        takes=Media("*/*", "The file."),
        fails=(409, 412, 413, 507),
    ),
    _files(
        "POST",
        "/file",
        "Write files that a form brings.",
        {200: FilesOfForm},
        asks=Uploaded,
        takes=Media("multipart/form-data", "A form with files."),
        fails=(409, 412, 413, 415, 507),
    ),
    _files("DELETE", "/file", "Delete a file or a folder.", {200: FileDone}, asks=OfPath, fails=(409, 412)),
    *(
        _files(method, "/mkdir", "Make a folder.", {200: FileDone}, asks=OfPath, fails=(409, 507))
        for method in ("PUT", "POST")
    ),
    _files("POST", "/rename", "Rename or move.", {200: FileDone}, asks=Renamed, fails=(409, 507)),
    _files(
        "GET",
        "/download",
        "Download a file, or a folder as a zip file.",
        {200: (_BYTES, _ZIP), 206: _BYTES, 304: None, 416: None},
        asks=Downloaded,
    ),
    _files("GET", "/download-zip", "Download several files as a zip file.", {200: _ZIP}, asks=Zipped),
    _files(
        "GET",
        "/thumbnail",
        "Return a small picture of a picture.",
        {200: Media("image/png", "The small picture."), 304: None},
        asks=Thumbnail,
        fails=(413, 415, 503),
    ),
    _files(
        "GET",
        "/ws/watch",
        "Watch a folder, over a WebSocket: one JSON text for each change.",
        {101: None},
        asks=Watched,
        fails=(503,),
    ),
    Operation(
        method="GET",
        path=f"{_ONE}/terminal/ws",
        text="Open a terminal, over a WebSocket with the subprotocol `tty`: ttyd's protocol.",
        answers={101: None},
        refuses=RUNNER,
        failures=dict.fromkeys(
            (400, 403, 426, 503), Media("text/plain", "What the terminal's program says.")
        ),
    ),
    *(
        Operation(
            method=method,
            path=f"{_ONE}/ports/{{port}}/{{path}}",
            text="Ask a program that listens on a port of the session's.\n\n"
            "It answers what it likes, in a browser on an origin of nobody else's.",
            answers={},
            refuses=RUNNER,
            anything=True,
        )
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
    ),
]
"""Every path that goes to a service."""
