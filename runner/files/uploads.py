"""A file on its way in: nameless until it is whole, then in its place at once."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from dataclasses import dataclass, field

from runner.files.errors import FileError

_MODE = 0o666  # less the umask

_WORTH = 1024 * 1024
"""Bytes that are worth a thread's turn to write them."""


@dataclass(slots=True)
class Upload:
    """A new file in the folder that it will stand in. Without `finish`, nothing of it stays."""

    folder: int
    name: bytes
    descriptor: int
    temporary: bytes = b""
    """Its name until it is finished, on file systems that can't do without."""
    _pending: list[bytes] = field(default_factory=list)
    _held: int = 0

    @classmethod
    def begin(cls, folder: int, name: bytes) -> Upload:
        """Make a file without a name, O_TMPFILE in open(2). Takes `folder` over, on errors too. OSError."""
        try:
            try:
                flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
                return cls(folder, name, os.open(".", flags, _MODE, dir_fd=folder))
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    raise
            temporary = _temporary_name()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return cls(folder, name, os.open(temporary, flags, _MODE, dir_fd=folder), temporary)
        except BaseException:
            os.close(folder)
            raise

    def take(self, data: bytes) -> bool:
        """Take what comes next; say whether so much is held by now that it is worth a `write`."""
        self._pending.append(data)
        self._held += len(data)
        return self._held >= _WORTH

    def write(self) -> None:
        """Write what is held. Raises OSError."""
        view = memoryview(b"".join(self._pending))
        self._pending, self._held = [], 0
        while view:
            view = view[os.write(self.descriptor, view) :]

    def finish(self, *, replace: bool = True) -> bool:
        """Have it on the disk and in its place, whole; say whether it is new there.

        Keeps the mode of the file that it replaces. Raises FileError, OSError.
        """
        self.write()
        try:
            before = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            before = None
        if before is not None and stat.S_ISDIR(before.st_mode):
            raise FileError("NOT_A_FILE", "there is a folder of that name")
        if before is not None and not replace:
            raise FileError("PRECONDITION_FAILED", "there is a file of that name already")
        if before is not None and stat.S_ISREG(before.st_mode):
            os.fchmod(self.descriptor, stat.S_IMODE(before.st_mode) & 0o777)
        os.fsync(self.descriptor)
        if not self.temporary:
            temporary = _temporary_name()
            source = f"/proc/self/fd/{self.descriptor}"
            os.link(source, temporary, dst_dir_fd=self.folder, follow_symlinks=True)
            self.temporary = temporary
        if replace:
            os.rename(self.temporary, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
            self.temporary = b""
        else:
            try:
                os.link(self.temporary, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
            except FileExistsError:
                raise FileError("PRECONDITION_FAILED", "there is a file of that name already") from None
        os.fsync(self.folder)
        return before is None

    def close(self) -> None:
        """Let go; what was not finished is gone."""
        os.close(self.descriptor)
        try:
            if self.temporary:
                os.unlink(self.temporary, dir_fd=self.folder)
        except FileNotFoundError:
            pass  # the person cleaned up
        finally:
            os.close(self.folder)


def _temporary_name() -> bytes:
    return b".oqto-upload-" + secrets.token_hex(8).encode()
