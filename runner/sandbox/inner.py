"""The last step into a sandbox: limits and Landlock, and then the program itself takes this one's place.

bwrap starts it inside, as ``python -I -S inner.py DESCRIPTOR PROGRAM ARGUMENT...``. It runs for every service
of every session, so it imports as little as there is. What is to be done comes through the descriptor (see
`Orders`): marshalled, because the runner that wrote it is the same Python.

Landlock is the second wall: rules that hold even if a mount were wrong, and two that no mount can give,
against signals to processes outside and against abstract Unix sockets. The kernel's documentation in
userspace-api/landlock.rst explains the numbers.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class Orders(TypedDict):
        """What the runner wants done."""

        environment: dict[str, str]
        limits: list[tuple[int, int]]
        """Resource and hard limit, setrlimit(2)."""
        landlock: list[tuple[str, str]]
        """Path and access: ``read``, ``write``, ``list``, ``device``."""


EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_FIRST_ACCESSES = (1 << 13) - 1
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
_SCOPES = 1 << 0 | 1 << 1  # abstract Unix sockets, signals

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION = 1
_BENEATH = 1

ACCESS = {
    "list": READ_DIR,
    "read": READ_DIR | READ_FILE | EXECUTE,
    "device": READ_DIR | READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEVICE,
    "write": _FIRST_ACCESSES | REFER | TRUNCATE,
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def landlock_version() -> int:
    """Return the kernel's Landlock version, 0 where it has none or it is switched off."""
    found: int = _libc.syscall(ctypes.c_long(_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(found, 0)


def restrict(rules: list[tuple[str, str]]) -> None:
    """Confine this process, for good, to what the rules allow, as far as the kernel can. Raises OSError."""
    version = landlock_version()
    if version < 2:  # the first could not move files between folders at all
        return
    handled = _FIRST_ACCESSES | REFER
    handled |= TRUNCATE if version >= 3 else 0
    handled |= IOCTL_DEVICE if version >= 5 else 0
    attribute = handled.to_bytes(8, sys.byteorder)
    if version >= 4:
        attribute += bytes(8)  # TCP ports are not restricted here
    if version >= 6:
        attribute += _SCOPES.to_bytes(8, sys.byteorder)
    ruleset = _call(_CREATE, attribute, ctypes.c_size_t(len(attribute)), ctypes.c_uint32(0))
    for path, access in rules:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, PermissionError):
            continue  # what isn't there needs no permission
        allowed = ACCESS[access] & handled
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            allowed &= _OF_FILES
        # struct landlock_path_beneath_attr is packed.
        rule = allowed.to_bytes(8, sys.byteorder) + opened.to_bytes(4, sys.byteorder)
        if allowed:
            _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_BENEATH), rule, ctypes.c_uint32(0))
        os.close(opened)
    _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def limit(limits: list[tuple[int, int]]) -> None:
    """Lower this process's limits; one that is lower already stays."""
    for which, wanted in limits:
        soft, hard = resource.getrlimit(which)
        hard = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
        resource.setrlimit(which, (soft, hard))


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock refused: {os.strerror(code)}")
    return result


def main() -> None:
    """Carry out the orders and become the program. Exits with 126 or 127 as a shell does."""
    descriptor, program = int(sys.argv[1]), sys.argv[2:]
    with open(descriptor, "rb") as file:
        orders: Orders = marshal.loads(file.read())  # noqa: S302  the runner wrote it
    os.closerange(3, 1 << 16)  # nothing of the runner's or of bwrap's comes along
    try:
        limit(orders["limits"])
        restrict(orders["landlock"])
        os.execvpe(program[0], program, orders["environment"])  # noqa: S606  its whole purpose
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        print(f"oqto-sandbox: {program[0]} can't be run: {reason}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
