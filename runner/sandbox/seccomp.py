"""The seccomp filter of a sandbox: what no session needs and past attacks used, refused by the kernel.

It is a deny-list, as in seccomp(2): a session runs whatever people build, and a list of what is allowed would
break some of it. libseccomp compiles it; bwrap loads it as the last thing before the program.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import tempfile
from collections.abc import Iterator

from msgspec import Struct

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_BAD_ARCHITECTURE = 2  # SCMP_FLTATR_ACT_BADARCH
_EQUAL, _AT_LEAST, _MASKED_EQUAL = 4, 5, 7  # enum scmp_compare
_UNKNOWN_CALL = -1  # __NR_SCMP_ERROR

_SECOND_ARCHITECTURES = {"x86_64": b"x86", "aarch64": b"arm"}
"""32-bit programs that the kernel runs too: without these they would be killed, or slip past."""

FORBIDDEN = {
    "what is shown": "mount umount umount2 pivot_root move_mount open_tree open_tree_attr fsopen fsconfig "
    "fsmount fspick mount_setattr",
    "other namespaces and handles": "setns open_by_handle_at",
    "keyrings, which outlive the session": "keyctl add_key request_key",
    "programs in the kernel, and watching others": "bpf perf_event_open userfaultfd fanotify_init syslog",
    "the kernel itself": "kexec_load kexec_file_load reboot init_module finit_module delete_module",
    "the whole host": "swapon swapoff acct quotactl quotactl_fd settimeofday clock_settime stime",
    "hardware": "iopl ioperm modify_ldt vm86 vm86old",
    "relics": "lookup_dcookie nfsservctl uselib ustat sysfs _sysctl vhangup",
}
"""System calls that always end with EPERM, by what they reach."""

ACROSS = "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd"
"""Reaching into other processes: refused where more than the session's can be seen, and in `strict`."""

ABSENT = "io_uring_setup io_uring_enter io_uring_register"
"""Refused as if the kernel didn't have them, which programs that could use them are prepared for."""

FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
"""The address families that sockets may have, socket(2)."""

_LAST_FAMILY = 64
_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x80)
_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: typing into a terminal that somebody else sits at, ioctl_tty(2)."""


class SeccompUnavailable(Exception):
    """libseccomp isn't there, or can't do it; the message says what to do."""


class Variant(Struct, frozen=True):
    """What differs between sandboxes."""

    nested_user_namespaces: bool = False
    """Chromium makes its own sandbox from them, and changes its root in there."""
    reach_into_processes: bool = True
    """Debuggers work."""


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        raise SeccompUnavailable("libseccomp was not found; install the package libseccomp2") from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    )
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


@functools.cache
def program(variant: Variant = Variant()) -> bytes:  # noqa: B008  immutable
    """Return the compiled filter, as bwrap's --seccomp takes it. Raises SeccompUnavailable."""
    library = _library()
    context = library.seccomp_init(_ALLOW)
    if not context:
        raise SeccompUnavailable("libseccomp could not begin a filter: out of memory")
    try:
        _check(library.seccomp_attr_set(context, _BAD_ARCHITECTURE, _ERRNO | errno.ENOSYS), "refuse ABIs")
        second = _SECOND_ARCHITECTURES.get(platform.machine())
        if second is not None:
            added = library.seccomp_arch_add(context, library.seccomp_arch_resolve_name(second))
            if added != -errno.EEXIST:
                _check(added, f"add the architecture {second.decode()}")
        for name, number, comparison in _rules(variant):
            call = library.seccomp_syscall_resolve_name(name.encode())
            if call == _UNKNOWN_CALL:
                continue  # newer than this libseccomp, or older than it remembers
            compared = (_Comparison * 1)(comparison) if comparison is not None else None
            count = 0 if comparison is None else 1
            added = library.seccomp_rule_add_array(context, _ERRNO | number, call, count, compared)
            _check(added, f"refuse {name}")
        with tempfile.TemporaryFile() as file:
            _check(library.seccomp_export_bpf(context, file.fileno()), "write the filter")
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


def _rules(variant: Variant) -> Iterator[tuple[str, int, _Comparison | None]]:
    """What is refused: the call, the error that it gets, and what its argument must be like."""
    for name in " ".join(FORBIDDEN.values()).split():
        if not (variant.nested_user_namespaces and name == "setns"):
            yield name, errno.EPERM, None
    for name in ABSENT.split():
        yield name, errno.ENOSYS, None
    if not variant.reach_into_processes:
        for name in ACROSS.split():
            yield name, errno.EPERM, None
    for request in _INPUT:
        yield "ioctl", errno.EPERM, _Comparison(1, _MASKED_EQUAL, 0xFFFFFFFF, request)
    for family in range(_LAST_FAMILY):
        if family not in FAMILIES.values():
            yield "socket", errno.EAFNOSUPPORT, _Comparison(0, _EQUAL, family, 0)
    yield "socket", errno.EAFNOSUPPORT, _Comparison(0, _AT_LEAST, _LAST_FAMILY, 0)
    if not variant.nested_user_namespaces:
        yield "chroot", errno.EPERM, None
        # Its flags are in memory, where a filter can't look; programs fall back to clone.
        yield "clone3", errno.ENOSYS, None
        for flag in _NAMESPACES:
            yield "unshare", errno.EPERM, _Comparison(0, _MASKED_EQUAL, flag, flag)
            if flag != 0x80:  # CLONE_NEWTIME: to clone it is a part of the signal's number
                yield "clone", errno.EPERM, _Comparison(0, _MASKED_EQUAL, flag, flag)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise SeccompUnavailable(f"libseccomp could not {what}: {os.strerror(-result)}")
