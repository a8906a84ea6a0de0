"""What oqto-files answers when something can't be done: the interface's codes, and which status each has."""

from __future__ import annotations

import errno

STATUS = {
    "NOT_FOUND": 404,
    "PATH_TRAVERSAL": 403,
    "PERMISSION_DENIED": 403,
    "INVALID_PATH": 400,
    "NOT_A_DIRECTORY": 400,
    "NOT_A_FILE": 400,
    "BAD_REQUEST": 400,
    "METHOD_NOT_ALLOWED": 405,
    "ALREADY_EXISTS": 409,
    "PRECONDITION_FAILED": 412,
    "FILE_TOO_LARGE": 413,
    "UNSUPPORTED": 415,
    "NO_SPACE": 507,
    "IO_ERROR": 500,
    "UNAVAILABLE": 503,
}
"""HTTP status by code."""

_CODES = {
    errno.ENOENT: "NOT_FOUND",
    errno.EXDEV: "PATH_TRAVERSAL",
    errno.ELOOP: "PATH_TRAVERSAL",
    errno.EACCES: "PERMISSION_DENIED",
    errno.EPERM: "PERMISSION_DENIED",
    errno.EROFS: "PERMISSION_DENIED",
    errno.ENOTDIR: "NOT_A_DIRECTORY",
    errno.EISDIR: "NOT_A_FILE",
    errno.EEXIST: "ALREADY_EXISTS",
    errno.ENOTEMPTY: "ALREADY_EXISTS",
    errno.ENAMETOOLONG: "INVALID_PATH",
    errno.EINVAL: "INVALID_PATH",
    errno.ENXIO: "NOT_A_FILE",
    errno.ENODEV: "NOT_A_FILE",
    errno.ENOSPC: "NO_SPACE",
    errno.EDQUOT: "NO_SPACE",
    errno.EFBIG: "FILE_TOO_LARGE",
}


class FileError(Exception):
    """A request that can't be done; `code` is one of `STATUS`, `headers` go with the answer."""

    def __init__(self, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers


def explained(error: OSError) -> FileError:
    """Return an operating system's error as one of ours."""
    if error.errno == errno.EXDEV:
        return FileError("PATH_TRAVERSAL", "that path leads out of the workspace")
    return FileError(_CODES.get(error.errno or 0, "IO_ERROR"), error.strerror or str(error))
