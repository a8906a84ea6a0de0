"""Opening paths that stay beneath a folder: openat2(2), so that nothing can change between check and use."""

from __future__ import annotations

import ctypes
import os

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
_ATTEMPTS = 100

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open `path` relative to the folder `root`, never outside it, whatever links there are.

    Raises OSError: EXDEV where the path would lead out, EAGAIN where the tree changes all the time.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    for attempt in range(_ATTEMPTS):
        found: int = _libc.syscall(
            _SYS_OPENAT2, root, ctypes.c_char_p(path or b"."), ctypes.byref(how), ctypes.sizeof(how)
        )
        if found >= 0:
            return found
        error = ctypes.get_errno()
        # EAGAIN: a rename raced with "..", see openat2(2)
        if error not in (11, 4) or attempt == _ATTEMPTS - 1:
            raise OSError(error, os.strerror(error))
    raise AssertionError("unreachable: every attempt returns, raises or goes on")
