"""Opening and renaming beneath a folder: openat2(2) and renameat2(2), which Python doesn't have.

Nothing can change between check and use, because there is no check: the kernel walks the path, and doesn't
leave the folder.
"""

from __future__ import annotations

import ctypes
import errno
import os

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
_RENAME_NOREPLACE = 1
_ATTEMPTS = 1000

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open `path` relative to the folder `root`, never outside it, whatever links there are.

    Raises OSError: EXDEV where the path would lead out, EAGAIN where the tree changes all the time.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    code = 0
    for _ in range(_ATTEMPTS):
        found: int = _libc.syscall(
            _SYS_OPENAT2, root, ctypes.c_char_p(path or b"."), ctypes.byref(how), ctypes.sizeof(how)
        )
        if found >= 0:
            return found
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: a rename raced with "..", see openat2(2)
            break
    raise OSError(code, os.strerror(code))


def rename(source: int, name: bytes, target: int, new_name: bytes, *, replace: bool) -> None:
    """Move an entry of one folder to another; where something is, only with `replace`. Raises OSError."""
    flags = 0 if replace else _RENAME_NOREPLACE
    if _libc.renameat2(source, name, target, new_name, flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
